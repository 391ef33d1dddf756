//! The loop of an agent: its model calls and their tool calls, in order.
//!
//! Frameworks nest the same loop in different ways: LLM and tool spans as siblings, below graph
//! nodes, recorded twice by a client library, or with tools that have no span. This module
//! normalizes them: an iteration is one **decision** of a model, with the tool calls that it
//! requested and their results. A decision is an LLM span whose parent is no LLM span.
//!
//! `scope` selects the spans of the loop, `pairing` pairs calls with tool spans and results,
//! `build` creates the loop, `notes` explains it, and `limit` truncates long texts.

mod build;
mod handoff;
mod limit;
mod notes;
mod pairing;
mod scope;
mod usage;

use std::borrow::Cow;

pub use limit::truncate_texts;
use serde::Serialize;
use serde_json::Value;

use super::tree::{NodeId, TraceTree};
use crate::model::{SpanId, SpanKind, Status, TraceId};

/// The loop of an agent, with the keys of the tool's answer. Texts are borrowed from the spans, so
/// a loop of thousands of iterations copies none of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentLoop<'t> {
    /// The node where the loop starts; `None` if the trace is empty.
    #[serde(skip)]
    pub start: Option<NodeId>,
    /// The trace id.
    pub trace_id: TraceId,
    /// The span where the loop starts.
    pub span_id: SpanId,
    /// The name of that span, which is the agent's name if the span is an agent.
    pub agent_name: String,
    /// Number of all iterations; an answer may show fewer.
    pub total_iterations: usize,
    /// The decisions in order, agent after agent.
    pub iterations: Vec<Iteration<'t>>,
    /// The conversation in order.
    pub timeline: Vec<TimelineEntry<'t>>,
    /// Sums over `iterations`.
    pub totals: LoopTotals,
    /// Agents called by the agents of this loop.
    pub sub_agents: Vec<SubAgent<'t>>,
    /// Calls made more than once with the same arguments, a sign that the agent makes no progress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repeated_calls: Vec<RepeatedCall<'t>>,
    /// Notes for the reader, without text of the trace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One decision of a model; in a loop without LLM spans, one step or tool call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Iteration<'t> {
    /// Number, from 1.
    pub iteration: usize,
    /// The LLM span; the outer one if a call is recorded twice.
    pub span_id: &'t SpanId,
    /// Its name.
    pub name: &'t str,
    /// Its kind, unless it is `llm`.
    #[serde(skip_serializing_if = "is_llm")]
    pub span_kind: &'t SpanKind,
    /// The name of the agent, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'t str>,
    /// The span of the agent, if it is in the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_span_id: Option<&'t SpanId>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<&'t str>,
    /// Status of the LLM call.
    pub status: Status,
    /// The error of the LLM call.
    pub error_message: Option<Cow<'t, str>>,
    /// The text of the model.
    pub content: Cow<'t, str>,
    /// The tool calls that the model requested, then tools that ran without a request.
    pub tool_calls: Vec<ToolCallRecord<'t>>,
    /// Input tokens; 0 if not recorded.
    pub input_tokens: u64,
    /// Output tokens; 0 if not recorded.
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache; 0 if not recorded.
    pub cache_read_input_tokens: u64,
    /// Cost in USD, if recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// Start, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Duration in milliseconds.
    pub duration_ms: f64,
    /// Whether it started before the previous iteration's LLM call ended.
    #[serde(skip_serializing_if = "is_false")]
    pub overlaps_previous: bool,
}

/// A tool call and its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCallRecord<'t> {
    /// Name of the tool.
    pub name: &'t str,
    /// The arguments; an object if they are one.
    pub arguments: Cow<'t, Value>,
    /// The output of the tool span, else the result that the model received; null if neither is
    /// known.
    pub result: Option<Cow<'t, str>>,
    /// The id that call and result share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<&'t str>,
    /// The tool span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<&'t SpanId>,
    /// Status of the tool span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The error of the tool span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'t, str>>,
    /// Duration of the tool span in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// False for a tool that ran although no recorded message requests it.
    #[serde(skip_serializing_if = "is_true")]
    pub asked_by_model: bool,
    /// The agent span that the call handed the conversation off to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_to: Option<&'t SpanId>,
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimelineEntry<'t> {
    /// `system`, `user`, `assistant`, `tool`, or the role as sent, which may be empty.
    pub role: &'t str,
    /// The iteration that the message belongs to. Input of a decision belongs to the previous
    /// iteration; input of the first one to 0.
    pub iteration: usize,
    /// The text of the message.
    pub content: Cow<'t, str>,
    /// The span that recorded it.
    pub span_id: &'t SpanId,
    /// The start of that span, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Name of the tool, for role `tool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'t str>,
    /// Names of the requested tools, for role `assistant`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<&'t str>,
    /// `error` if the content is an error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Sums over the iterations. A call recorded twice counts once. Metrics of agent spans do not
/// count, because they repeat those of their LLM calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LoopTotals {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read_input_tokens: u64,
    /// Cost in USD, if recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// LLM calls.
    pub llm_calls: usize,
    /// Tool calls, requested or not.
    pub tool_calls: usize,
    /// Time from the first start to the last end, in milliseconds.
    pub duration_ms: f64,
}

/// An agent called by an agent of the loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubAgent<'t> {
    /// Its span.
    pub span_id: &'t SpanId,
    /// Its name.
    pub name: &'t str,
    /// The iteration of the caller during or after which it ran; if its iterations are part of this
    /// loop, the first of them.
    pub iteration: Option<usize>,
    /// LLM calls in its subtree.
    pub llm_calls: usize,
    /// Whether its iterations are part of this loop, because its caller made no decision.
    #[serde(skip_serializing_if = "is_false")]
    pub included: bool,
}

/// A tool that one agent called more than once with the same arguments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepeatedCall<'t> {
    /// Name of the tool.
    pub name: &'t str,
    /// Number of calls.
    pub count: usize,
    /// The iterations, at most 20.
    pub iterations: Vec<usize>,
    /// The tool spans, at most 20.
    pub span_ids: Vec<&'t SpanId>,
}

/// The loop that starts at a span.
///
/// - An agent span: its decisions. Decisions of its sub-agents are left out, and `sub_agents` lists
///   those. If the agent made no decision, the loop shows the iterations of its sub-agents, each
///   with the name of its agent.
/// - Any other span: the decisions in its subtree, by the same rules.
/// - `None`: the outermost agents of the trace, by start; the first one is the start. Without an
///   agent span: all decisions of the trace.
///
/// Only an empty trace has an empty loop. Without decisions, the iterations are steps and tool
/// calls, or the start itself, and a note explains it.
pub fn agent_loop(tree: &TraceTree, start: Option<NodeId>) -> AgentLoop<'_> {
    build::build(tree, &scope::plan(tree, start))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes the field by reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes the field by reference"
)]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_llm(kind: &&SpanKind) -> bool {
    **kind == SpanKind::Llm
}

#[cfg(test)]
mod tests;
