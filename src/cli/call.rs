//! `call`: one tool from the shell, through the same code as over MCP, so with the same bytes.

mod arguments;

use std::io::Read;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::server::{McpServer, Outcome, closest};
use crate::tools::{self, Tool};

use super::args::CallArgs;
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::upstream::{Connected, connect};

pub(crate) async fn run(settings: Settings, args: &CallArgs) -> Result<ExitCode, CliError> {
    let tool = tools::find(&args.tool).ok_or_else(|| unknown(&args.tool))?;
    let arguments = read_arguments(tool, args)?;
    let wish = settings.wish.clone();
    let Connected { upstreams, backend } = connect(settings).await?;
    let server = McpServer::new(upstreams, wish);
    let scope = server.plain_scope();
    let outcome = server.call(tool.name, arguments, &scope, "cli call").await;
    let ended = match outcome {
        Outcome::Answer(text) => output::print(&text).map(|()| ExitCode::SUCCESS),
        Outcome::Failure(text) => output::print(&text).map(|()| ExitCode::from(1)),
        Outcome::UnknownTool { message } => Err(CliError::usage(message, "")),
    };
    Connected::close(backend).await;
    ended
}

fn unknown(name: &str) -> CliError {
    let mend = match closest(name, tools::all().iter().map(|tool| tool.name)) {
        Some(near) => format!("did you mean {near}? `llmobs-mcp tools` lists them all"),
        None => "`llmobs-mcp tools` lists them, such as search_llmobs_spans".to_owned(),
    };
    CliError::usage(format!("there is no tool named {name}"), mend)
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
            let read = arguments::from_pairs(&args.arguments, &schema)?;
            for note in &read.notes {
                output::tell(&format!("note: {note}"));
            }
            Ok(read.arguments)
        }
    }
}
