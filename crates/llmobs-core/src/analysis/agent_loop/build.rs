//! Builds a loop: iterations, timeline, sums and notes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::handoff::AgentIndex;
use super::notes::{LoopCounts, notes};
use super::pairing::{self, Direction, PairedCall, decision_io};
use super::scope::{LoopPlan, Scope, Section};
use super::usage::{DecisionUsage, add_costs};
use super::{
    AgentLoop, Iteration, LoopTotals, RepeatedCall, SubAgent, TimelineEntry, ToolCallRecord,
};
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{Io, Message, Span, SpanId, SpanKind, Status};

/// Iterations and spans listed for one repeated call.
const MAX_OCCURRENCES: usize = 20;
/// Repeated calls listed in one loop.
const MAX_REPEATED_CALLS: usize = 20;

pub(super) fn build<'t>(tree: &'t TraceTree, plan: &LoopPlan) -> AgentLoop<'t> {
    let Some(start) = plan.start else {
        return AgentLoop::default();
    };
    let span = tree.span(start);
    let mut builder = LoopBuilder {
        tree,
        agent_loop: AgentLoop {
            start: plan.start,
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            agent_name: span.name.clone(),
            ..AgentLoop::default()
        },
        agents: AgentIndex::new(tree),
        first_iterations: HashMap::new(),
        tool_iterations: HashMap::new(),
        repeated_calls: Vec::new(),
        repeated_call_index: HashMap::new(),
        bounds: None,
        parallel: 0,
        unanswered: 0,
        seen_messages: HashSet::new(),
    };
    builder.extend_bounds(std::iter::once(start));
    for section in &plan.sections {
        match section {
            Section::Loop(scope) => builder.push_loop(scope),
            Section::Standalone { node, agent, tools } => {
                builder.push_standalone(*node, *agent, tools);
            }
        }
    }
    builder.finish(plan)
}

struct LoopBuilder<'t> {
    tree: &'t TraceTree,
    agent_loop: AgentLoop<'t>,
    agents: AgentIndex,
    /// The first iteration of each agent.
    first_iterations: HashMap<NodeId, usize>,
    /// The iteration of each tool span.
    tool_iterations: HashMap<NodeId, usize>,
    repeated_calls: Vec<RepeatedCall<'t>>,
    /// Index in `repeated_calls` by agent, tool name and hash of the arguments.
    repeated_call_index: HashMap<(Option<NodeId>, &'t str, u64), usize>,
    /// First start and last end, in nanoseconds.
    bounds: Option<(i64, i64)>,
    /// Number of iterations that overlap the previous one.
    parallel: usize,
    /// Number of calls without a span and without a result.
    unanswered: usize,
    /// Hashes of the messages that the timeline shows of earlier sections.
    seen_messages: HashSet<u64>,
}

impl<'t> LoopBuilder<'t> {
    /// Adds the decisions of one agent.
    fn push_loop(&mut self, scope: &Scope) {
        let tree = self.tree;
        self.extend_bounds(scope.agent.into_iter());
        let paired = pairing::pair_calls(tree, scope);
        // After a handoff the conversation continues; any other agent starts a new one.
        let mut seen = match scope.decisions.first() {
            Some(first) if continues_conversation(decision_io(tree, *first, Direction::Input)) => {
                std::mem::take(&mut self.seen_messages)
            }
            _ => HashSet::new(),
        };
        let mut latest_end = i64::MIN;
        for (index, (decision, calls)) in scope.decisions.iter().zip(paired).enumerate() {
            let span = tree.span(*decision);
            let number = self.agent_loop.iterations.len() + 1;
            self.push_input_messages(*decision, number - 1, &mut seen);
            if index == 0 && !self.has_input_message(number - 1, scope) {
                self.push_start_input(scope, number - 1, &mut seen);
            }
            let overlaps = span.start_ns < latest_end;
            self.parallel += usize::from(overlaps);
            latest_end = latest_end.max(span.end_ns());

            let content = output_text(decision_io(tree, *decision, Direction::Output));
            let usage = DecisionUsage::from_decision(tree, *decision);
            self.extend_bounds(std::iter::once(*decision));
            let tool_calls = self.tool_calls(scope.agent, number, calls);
            self.agent_loop.timeline.push(TimelineEntry {
                role: "assistant",
                iteration: number,
                content: if span.is_error() && content.is_empty() {
                    error_text(span).unwrap_or_default()
                } else {
                    content.clone()
                },
                span_id: &span.span_id,
                start_ms: span.start_ms(),
                name: None,
                tool_calls: tool_calls
                    .iter()
                    .filter(|call| call.asked_by_model)
                    .map(|call| call.name)
                    .collect(),
                status: span.is_error().then_some(Status::Error),
            });
            self.push_results(number, span, &tool_calls);
            self.push_iteration(*decision, scope.agent, usage, |iteration| {
                iteration.content = content;
                iteration.tool_calls = tool_calls;
                iteration.overlaps_previous = overlaps;
            });
        }
        self.record_sub_agents(scope);
        self.seen_messages.extend(seen);
    }

