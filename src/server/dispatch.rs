//! Runs a tool call from stdio, HTTP or the shell.
//!
//! One function serves all three, so that the same arguments give the same bytes. It removes the
//! arguments that are not the tool's, limits the time, and turns a panic in a tool into an error
//! answer, so that no client waits forever. A tracing span ties the log lines of a call together.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::tools::{self, Access, Tool, ToolContext};
use llmobs_authz::CallerCredential;
use llmobs_core::analysis::candidates::closest;

use super::selection::{HiddenReason, printable};
use super::{McpServer, Scope};

/// How long one tool call may take. Common clients give up after a minute; a shorter deadline lets the
/// caller read our error.
pub const CALL_DEADLINE: Duration = Duration::from_secs(55);

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The tool's answer: one compact JSON object.
    Answer(String),
    /// An error of the tool or of the call: one compact JSON object.
    Failure(String),
    /// No tool of that name exists.
    UnknownTool {
        /// The message for the caller; it names served tools only.
        message: String,
    },
}

impl McpServer {
    /// Calls a tool by its current or old name. Dropping the future cancels the call.
    pub async fn call(
        &self,
        name: &str,
        mut arguments: Map<String, Value>,
        scope: &Scope,
        caller: &str,
    ) -> Outcome {
        let Some(tool) = tools::find(name) else {
            return Outcome::UnknownTool {
                message: unknown_tool(name, scope),
            };
        };
        if let Some(reason) = scope.selection.hidden_reason(tool.name) {
            return Outcome::Failure(hidden_tool(tool.name, reason, &scope.caller));
        }
        strip_intent(&mut arguments);
        // The level `error` keeps the span enabled at every log level, so that warnings carry it too.
        let span = tracing::error_span!(
            "tool_call",
            tool = tool.name,
            call_id = %Uuid::new_v4().simple(),
            caller,
        );
        self.call_tool(tool, arguments, scope, caller)
            .instrument(span)
            .await
    }

    async fn call_tool(
        &self,
        tool: &Tool,
        arguments: Map<String, Value>,
        scope: &Scope,
        caller: &str,
    ) -> Outcome {
        let client = match self.upstreams().client(&scope.caller, caller).await {
            Ok(client) => client,
            Err(refusal) => {
                return Outcome::Failure(failure(&refusal.error, 401, &refusal.hint));
            }
        };
        let context = ToolContext {
            client,
            now_ms: now_ms(),
        };
        let started = Instant::now();
        let work = AssertUnwindSafe(tool.call(&context, arguments)).catch_unwind();
        let (outcome, text) = match tokio::time::timeout(CALL_DEADLINE, work).await {
            Ok(Ok(Ok(answer))) => ("answer", answer),
            Ok(Ok(Err(error))) => ("error", error.to_json()),
            Ok(Err(_panic)) => ("error", panicked(tool)),
            Err(_elapsed) => ("error", timed_out(tool)),
        };
        tracing::info!(
            outcome,
            bytes = text.len(),
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "tool call"
        );
        match outcome {
            "answer" => Outcome::Answer(text),
            _ => Outcome::Failure(text),
        }
    }
}

/// Removes arguments about the call itself. Skills add `telemetry.intent` (older ones a top-level
/// `intent`) to every call; no tool has such an argument.
fn strip_intent(arguments: &mut Map<String, Value>) {
    arguments.shift_remove("telemetry");
    arguments.shift_remove("intent");
}

/// An error object with the keys of a tool's error: `{error, status, hint}`.
fn failure(error: &str, status: u16, hint: &str) -> String {
    json!({"error": error, "status": status, "hint": hint}).to_string()
}

fn panicked(tool: &Tool) -> String {
    failure(
        &format!("{} failed inside this server", tool.name),
        500,
        "this is a bug: please report it with the arguments and the log of this server",
    )
}

fn timed_out(tool: &Tool) -> String {
    let hint = match tool.access {
        Access::Read => {
            "request less (a shorter from/to, a smaller limit, one trace_id), or repeat the call: the data \
             read so far is cached"
        }
        Access::Write { .. } => {
            "the change may or may not have been made: check before you repeat the call"
        }
    };
    let error = format!(
        "{} did not finish within {} seconds",
        tool.name,
        CALL_DEADLINE.as_secs()
    );
    failure(&error, 504, hint)
}

fn hidden_tool(name: &str, reason: HiddenReason, caller: &CallerCredential) -> String {
    match reason {
        HiddenReason::ReadOnly => failure(
            &format!("{name} writes, and this server is read-only for you"),
            403,
            match caller {
                CallerCredential::User(user) if !user.may_write => {
                    "sign in to this server again (in the client, after signing out there) and allow \
                     changes"
                }
                _ => "start the server without --read-only, or send the request without read_only",
            },
        ),
        HiddenReason::Omitted => failure(
            &format!("{name} is excluded by omit_tools"),
            403,
            "remove it from --omit-tools of the server, or from omit_tools in the URL",
        ),
        HiddenReason::Toolset(toolset) => failure(
            &format!("{name} belongs to the toolset {toolset}, which is not enabled"),
            403,
            &format!(
                "add the toolset to the URL, such as /mcp?toolsets={toolset}, or to --toolsets"
            ),
        ),
    }
}

fn unknown_tool(name: &str, scope: &Scope) -> String {
    let served = scope.selection.served();
    let wrong = printable(name);
    match closest(name, served.iter().copied()) {
        Some(near) => format!("unknown tool '{wrong}'; did you mean '{near}'?"),
        None if served.is_empty() => format!(
            "unknown tool '{wrong}'; no tools are served, because the list of toolsets has no known \
             name (try toolsets=llmobs)"
        ),
        None => format!(
            "unknown tool '{wrong}'; the tools are {}",
            served.join(", ")
        ),
    }
}
