//! `tools`: lists the tools that a server with these settings serves.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use crate::server::{Selection, ToolFilter, ToolRegistry, definitions};
use crate::tools::{self, Access};

use super::args::ToolsArgs;
use super::error::CliError;
use super::output;
use super::settings::Settings;

pub(crate) fn run(settings: &Settings, args: &ToolsArgs) -> Result<ExitCode, CliError> {
    let selection =
        ToolRegistry::from_tools().select(&settings.tool_filter, &ToolFilter::default());
    for warning in &selection.warnings {
        tracing::warn!("{warning}");
    }
    let text = if args.json {
        json!({"tools": definitions(&selection)}).to_string()
    } else {
        table(&selection)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// One line per tool: access, name, first sentence of the description.
fn table(selection: &Selection) -> String {
    let served = || {
        tools::all()
            .iter()
            .filter(|tool| selection.serves(tool.name))
    };
    let width = served()
        .map(|tool| tool.name.len())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for tool in served() {
        let access = match tool.access {
            Access::Read => "reads ",
            Access::Write { .. } => "writes",
        };
        let sentence = tool.description.lines().next().unwrap_or_default();
        let sentence = sentence.split_inclusive(". ").next().unwrap_or(sentence);
        let _ = writeln!(
            text,
            "{access}  {:width$}  {}",
            tool.name,
            sentence.trim_end()
        );
    }
    if text.is_empty() {
        text.push_str("No tools are served. Check --toolsets, --omit-tools and --read-only.\n");
    }
    text.push_str("\n`llmobs-mcp tools --json` shows the arguments; `llmobs-mcp call TOOL key=value` calls a tool.");
    text
}