    /// Adds an iteration without a decision of a model.
    fn push_standalone(&mut self, node: NodeId, agent: Option<NodeId>, tools: &[NodeId]) {
        let span = self.tree.span(node);
        let number = self.agent_loop.iterations.len() + 1;
        self.extend_bounds(agent.into_iter().chain([node]));
        let calls = tools
            .iter()
            .map(|tool| PairedCall {
                request: None,
                tool: Some(*tool),
                result: None,
            })
            .collect();
        let tool_calls = self.tool_calls(agent, number, calls);
        let content = if tools.contains(&node) {
            // The tool call shows the output of the tool.
            Cow::Borrowed("")
        } else {
            output_text(&span.output)
        };
        if !content.is_empty() {
            self.agent_loop.timeline.push(TimelineEntry {
                role: "assistant",
                iteration: number,
                content: content.clone(),
                span_id: &span.span_id,
                start_ms: span.start_ms(),
                name: None,
                tool_calls: Vec::new(),
                status: span.is_error().then_some(Status::Error),
            });
        }
        self.push_results(number, span, &tool_calls);
        self.push_iteration(node, agent, DecisionUsage::default(), |iteration| {
            iteration.content = content;
            iteration.tool_calls = tool_calls;
        });
    }

    /// Adds the iteration of a span. `fill` sets its content and tool calls.
    fn push_iteration(
        &mut self,
        node: NodeId,
        agent: Option<NodeId>,
        usage: DecisionUsage,
        fill: impl FnOnce(&mut Iteration<'t>),
    ) {
        let span = self.tree.span(node);
        let agent_span = agent.map(|agent| self.tree.span(agent));
        let attributed_agent = || {
            let name = span.agent.as_ref()?.name.as_str();
            (!name.is_empty()).then_some(name)
        };
        let number = self.agent_loop.iterations.len() + 1;
        if let Some(agent) = agent {
            self.first_iterations.entry(agent).or_insert(number);
        }
        let mut iteration = Iteration {
            iteration: number,
            span_id: &span.span_id,
            name: &span.name,
            span_kind: &span.kind,
            agent: agent_span
                .map(|agent| agent.name.as_str())
                .or_else(attributed_agent),
            agent_span_id: agent_span.map(|agent| &agent.span_id),
            model_name: span.model_name.as_deref(),
            status: span.status,
            error_message: error_text(span),
            content: Cow::Borrowed(""),
            tool_calls: Vec::new(),
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_input_tokens: usage.cache_read_input_tokens,
            total_cost: usage.cost,
            start_ms: span.start_ms(),
            duration_ms: span.duration_ms(),
            overlaps_previous: false,
        };
        fill(&mut iteration);
        self.agent_loop.iterations.push(iteration);
    }

    /// The tool calls of an iteration.
    fn tool_calls(
        &mut self,
        agent: Option<NodeId>,
        number: usize,
        paired: Vec<PairedCall<'t>>,
    ) -> Vec<ToolCallRecord<'t>> {
        let mut calls = Vec::with_capacity(paired.len());
        for pair in paired {
            let span = pair.tool.map(|tool| self.tree.span(tool));
            self.extend_bounds(pair.tool.into_iter());
            if let Some(tool) = pair.tool {
                self.tool_iterations.insert(tool, number);
            }
            let (name, arguments, tool_id) = match (&pair.request, span) {
                (Some(call), _) => (
                    call.name,
                    call.arguments
                        .map_or(Cow::Owned(Value::Null), pairing::argument_value),
                    Some(call.tool_id).filter(|id| !id.is_empty()),
                ),
                (None, Some(span)) => (span.name.as_str(), pairing::span_arguments(span), None),
                (None, None) => continue,
            };
            let output = span
                .and_then(|span| span.output.text())
                .filter(|text| !text.is_empty());
            let result = output.or(pair.result);
            self.unanswered += usize::from(span.is_none() && result.is_none());
            self.count_repetition(agent, number, name, &arguments, span.map(|s| &s.span_id));
            calls.push(ToolCallRecord {
                handoff_to: self.agents.handoff_target(self.tree, name, pair.tool),
                name,
                arguments,
                result,
                tool_id,
                span_id: span.map(|span| &span.span_id),
                status: span.map(|span| span.status),
                error: span.and_then(|span| error_text(span)),
                duration_ms: span.map(|span| span.duration_ms()),
                asked_by_model: pair.request.is_some(),
            });
        }
        calls
    }

