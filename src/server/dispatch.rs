//! One tool call, whoever asks: over stdio, over HTTP, or from the shell.
//!
//! The same function serves all three, so that the same arguments give the same bytes. It strips
//! what is addressed to the server rather than to the tool, bounds the time, and turns a panic in a
//! tool into an answer instead of a client that waits forever.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use serde_json::{Map, Value, json};

use crate::tools::{self, Access, Tool, ToolContext};
use llmobs_authz::Admitted;

use super::selection::{Hidden, printable};
use super::{McpServer, Scope, closest};

/// How long one tool call may take. Below the minute after which common clients give up by
/// themselves, so that the caller reads our error and not their own.
pub const CALL_DEADLINE: Duration = Duration::from_secs(55);

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The tool's answer: one compact JSON object.
    Answer(String),
    /// The tool's error, or ours about the call: one compact JSON object.
    Failure(String),
    /// No tool of that name exists.
    UnknownTool {
        /// What to tell the caller; names served tools only.
        message: String,
    },
}

impl McpServer {
    /// Calls a tool by its present or old name. Dropping the future cancels the call.
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
        if let Some(why) = scope.selection.hidden(tool.name) {
            return Outcome::Failure(hidden_tool(tool.name, why, &scope.caller));
        }
        strip_intent(&mut arguments);
        let client = match self.upstreams().client(&scope.caller, caller).await {
            Ok(client) => client,
            Err(refused) => {
                return Outcome::Failure(failure(&refused.error, 401, &refused.hint));
            }
        };
        let context = ToolContext {
            client,
            now_ms: now_ms(),
        };
        let started = Instant::now();
        let work = AssertUnwindSafe(tool.call(&context, arguments)).catch_unwind();
        let outcome = match tokio::time::timeout(CALL_DEADLINE, work).await {
            Ok(Ok(Ok(answer))) => Outcome::Answer(answer),
            Ok(Ok(Err(error))) => Outcome::Failure(error.to_json()),
            Ok(Err(_panic)) => Outcome::Failure(failure(
                &format!("{} failed inside this server", tool.name),
                500,
                "this is a bug: please report it with the arguments and the log of this server",
            )),
            Err(_elapsed) => Outcome::Failure(too_slow(tool)),
        };
        let (outcome_word, bytes) = match &outcome {
            Outcome::Answer(text) => ("answer", text.len()),
            Outcome::Failure(text) => ("error", text.len()),
            Outcome::UnknownTool { .. } => ("unknown", 0),
        };
        tracing::info!(
            tool = tool.name,
            outcome = outcome_word,
            bytes,
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            caller,
            "tool call"
        );
        outcome
    }
}

/// Removes what callers say *about* a call. Skills put `telemetry.intent` (older ones a top-level
/// `intent`) into every call; no tool takes either.
fn strip_intent(arguments: &mut Map<String, Value>) {
    arguments.shift_remove("telemetry");
    arguments.shift_remove("intent");
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// An error object in the shape of the tools' own: `{error, status, hint}`.
fn failure(error: &str, status: u16, hint: &str) -> String {
    json!({"error": error, "status": status, "hint": hint}).to_string()
}

fn too_slow(tool: &Tool) -> String {
    let hint = match tool.access {
        Access::Read => {
            "ask for less (a shorter from/to, a smaller limit, one trace_id) or ask again: what was \
             read so far is cached"
        }
        Access::Write { .. } => {
            "it may or may not have been carried out: look before you send it again"
        }
    };
    let error = format!(
        "{} did not finish within {} seconds",
        tool.name,
        CALL_DEADLINE.as_secs()
    );
    failure(&error, 504, hint)
}

fn hidden_tool(name: &str, why: Hidden, caller: &Admitted) -> String {
    match why {
        Hidden::ReadOnly => failure(
            &format!("{name} writes, and this server is read-only for you"),
            403,
            match caller {
                Admitted::As(user) if !user.may_write => {
                    "sign in to this server again (in the client, after logging out there) and tick \
                     that changes may be made"
                }
                _ => {
                    "whoever runs the server can start it without --read-only (or the request without \
                     read_only)"
                }
            },
        ),
        Hidden::Omitted => failure(
            &format!("{name} is left out by omit_tools"),
            403,
            "whoever configured the connection can remove it from --omit-tools or omit_tools",
        ),
        Hidden::Toolset(toolset) => failure(
            &format!("{name} belongs to the toolset {toolset}, which is not enabled here"),
            403,
            &format!("add it to the URL, such as /mcp?toolsets={toolset}, or to --toolsets"),
        ),
    }
}

fn unknown_tool(name: &str, scope: &Scope) -> String {
    let served = scope.selection.served();
    let wrong = printable(name);
    match closest(name, served.iter().copied()) {
        Some(near) => format!("unknown tool '{wrong}'; did you mean '{near}'?"),
        None if served.is_empty() => format!(
            "unknown tool '{wrong}'; no tools are served here: no name in the list of toolsets is \
             known (try toolsets=llmobs)"
        ),
        None => format!(
            "unknown tool '{wrong}'; the tools are {}",
            served.join(", ")
        ),
    }
}
