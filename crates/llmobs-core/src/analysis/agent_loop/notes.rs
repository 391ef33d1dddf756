//! What a reader of a loop should know, in words of our own: no text of the trace stands in them.

use std::collections::HashSet;

use super::AgentLoop;
use super::scope::{Plan, Shape};
use crate::model::SpanId;

/// What was counted while the loop was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Iterations that started before their predecessor had ended.
    pub(super) parallel: usize,
    /// Calls of which neither a span nor a result is known.
    pub(super) unanswered: usize,
    /// Calls made more than once with the same arguments.
    pub(super) repeated: usize,
}

pub(super) fn notes(found: &AgentLoop<'_>, plan: &Plan, seen: Seen) -> Vec<String> {
    let mut notes = Vec::new();
    match plan.shape {
        Shape::Plain => {}
        Shape::NoAgent if found.totals.llm_calls == 0 => {}
        Shape::NoAgent => notes.push(
            "The trace has no agent span: the loop covers every LLM call of the trace.".to_owned(),
        ),
        Shape::AgentsWithoutCalls => notes.push(
            "Every LLM call of the trace lies outside of its agent spans: the loop covers the \
             whole trace."
                .to_owned(),
        ),
    }
    if plan.agents > 1 {
        notes.push(format!(
            "The loop covers {} agents that follow each other or run side by side; each \
             iteration names its own. Pass a span_id to see one alone.",
            plan.agents
        ));
    }
    if found.totals.llm_calls == 0 {
        notes.push(
            "No LLM call was recorded here: the iterations are the steps and tool calls, or else \
             the start itself."
                .to_owned(),
        );
    }
    let included = found.sub_agents.iter().filter(|sub| sub.included).count();
    if included > 0 {
        notes.push(format!(
            "An agent decided nothing itself: the iterations of {included} sub-agent(s) stand \
             in its place, each naming its agent."
        ));
    }
    let (hidden, hidden_calls) = found
        .sub_agents
        .iter()
        .filter(|sub| !sub.included && sub.llm_calls > 0)
        .fold((0, 0), |(count, calls), sub| {
            (count + 1, calls + sub.llm_calls)
        });
    if hidden > 0 {
        notes.push(format!(
            "{hidden} sub-agent(s) made {hidden_calls} LLM call(s) that are not part of this \
             loop: pass the span_id of a sub-agent to see them."
        ));
    }
    if plan.llm_in_tools > 0 {
        notes.push(format!(
            "{} LLM call(s) were made inside tools and are no iterations: pass the span_id of \
             the tool to see them.",
            plan.llm_in_tools
        ));
    }
    if plan.llm_outside > 0 {
        notes.push(format!(
            "{} LLM call(s) lie outside of every agent: pass the span_id of the root to see \
             them.",
            plan.llm_outside
        ));
    }
    if seen.parallel > 0 {
        notes.push(format!(
            "{} iteration(s) started before the one before had ended.",
            seen.parallel
        ));
    }
    if seen.repeated > 0 {
        notes.push(format!(
            "{} tool call(s) were made more than once with the same arguments: see \
             repeated_calls.",
            seen.repeated
        ));
    }
    let covered: HashSet<&SpanId> = found
        .iterations
        .iter()
        .filter_map(|iteration| iteration.agent_span_id)
        .collect();
    let handed_over = found
        .iterations
        .iter()
        .flat_map(|iteration| &iteration.tool_calls)
        .filter_map(|call| call.handoff_to)
        .any(|agent| !covered.contains(agent));
    if handed_over {
        notes.push(
            "The conversation was handed to another agent: pass the span_id in handoff_to to \
             follow it, or no span_id to see all."
                .to_owned(),
        );
    }
    if seen.unanswered > 0 {
        notes.push(format!(
            "{} tool call(s) have neither a span nor a result in a later message.",
            seen.unanswered
        ));
    }
    notes
}