    /// Counts a call with the same agent, tool and arguments.
    fn count_repetition(
        &mut self,
        agent: Option<NodeId>,
        number: usize,
        name: &'t str,
        arguments: &Value,
        span_id: Option<&'t SpanId>,
    ) {
        let key = (agent, name, pairing::hash_value(arguments));
        let index = *self.repeated_call_index.entry(key).or_insert_with(|| {
            self.repeated_calls.push(RepeatedCall {
                name,
                count: 0,
                iterations: Vec::new(),
                span_ids: Vec::new(),
            });
            self.repeated_calls.len() - 1
        });
        let Some(repeated) = self.repeated_calls.get_mut(index) else {
            return;
        };
        repeated.count += 1;
        if repeated.iterations.len() < MAX_OCCURRENCES
            && repeated.iterations.last() != Some(&number)
        {
            repeated.iterations.push(number);
        }
        if repeated.span_ids.len() < MAX_OCCURRENCES {
            repeated.span_ids.extend(span_id);
        }
    }

    /// Adds the new messages that a decision received, without those of the model itself and of
    /// tools.
    fn push_input_messages(&mut self, decision: NodeId, iteration: usize, seen: &mut HashSet<u64>) {
        let span = self.tree.span(decision);
        let input = decision_io(self.tree, decision, Direction::Input);
        let mut entries = Vec::new();
        for message in &input.messages {
            let role = message.role();
            let is_external = matches!(role, "system" | "developer" | "user" | "human" | "");
            if is_external && message.tool_results().next().is_none() {
                entries.push((role, message.text()));
            }
        }
        if input.messages.is_empty() {
            entries.extend(input.text().map(|text| ("user", text)));
        }
        for (role, content) in entries {
            if !content.is_empty() && seen.insert(message_hash(role, &content)) {
                self.push_message(role, iteration, content, span);
            }
        }
    }

    /// Adds the input of the start of the loop, for decisions without recorded input.
    fn push_start_input(&mut self, scope: &Scope, iteration: usize, seen: &mut HashSet<u64>) {
        let node = match (scope.agent, scope.starts.as_slice()) {
            (Some(agent), _) => agent,
            (None, [only]) => *only,
            _ => return,
        };
        let span = self.tree.span(node);
        if let Some(text) = span.input.text().filter(|text| !text.is_empty())
            && seen.insert(message_hash("user", &text))
        {
            self.push_message("user", iteration, text, span);
        }
    }

    /// Whether the timeline already shows input of the first decision, apart from system messages.
    fn has_input_message(&self, iteration: usize, scope: &Scope) -> bool {
        let first = scope.decisions.first().map(|node| self.tree.span(*node));
        self.agent_loop
            .timeline
            .iter()
            .rev()
            .take_while(|entry| entry.iteration == iteration)
            .any(|entry| {
                entry.role != "system"
                    && entry.role != "developer"
                    && first.is_some_and(|first| first.span_id == *entry.span_id)
            })
    }

    fn push_message(
        &mut self,
        role: &'t str,
        iteration: usize,
        content: Cow<'t, str>,
        span: &'t Span,
    ) {
        self.agent_loop.timeline.push(TimelineEntry {
            role,
            iteration,
            content,
            span_id: &span.span_id,
            start_ms: span.start_ms(),
            name: None,
            tool_calls: Vec::new(),
            status: None,
        });
    }

