//! What an agent did, decision by decision.
//!
//! Frameworks nest the same loop in very different ways: LLM and tool spans as siblings, below
//! graph nodes, doubled by a client library, or with tools that left no span at all. Here it is
//! one shape: an iteration is one decision of a model, that is an LLM span that is not directly
//! below another one, with the tool calls it asked for and what came back.
//!
//! `scope` finds the spans of the loop, `pairing` joins calls to tools and results, `build` writes
//! the answer, `limit` cuts long texts.

mod build;
mod limit;
mod notes;
mod pairing;
mod scope;

pub use limit::truncate_texts;
use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::tree::{NodeId, TraceTree};
use crate::model::{SpanId, SpanKind, Status, TraceId};

/// The loop of an agent, with the keys of the tool's answer. What was said and returned is borrowed
/// from the spans: a loop of thousands of decisions copies none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentLoop<'t> {
    /// The node where the loop starts; `None` if the trace is empty.
    #[serde(skip)]
    pub start: Option<NodeId>,
    /// The trace.
    pub trace_id: TraceId,
    /// The span where the loop starts.
    pub span_id: SpanId,
    /// The name of that span: the agent's name when it is an agent.
    pub agent_name: String,
    /// Number of iterations, also when an answer shows fewer.
    pub total_iterations: usize,
    /// The decisions, in the order they were made, agent after agent.
    pub iterations: Vec<Iteration<'t>>,
    /// The conversation in the order it was held.
    pub timeline: Vec<TimelineEntry<'t>>,
    /// Sums over `iterations`.
    pub totals: LoopTotals,
    /// Agents called by the agents of this loop.
    pub sub_agents: Vec<SubAgent<'t>>,
    /// Calls made more than once with the same arguments: a sign of going in circles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repeated_calls: Vec<RepeatedCall<'t>>,
    /// What a reader should know, in our own words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One decision of a model. Where nothing below the start is an LLM span, one step or tool call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Iteration<'t> {
    /// Number, from 1.
    pub iteration: usize,
    /// The LLM span; the outer one when a call was recorded twice.
    pub span_id: &'t SpanId,
    /// Its name.
    pub name: &'t str,
    /// Its kind, where it is not `llm`.
    #[serde(skip_serializing_if = "is_llm")]
    pub span_kind: &'t SpanKind,
    /// The agent that decided, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'t str>,
    /// The span of that agent, if it is in the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_span_id: Option<&'t SpanId>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<&'t str>,
    /// Whether the call itself worked.
    pub status: Status,
    /// Why it did not.
    pub error_message: Option<Cow<'t, str>>,
    /// What the model said.
    pub content: Cow<'t, str>,
    /// The tools it asked for, then tools that ran without being asked for.
    pub tool_calls: Vec<ToolCallRecord<'t>>,
    /// Input tokens; 0 when not sent.
    pub input_tokens: u64,
    /// Output tokens; 0 when not sent.
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache; 0 when not sent.
    pub cache_read_input_tokens: u64,
    /// Cost in USD, where sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// Start, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Length in milliseconds.
    pub duration_ms: f64,
    /// Whether it started before the previous iteration's LLM call had ended.
    #[serde(skip_serializing_if = "is_false")]
    pub overlaps_previous: bool,
}

/// A tool call and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCallRecord<'t> {
    /// Name of the tool.
    pub name: &'t str,
    /// The arguments, as an object where they are one.
    pub arguments: Cow<'t, Value>,
    /// The output of the tool's span, else what the model was given; null when neither is known.
    pub result: Option<Cow<'t, str>>,
    /// The id that joins call and result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<&'t str>,
    /// The tool's span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<&'t SpanId>,
    /// Whether that span worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'t, str>>,
    /// Length of that span in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// False for a tool that ran without a model having asked for it in a recorded message.
    #[serde(skip_serializing_if = "is_true")]
    pub asked_by_model: bool,
    /// The agent span to which this call handed the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_to: Option<&'t SpanId>,
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimelineEntry<'t> {
    /// `system`, `user`, `assistant`, `tool`, or as it was sent, also empty.
    pub role: &'t str,
    /// The iteration it belongs to; what was said before a decision belongs to the one before, and
    /// at the beginning to 0.
    pub iteration: usize,
    /// What was said, asked or returned.
    pub content: Cow<'t, str>,
    /// The span that shows it.
    pub span_id: &'t SpanId,
    /// The start of that span, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The tool, for role `tool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'t str>,
    /// The tools asked for, for role `assistant`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<&'t str>,
    /// `error`, when the content is an error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Sums over the iterations. A call recorded twice counts once, and an agent's own metrics, which
/// repeat those of its LLM calls, never do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LoopTotals {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from a cache.
    pub cache_read_input_tokens: u64,
    /// Cost in USD, if any was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// LLM calls.
    pub llm_calls: usize,
    /// Tool calls, asked for or not.
    pub tool_calls: usize,
    /// From the first start to the last end, in milliseconds.
    pub duration_ms: f64,
}

/// An agent called by an agent of the loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubAgent<'t> {
    /// Its span.
    pub span_id: &'t SpanId,
    /// Its name.
    pub name: &'t str,
    /// The iteration of the caller during or after which it ran; its own first one when its
    /// iterations are part of this loop.
    pub iteration: Option<usize>,
    /// LLM calls of its own and of agents below it.
    pub llm_calls: usize,
    /// Whether its iterations are part of this loop, because its caller decided nothing itself.
    #[serde(skip_serializing_if = "is_false")]
    pub included: bool,
}

/// One tool called more than once by one agent with the same arguments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepeatedCall<'t> {
    /// Name of the tool.
    pub name: &'t str,
    /// How often it was called so.
    pub count: usize,
    /// The iterations, at most 20.
    pub iterations: Vec<usize>,
    /// The tools' spans, at most 20.
    pub span_ids: Vec<&'t SpanId>,
}

/// The loop that starts at a span.
///
/// - An agent span: its own decisions. Those of agents below it are not mixed in; the agents stand
///   in `sub_agents`. Only when the agent decided nothing itself are the loops of its sub-agents
///   the answer, each iteration naming its agent.
/// - Any other span: the decisions below it, likewise.
/// - `None`: the outermost agents of the trace, the first one named as the start, those it handed
///   off to following. Without an agent span: all decisions of the trace.
///
/// Only an empty trace has an empty loop: where no model decided, steps and tool calls are the
/// iterations, or else the start itself, and a note says so.
pub fn agent_loop(tree: &TraceTree, start: Option<NodeId>) -> AgentLoop<'_> {
    build::build(tree, &scope::plan(tree, start))
}

// Serde hands these a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_llm(kind: &&SpanKind) -> bool {
    **kind == SpanKind::Llm
}

#[cfg(test)]
mod tests;
