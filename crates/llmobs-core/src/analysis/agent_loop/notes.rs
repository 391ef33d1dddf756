//! Notes about a loop. They hold no text of the trace.

use std::collections::HashSet;

use super::AgentLoop;
use super::scope::{Coverage, LoopPlan};
use crate::model::SpanId;

/// What the builder of the loop counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoopCounts {
    /// Iterations that started before the previous one ended.
    pub(super) parallel: usize,
    /// Calls without a span and without a result.
    pub(super) unanswered: usize,
    /// Tools called more than once with the same arguments.
    pub(super) repeated: usize,
}

pub(super) fn notes(
    agent_loop: &AgentLoop<'_>,
    plan: &LoopPlan,
    counts: LoopCounts,
) -> Vec<String> {
    let mut notes = Vec::new();
    add_coverage(&mut notes, agent_loop, plan);
    add_omitted_calls(&mut notes, agent_loop, plan);
    add_counts(&mut notes, agent_loop, counts);
    notes
}

/// Which part of the trace the loop covers.
fn add_coverage(notes: &mut Vec<String>, agent_loop: &AgentLoop<'_>, plan: &LoopPlan) {
    match plan.coverage {
        Coverage::Agents => {}
        Coverage::NoAgent if agent_loop.totals.llm_calls == 0 => {}
        Coverage::NoAgent => notes.push(
            "The trace has no agent span; the loop covers all LLM calls of the trace.".to_owned(),
        ),
        Coverage::AgentsWithoutCalls => notes.push(
            "Every LLM call of the trace is outside its agent spans; the loop covers the entire \
             trace."
                .to_owned(),
        ),
    }
    if plan.agents > 1 {
        notes.push(format!(
            "The loop covers {} agents that run in sequence or in parallel; each iteration names \
             its agent. Pass the span_id of an agent to see its loop only.",
            plan.agents
        ));
    }
    if agent_loop.totals.llm_calls == 0 {
        notes.push(
            "No LLM call is recorded here; the iterations are the steps and tool calls, or else \
             the start of the loop."
                .to_owned(),
        );
    }
}

/// LLM calls that are not iterations of the loop, and where to find them.
fn add_omitted_calls(notes: &mut Vec<String>, agent_loop: &AgentLoop<'_>, plan: &LoopPlan) {
    let included = agent_loop
        .sub_agents
        .iter()
        .filter(|sub| sub.included)
        .count();
    if included > 0 {
        notes.push(format!(
            "An agent made no LLM call itself; the loop shows the iterations of {included} \
             sub-agent(s) instead, each with the name of its agent."
        ));
    }
    let (hidden, hidden_calls) = agent_loop
        .sub_agents
        .iter()
        .filter(|sub| !sub.included && sub.llm_calls > 0)
        .fold((0, 0), |(count, calls), sub| {
            (count + 1, calls + sub.llm_calls)
        });
    if hidden > 0 {
        notes.push(format!(
            "{hidden} sub-agent(s) made {hidden_calls} LLM call(s) that are not part of this \
             loop. Pass the span_id of a sub-agent to see them."
        ));
    }
    if plan.llm_in_tools > 0 {
        notes.push(format!(
            "{} LLM call(s) were made inside tools and are not iterations. Pass the span_id of \
             the tool to see them.",
            plan.llm_in_tools
        ));
    }
    if plan.llm_outside_agents > 0 {
        notes.push(format!(
            "{} LLM call(s) are outside all agents. Pass the span_id of the root span to see \
             them.",
            plan.llm_outside_agents
        ));
    }
}

fn add_counts(notes: &mut Vec<String>, agent_loop: &AgentLoop<'_>, counts: LoopCounts) {
    if counts.parallel > 0 {
        notes.push(format!(
            "{} iteration(s) started before the previous one ended.",
            counts.parallel
        ));
    }
    if counts.repeated > 0 {
        notes.push(format!(
            "{} tool call(s) were made more than once with the same arguments; see \
             repeated_calls.",
            counts.repeated
        ));
    }
    let covered: HashSet<&SpanId> = agent_loop
        .iterations
        .iter()
        .filter_map(|iteration| iteration.agent_span_id)
        .collect();
    let has_uncovered_handoff = agent_loop
        .iterations
        .iter()
        .flat_map(|iteration| &iteration.tool_calls)
        .filter_map(|call| call.handoff_to)
        .any(|agent| !covered.contains(agent));
    if has_uncovered_handoff {
        notes.push(
            "The conversation was handed off to another agent. Pass the span_id in handoff_to to \
             follow it, or omit span_id to see all agents."
                .to_owned(),
        );
    }
    if counts.unanswered > 0 {
        notes.push(format!(
            "{} tool call(s) have neither a span nor a result in a later message.",
            counts.unanswered
        ));
    }
}
