//! The toolset: what an MCP client can call, whatever transport it came by.
//!
//! A tool is data: a name, words for the model, a schema, and a function from arguments to one
//! JSON object. The server lists and calls them, the shell's `call` does the same, and neither
//! knows what a tool does.

mod answer;
mod args;
mod error;
mod evaluators;
mod experiments;
mod spans;

use std::sync::LazyLock;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

pub use error::ToolError;

use datadog_llmobs::Client;

/// What a call runs with: whose data, and what time it is.
#[derive(Clone)]
pub struct ToolContext {
    /// Reads and writes on the caller's behalf.
    pub client: Client,
    /// The moment of the call, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// What a tool may do to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Changes something.
    Write {
        /// Whether something can be lost by it.
        destructive: bool,
        /// Whether a second call with the same arguments changes nothing more.
        idempotent: bool,
    },
}

/// A group of tools that a client asks for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toolset {
    /// The name in `?toolsets=`.
    pub name: &'static str,
    /// What the group is for.
    pub description: &'static str,
}

/// Every toolset there is. All of them are served when a client names none.
pub const TOOLSETS: &[Toolset] = &[Toolset {
    name: "llmobs",
    description: "LLM observability: spans, traces, errors, agent loops, experiments and datasets",
}];

/// Names that older servers and skills use, and the tools that answer to them.
pub const ALIASES: &[(&str, &str)] = &[
    ("search_datadog_llmobs_spans", "search_llmobs_spans"),
    ("get_llmobs_eval_config", "get_llmobs_evaluator"),
];

type Run =
    for<'a> fn(&'a ToolContext, Map<String, Value>) -> BoxFuture<'a, Result<String, ToolError>>;

/// One tool.
#[derive(Clone, Copy)]
pub struct Tool {
    /// The name that clients call; `[a-z_]`, unique.
    pub name: &'static str,
    /// A name for people.
    pub title: &'static str,
    /// What it does and when to call it, in words that a tool search looks for.
    pub description: &'static str,
    /// The toolset it belongs to.
    pub toolset: &'static str,
    /// What it may do.
    pub access: Access,
    schema: fn() -> Map<String, Value>,
    run: Run,
}

impl Tool {
    /// The JSON Schema of the arguments: plain 2020-12, no integer formats, no `null`.
    pub fn input_schema(&self) -> Map<String, Value> {
        (self.schema)()
    }

    /// Whether the tool reaches beyond this machine's own data. All do, as the data lie on a
    /// Datadog site or are written by other programs.
    pub fn open_world(&self) -> bool {
        true
    }

    /// Runs the tool. The answer is the text of one compact JSON object.
    ///
    /// # Errors
    ///
    /// A [`ToolError`] that says what was wrong and shows a call that works.
    pub async fn call(
        &self,
        context: &ToolContext,
        arguments: Map<String, Value>,
    ) -> Result<String, ToolError> {
        (self.run)(context, arguments).await
    }
}

/// All tools, in the fixed order in which they are listed.
pub fn all() -> &'static [Tool] {
    static ALL: LazyLock<Vec<Tool>> =
        LazyLock::new(|| [spans::TOOLS, experiments::TOOLS, evaluators::TOOLS].concat());
    &ALL
}

/// The tool of that name, or of that old name.
pub fn find(name: &str) -> Option<&'static Tool> {
    let name = ALIASES
        .iter()
        .find(|(old, _)| *old == name)
        .map_or(name, |(_, new)| new);
    all().iter().find(|tool| tool.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_alias_leads_somewhere() {
        let names: BTreeSet<_> = all().iter().map(|tool| tool.name).collect();
        assert_eq!(names.len(), all().len());
        for (old, new) in ALIASES {
            assert!(!names.contains(old), "{old} is both a tool and an alias");
            assert_eq!(find(old).map(|tool| tool.name), Some(*new));
        }
    }

    #[test]
    fn every_tool_belongs_to_a_toolset_and_describes_itself() {
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
    fn schemas_are_portable() {
        for tool in all() {
            let text = serde_json::to_string(&tool.input_schema()).unwrap();
            for foreign in [
                "\"format\"",
                "\"null\"",
                "null",
                "$ref",
                "$defs",
                "$schema",
                "uint",
            ] {
                assert!(
                    !text.contains(foreign),
                    "{}: {foreign} in {text}",
                    tool.name
                );
            }
            assert!(text.contains("\"telemetry\""), "{}", tool.name);
        }
    }
}