    /// Adds the results of the calls of a span to the timeline.
    fn push_results(&mut self, iteration: usize, caller: &'t Span, calls: &[ToolCallRecord<'t>]) {
        for call in calls {
            let Some(content) = call.result.as_ref().or(call.error.as_ref()) else {
                continue;
            };
            let tool = call
                .span_id
                .and_then(|id| self.tree.find(id.as_str()))
                .map_or(caller, |node| self.tree.span(node));
            self.agent_loop.timeline.push(TimelineEntry {
                role: "tool",
                iteration,
                content: content.clone(),
                span_id: &tool.span_id,
                start_ms: tool.start_ms(),
                name: Some(call.name),
                tool_calls: Vec::new(),
                status: (call.status == Some(Status::Error)).then_some(Status::Error),
            });
        }
    }

    /// Records during or after which iteration of this loop each sub-agent ran.
    fn record_sub_agents(&mut self, scope: &Scope) {
        let first = self.agent_loop.iterations.len() + 1 - scope.decisions.len();
        for sub_agent in &scope.sub_agents {
            let by_tool = sub_agent
                .tool
                .and_then(|tool| self.tool_iterations.get(&tool).copied());
            let number = by_tool.unwrap_or_else(|| {
                let started = self.tree.start_ns(sub_agent.node);
                let before = scope
                    .decisions
                    .partition_point(|node| self.tree.start_ns(*node) <= started);
                first + before.saturating_sub(1)
            });
            self.first_iterations.insert(sub_agent.node, number);
        }
    }

    /// Extends the bounds of the loop by these spans.
    fn extend_bounds(&mut self, nodes: impl Iterator<Item = NodeId>) {
        for node in nodes {
            let (start, end) = (self.tree.start_ns(node), self.tree.end_ns(node));
            let (from, to) = self.bounds.unwrap_or((start, end));
            self.bounds = Some((from.min(start), to.max(end)));
        }
    }

    fn finish(mut self, plan: &LoopPlan) -> AgentLoop<'t> {
        self.agent_loop.total_iterations = self.agent_loop.iterations.len();
        self.agent_loop.totals = self.totals();
        self.agent_loop.sub_agents = plan
            .sub_agents
            .iter()
            .map(|sub_agent| {
                let span = self.tree.span(sub_agent.node);
                SubAgent {
                    span_id: &span.span_id,
                    name: &span.name,
                    iteration: self.first_iterations.get(&sub_agent.node).copied(),
                    llm_calls: plan.decisions.in_subtree(self.tree, sub_agent.node),
                    included: sub_agent.included,
                }
            })
            .collect();
        self.repeated_calls.retain(|call| call.count > 1);
        let repeated = self.repeated_calls.len();
        self.repeated_calls.truncate(MAX_REPEATED_CALLS);
        self.agent_loop.repeated_calls = std::mem::take(&mut self.repeated_calls);
        let counts = LoopCounts {
            parallel: self.parallel,
            unanswered: self.unanswered,
            repeated,
        };
        self.agent_loop.notes = notes(&self.agent_loop, plan, counts);
        self.agent_loop
    }

    fn totals(&self) -> LoopTotals {
        let mut totals = LoopTotals::default();
        for iteration in &self.agent_loop.iterations {
            totals.input_tokens = totals.input_tokens.saturating_add(iteration.input_tokens);
            totals.output_tokens = totals.output_tokens.saturating_add(iteration.output_tokens);
            totals.cache_read_input_tokens = totals
                .cache_read_input_tokens
                .saturating_add(iteration.cache_read_input_tokens);
            totals.total_cost = add_costs(totals.total_cost, iteration.total_cost);
            totals.llm_calls += usize::from(*iteration.span_kind == SpanKind::Llm);
            totals.tool_calls += iteration.tool_calls.len();
        }
        if let Some((from, to)) = self.bounds {
            let bounds = Span {
                duration_ns: to.saturating_sub(from),
                ..Span::default()
            };
            totals.duration_ms = bounds.duration_ms();
        }
        totals
    }
}

/// Whether an input continues an earlier conversation.
fn continues_conversation(input: &Io) -> bool {
    input
        .messages
        .iter()
        .any(|message| message.role() == "assistant" || message.tool_results().next().is_some())
}

/// The text of an output: the texts of its messages, else the output as text.
fn output_text(output: &Io) -> Cow<'_, str> {
    if output.messages.is_empty() {
        return output.text().unwrap_or_default();
    }
    let mut texts: Vec<_> = output
        .messages
        .iter()
        .map(Message::text)
        .filter(|text| !text.is_empty())
        .collect();
    match texts.pop() {
        Some(only) if texts.is_empty() => only,
        last => {
            texts.extend(last);
            Cow::Owned(texts.join("\n"))
        }
    }
}

/// The error message of a failed span, else its error type.
fn error_text(span: &Span) -> Option<Cow<'_, str>> {
    if !span.is_error() {
        return None;
    }
    let error = span.error.as_ref()?;
    [&error.message, &error.error_type]
        .into_iter()
        .find(|text| !text.is_empty())
        .map(|text| Cow::Borrowed(text.as_str()))
}

fn message_hash(role: &str, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (role, text).hash(&mut hasher);
    hasher.finish()
}
