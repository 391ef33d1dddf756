//! What a tool is: a name, a description for the model, a schema, and a function from arguments to
//! the text of one JSON object.

use datadog_llmobs::Client;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::error::ToolError;

/// What every call needs beside its arguments.
#[derive(Clone)]
pub struct ToolContext {
    /// Reads and writes with the credential of the caller.
    pub client: Client,
    /// The time of the call, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// What a tool may do to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Changes data.
    Write {
        /// Whether a call can lose data.
        destructive: bool,
        /// Whether a second call with the same arguments changes nothing more.
        idempotent: bool,
    },
}

/// A named group of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toolset {
    /// The name in `?toolsets=`.
    pub name: &'static str,
    /// The purpose of the group.
    pub description: &'static str,
}

type Run =
    for<'a> fn(&'a ToolContext, Map<String, Value>) -> BoxFuture<'a, Result<String, ToolError>>;

/// One tool.
#[derive(Clone, Copy)]
pub struct Tool {
    /// The name that clients call; `[a-z_]`, unique.
    pub name: &'static str,
    /// A name for people.
    pub title: &'static str,
    /// What it does and when to call it. The first line has the words that a tool search looks for.
    pub description: &'static str,
    /// The toolset that contains it.
    pub toolset: &'static str,
    /// What it may do.
    pub access: Access,
    pub(super) schema: fn() -> Map<String, Value>,
    pub(super) run: Run,
}

impl Tool {
    /// The JSON Schema of the arguments: plain 2020-12, no integer formats, no `null`.
    pub fn input_schema(&self) -> Map<String, Value> {
        (self.schema)()
    }

    /// Whether the tool works on data from outside this server. All do: the data are on a Datadog
    /// site or come from other programs.
    pub fn open_world(&self) -> bool {
        true
    }

    /// Runs the tool. The answer is the text of one compact JSON object.
    ///
    /// # Errors
    ///
    /// A [`ToolError`] that names the mistake and shows a call that works.
    pub async fn call(
        &self,
        context: &ToolContext,
        arguments: Map<String, Value>,
    ) -> Result<String, ToolError> {
        (self.run)(context, arguments).await
    }
}
