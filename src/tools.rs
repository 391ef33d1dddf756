//! The tools that an MCP client or the `call` command can run.
//!
//! A tool is data ([`Tool`]): the server and the command line list and call tools without a
//! dependency on any particular one. To add a tool, write one file with a `TOOL` constant and add
//! the constant to the `TOOLS` table of its family.

mod answer;
mod args;
mod error;
mod evaluators;
mod experiments;
mod object;
mod page;
mod spans;
mod tool;

use std::sync::LazyLock;

pub use error::ToolError;
pub use tool::{Access, Tool, ToolContext, Toolset};

/// Every toolset. The server offers all of them when a client names none.
pub const TOOLSETS: &[Toolset] = &[Toolset {
    name: "llmobs",
    description: "LLM observability: spans, traces, errors, agent loops, experiments and datasets",
}];

/// Former names that older clients and skills still call, and the present names.
pub const ALIASES: &[(&str, &str)] = &[
    ("search_datadog_llmobs_spans", "search_llmobs_spans"),
    ("get_llmobs_eval_config", "get_llmobs_evaluator"),
];

/// All tools, in the fixed order in which they are listed.
pub fn all() -> &'static [Tool] {
    static ALL: LazyLock<Vec<Tool>> =
        LazyLock::new(|| [spans::TOOLS, experiments::TOOLS, evaluators::TOOLS].concat());
    &ALL
}

/// The tool with a present or former name.
pub fn find(name: &str) -> Option<&'static Tool> {
    let name = ALIASES
        .iter()
        .find(|(former, _)| *former == name)
        .map_or(name, |(_, present)| present);
    all().iter().find(|tool| tool.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_aliases_name_tools() {
        let names: BTreeSet<_> = all().iter().map(|tool| tool.name).collect();
        assert_eq!(names.len(), all().len());
        for (former, present) in ALIASES {
            assert!(
                !names.contains(former),
                "{former} is both a tool and an alias"
            );
            assert_eq!(find(former).map(|tool| tool.name), Some(*present));
        }
    }

    #[test]
    fn every_tool_has_a_toolset_and_a_description() {
        for tool in all() {
            assert!(
                TOOLSETS.iter().any(|set| set.name == tool.toolset),
                "{}",
                tool.name
            );
            let length = tool.description.len();
            assert!((80..4_000).contains(&length), "{}: {length}", tool.name);
        }
    }

    #[test]
    fn schemas_use_portable_keywords_only() {
        for tool in all() {
            let text = serde_json::to_string(&tool.input_schema()).unwrap();
            for keyword in [
                "\"format\"",
                "\"null\"",
                "null",
                "$ref",
                "$defs",
                "$schema",
                "uint",
            ] {
                assert!(
                    !text.contains(keyword),
                    "{}: {keyword} in {text}",
                    tool.name
                );
            }
            assert!(text.contains("\"telemetry\""), "{}", tool.name);
        }
    }
}
