//! `call`: calls one tool from the shell, through the same code as over MCP.

mod arguments;

use std::io::Read;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::server::{McpServer, Outcome};
use crate::tools::{self, Tool};

use llmobs_core::analysis::candidates::closest;

use super::args::CallArgs;
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::upstream::{Connection, close_backend, connect};

pub(crate) async fn run(settings: Settings, args: &CallArgs) -> Result<ExitCode, CliError> {
    let tool = tools::find(&args.tool).ok_or_else(|| unknown_tool(&args.tool))?;
    let arguments = read_arguments(tool, args)?;
    let tool_filter = settings.tool_filter.clone();
    let Connection { upstreams, backend } = connect(settings).await?;
    let server = McpServer::new(upstreams, tool_filter);
    let scope = server.default_scope();
    let outcome = server.call(tool.name, arguments, &scope, "cli call").await;
    let result = match outcome {
        Outcome::Answer(text) => output::print(&text).map(|()| ExitCode::SUCCESS),
        Outcome::Failure(text) => output::print(&text).map(|()| ExitCode::from(1)),
        Outcome::UnknownTool { message } => Err(CliError::usage(message, "")),
    };
    close_backend(backend).await;
    result
}

fn unknown_tool(name: &str) -> CliError {
    let hint = match closest(name, tools::all().iter().map(|tool| tool.name)) {
        Some(near) => format!("did you mean {near}? `llmobs-mcp tools` lists all tools"),
        None => "`llmobs-mcp tools` lists all tools, such as search_llmobs_spans".to_owned(),
    };
    CliError::usage(format!("no tool is named {name}"), hint)
}

fn read_arguments(tool: &Tool, args: &CallArgs) -> Result<Map<String, Value>, CliError> {
    let schema = tool.input_schema();
    match &args.json {
        Some(text) => {
            let text = if text.trim() == "-" {
                let mut input = String::new();
                std::io::stdin()
                    .read_to_string(&mut input)
                    .map_err(|error| {
                        CliError::failed(format!("standard input cannot be read: {error}"), "")
                    })?;
                input
            } else {
                text.clone()
            };
            arguments::from_json(&text)
        }
        None => {
            let parsed = arguments::from_pairs(&args.arguments, &schema)?;
            for note in &parsed.notes {
                output::print_note(&format!("note: {note}"));
            }
            Ok(parsed.arguments)
        }
    }
}
