//! Writes a loop down: iterations, timeline, sums and notes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::notes::{Seen, notes};
use super::pairing::{self, Paired, Side, content_of};
use super::scope::{Block, Plan, Scope};
use super::{
    AgentLoop, Iteration, LoopTotals, RepeatedCall, SubAgent, TimelineEntry, ToolCallRecord,
};
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::cost::cost_usd;
use crate::model::{Io, Message, Span, SpanId, SpanKind, Status};

/// Iterations and spans named for one repeated call.
const MAX_NAMED: usize = 20;
/// Repeated calls named in one loop.
const MAX_REPEATED: usize = 20;

pub(super) fn build<'t>(tree: &'t TraceTree, plan: &Plan) -> AgentLoop<'t> {
    let Some(start) = plan.start else {
        return AgentLoop::default();
    };
    let span = tree.span(start);
    let mut writer = Writer {
        tree,
        out: AgentLoop {
            start: plan.start,
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            agent_name: span.name.clone(),
            ..AgentLoop::default()
        },
        agents: Agents::of(tree),
        began: HashMap::new(),
        tool_iterations: HashMap::new(),
        repeats: Vec::new(),
        repeat_of: HashMap::new(),
        bounds: None,
        parallel: 0,
        unanswered: 0,
        heard: HashSet::new(),
    };
    writer.stretch(std::iter::once(start));
    for block in &plan.blocks {
        match block {
            Block::Loop(scope) => writer.loop_of(scope),
            Block::Lone { node, agent, tools } => writer.lone(*node, *agent, tools),
        }
    }
    writer.finish(plan)
}

struct Writer<'t> {
    tree: &'t TraceTree,
    out: AgentLoop<'t>,
    agents: Agents,
    /// The first iteration of each agent.
    began: HashMap<NodeId, usize>,
    /// The iteration that lists a tool span.
    tool_iterations: HashMap<NodeId, usize>,
    repeats: Vec<RepeatedCall<'t>>,
    /// By agent, tool and arguments: the place in `repeats`.
    repeat_of: HashMap<(Option<NodeId>, &'t str, u64), usize>,
    /// First start and last end, in nanoseconds.
    bounds: Option<(i64, i64)>,
    /// Iterations that overlap their predecessor.
    parallel: usize,
    /// Calls of which neither a span nor a result is known.
    unanswered: usize,
    /// What the timeline shows of earlier loops.
    heard: HashSet<u64>,
}

/// What an LLM call used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    input: u64,
    output: u64,
    cache_read: u64,
    cost: Option<f64>,
}

impl<'t> Writer<'t> {
    fn loop_of(&mut self, scope: &Scope) {
        let tree = self.tree;
        self.stretch(scope.agent.into_iter());
        let paired = pairing::pair(tree, scope);
        // An agent that took over goes on with the same conversation; any other starts its own.
        let mut heard = match scope.decisions.first() {
            Some(first) if goes_on(content_of(tree, *first, Side::Input)) => {
                std::mem::take(&mut self.heard)
            }
            _ => HashSet::new(),
        };
        let mut latest_end = i64::MIN;
        for (at, (decision, calls)) in scope.decisions.iter().zip(paired).enumerate() {
            let span = tree.span(*decision);
            let number = self.out.iterations.len() + 1;
            self.note_heard(*decision, number - 1, &mut heard);
            if at == 0 && !self.has_user(number - 1, scope) {
                self.note_asked(scope, number - 1, &mut heard);
            }
            let overlaps = span.start_ns < latest_end;
            self.parallel += usize::from(overlaps);
            latest_end = latest_end.max(span.end_ns());

            let content = said(content_of(tree, *decision, Side::Output));
            let usage = usage(tree, *decision);
            self.stretch(std::iter::once(*decision));
            let tool_calls = self.calls(scope.agent, number, calls);
            self.out.timeline.push(TimelineEntry {
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
            self.note_results(number, span, &tool_calls);
            self.push(*decision, scope.agent, content, tool_calls, usage, overlaps);
        }
        self.place_sub_agents(scope);
        self.heard.extend(heard);
    }

    /// An iteration that no model decided.
    fn lone(&mut self, node: NodeId, agent: Option<NodeId>, tools: &[NodeId]) {
        let span = self.tree.span(node);
        let number = self.out.iterations.len() + 1;
        self.stretch(agent.into_iter().chain([node]));
        let calls = tools
            .iter()
            .map(|tool| Paired {
                asked: None,
                tool: Some(*tool),
                given: None,
            })
            .collect();
        let tool_calls = self.calls(agent, number, calls);
        let content = if tools.contains(&node) {
            // The call itself shows what the tool returned.
            Cow::Borrowed("")
        } else {
            said(&span.output)
        };
        if !content.is_empty() {
            self.out.timeline.push(TimelineEntry {
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
        self.note_results(number, span, &tool_calls);
        self.push(node, agent, content, tool_calls, Usage::default(), false);
    }

    fn push(
        &mut self,
        node: NodeId,
        agent: Option<NodeId>,
        content: Cow<'t, str>,
        tool_calls: Vec<ToolCallRecord<'t>>,
        usage: Usage,
        overlaps_previous: bool,
    ) {
        let span = self.tree.span(node);
        let agent_span = agent.map(|agent| self.tree.span(agent));
        let attributed = || {
            let name = span.agent.as_ref()?.name.as_str();
            (!name.is_empty()).then_some(name)
        };
        let number = self.out.iterations.len() + 1;
        if let Some(agent) = agent {
            self.began.entry(agent).or_insert(number);
        }
        self.out.iterations.push(Iteration {
            iteration: number,
            span_id: &span.span_id,
            name: &span.name,
            span_kind: &span.kind,
            agent: agent_span
                .map(|agent| agent.name.as_str())
                .or_else(attributed),
            agent_span_id: agent_span.map(|agent| &agent.span_id),
            model_name: span.model_name.as_deref(),
            status: span.status,
            error_message: error_text(span),
            content,
            tool_calls,
            input_tokens: usage.input,
            output_tokens: usage.output,
            cache_read_input_tokens: usage.cache_read,
            total_cost: usage.cost,
            start_ms: span.start_ms(),
            duration_ms: span.duration_ms(),
            overlaps_previous,
        });
    }

    fn calls(
        &mut self,
        agent: Option<NodeId>,
        number: usize,
        paired: Vec<Paired<'t>>,
    ) -> Vec<ToolCallRecord<'t>> {
        let mut calls = Vec::with_capacity(paired.len());
        for pair in paired {
            let span = pair.tool.map(|tool| self.tree.span(tool));
            self.stretch(pair.tool.into_iter());
            if let Some(tool) = pair.tool {
                self.tool_iterations.insert(tool, number);
            }
            let (name, arguments, tool_id) = match (&pair.asked, span) {
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
            let result = output.or(pair.given);
            self.unanswered += usize::from(span.is_none() && result.is_none());
            self.count_repeat(agent, number, name, &arguments, span.map(|s| &s.span_id));
            calls.push(ToolCallRecord {
                handoff_to: self.agents.handed_to(self.tree, name, pair.tool),
                name,
                arguments,
                result,
                tool_id,
                span_id: span.map(|span| &span.span_id),
                status: span.map(|span| span.status),
                error: span.and_then(|span| error_text(span)),
                duration_ms: span.map(|span| span.duration_ms()),
                asked_by_model: pair.asked.is_some(),
            });
        }
        calls
    }

    fn count_repeat(
        &mut self,
        agent: Option<NodeId>,
        number: usize,
        name: &'t str,
        arguments: &Value,
        span_id: Option<&'t SpanId>,
    ) {
        let key = (agent, name, pairing::hash(arguments));
        let place = *self.repeat_of.entry(key).or_insert_with(|| {
            self.repeats.push(RepeatedCall {
                name,
                count: 0,
                iterations: Vec::new(),
                span_ids: Vec::new(),
            });
            self.repeats.len() - 1
        });
        let Some(repeat) = self.repeats.get_mut(place) else {
            return;
        };
        repeat.count += 1;
        if repeat.iterations.len() < MAX_NAMED && repeat.iterations.last() != Some(&number) {
            repeat.iterations.push(number);
        }
        if repeat.span_ids.len() < MAX_NAMED {
            repeat.span_ids.extend(span_id);
        }
    }

    /// What was said to the model since its last decision: messages not yet heard that are neither
    /// its own nor a tool's.
    fn note_heard(&mut self, decision: NodeId, iteration: usize, heard: &mut HashSet<u64>) {
        let span = self.tree.span(decision);
        let input = content_of(self.tree, decision, Side::Input);
        let mut entries = Vec::new();
        for message in &input.messages {
            let role = message.role();
            let from_outside = matches!(role, "system" | "developer" | "user" | "human" | "");
            if from_outside && message.tool_results().next().is_none() {
                entries.push((role, message.text()));
            }
        }
        if input.messages.is_empty() {
            entries.extend(input.text().map(|text| ("user", text)));
        }
        for (role, content) in entries {
            if !content.is_empty() && heard.insert(fingerprint(role, &content)) {
                self.say(role, iteration, content, span);
            }
        }
    }

    /// The input of the start, for decisions that recorded none.
    fn note_asked(&mut self, scope: &Scope, iteration: usize, heard: &mut HashSet<u64>) {
        let node = match (scope.agent, scope.tops.as_slice()) {
            (Some(agent), _) => agent,
            (None, [only]) => *only,
            _ => return,
        };
        let span = self.tree.span(node);
        if let Some(text) = span.input.text().filter(|text| !text.is_empty())
            && heard.insert(fingerprint("user", &text))
        {
            self.say("user", iteration, text, span);
        }
    }

    /// Whether the timeline holds a question to this loop already.
    fn has_user(&self, iteration: usize, scope: &Scope) -> bool {
        let first = scope.decisions.first().map(|node| self.tree.span(*node));
        self.out
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

    fn say(&mut self, role: &'t str, iteration: usize, content: Cow<'t, str>, span: &'t Span) {
        self.out.timeline.push(TimelineEntry {
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

    fn note_results(&mut self, iteration: usize, asked_in: &'t Span, calls: &[ToolCallRecord<'t>]) {
        for call in calls {
            let Some(content) = call.result.as_ref().or(call.error.as_ref()) else {
                continue;
            };
            let tool = call
                .span_id
                .and_then(|id| self.tree.find(id.as_str()))
                .map_or(asked_in, |node| self.tree.span(node));
            self.out.timeline.push(TimelineEntry {
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

    /// Tells in which iteration of this loop each sub-agent ran.
    fn place_sub_agents(&mut self, scope: &Scope) {
        let first = self.out.iterations.len() + 1 - scope.decisions.len();
        for below in &scope.sub_agents {
            let by_tool = below
                .tool
                .and_then(|tool| self.tool_iterations.get(&tool).copied());
            let number = by_tool.unwrap_or_else(|| {
                let started = self.tree.start_ns(below.node);
                let before = scope
                    .decisions
                    .partition_point(|node| self.tree.start_ns(*node) <= started);
                first + before.saturating_sub(1)
            });
            self.began.insert(below.node, number);
        }
    }

    fn stretch(&mut self, nodes: impl Iterator<Item = NodeId>) {
        for node in nodes {
            let (start, end) = (self.tree.start_ns(node), self.tree.end_ns(node));
            let (from, to) = self.bounds.unwrap_or((start, end));
            self.bounds = Some((from.min(start), to.max(end)));
        }
    }

    fn finish(mut self, plan: &Plan) -> AgentLoop<'t> {
        self.out.total_iterations = self.out.iterations.len();
        self.out.totals = self.totals();
        self.out.sub_agents = plan
            .sub_agents
            .iter()
            .map(|below| {
                let span = self.tree.span(below.node);
                SubAgent {
                    span_id: &span.span_id,
                    name: &span.name,
                    iteration: self.began.get(&below.node).copied(),
                    llm_calls: plan.decisions.below(self.tree, below.node),
                    included: below.included,
                }
            })
            .collect();
        self.repeats.retain(|repeat| repeat.count > 1);
        let repeated = self.repeats.len();
        self.repeats.truncate(MAX_REPEATED);
        self.out.repeated_calls = std::mem::take(&mut self.repeats);
        let seen = Seen {
            parallel: self.parallel,
            unanswered: self.unanswered,
            repeated,
        };
        self.out.notes = notes(&self.out, plan, seen);
        self.out
    }

    fn totals(&self) -> LoopTotals {
        let mut totals = LoopTotals::default();
        for iteration in &self.out.iterations {
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
            let whole = Span {
                duration_ns: to.saturating_sub(from),
                ..Span::default()
            };
            totals.duration_ms = whole.duration_ms();
        }
        totals
    }
}

/// Whether a conversation was under way before this input.
fn goes_on(input: &Io) -> bool {
    input
        .messages
        .iter()
        .any(|message| message.role() == "assistant" || message.tool_results().next().is_some())
}

/// Agents by their plain name, for hand-offs.
struct Agents {
    by_name: HashMap<String, Vec<NodeId>>,
}

impl Agents {
    fn of(tree: &TraceTree) -> Self {
        let mut by_name: HashMap<String, Vec<NodeId>> = HashMap::new();
        for node in tree.nodes() {
            if *tree.kind(node) == SpanKind::Agent {
                let name = plain(&tree.span(node).name);
                by_name.entry(name).or_default().push(node);
            }
        }
        Self { by_name }
    }

    /// The agent that a call such as `transfer_to_billing` handed the conversation to: the next of
    /// that name to start after the tool did.
    fn handed_to<'t>(
        &self,
        tree: &'t TraceTree,
        tool: &str,
        span: Option<NodeId>,
    ) -> Option<&'t SpanId> {
        let tool_name = plain(tool);
        let agent = [
            "transfer_to_",
            "handoff_to_",
            "hand_off_to_",
            "transfer_back_to_",
        ]
        .into_iter()
        .find_map(|prefix| tool_name.strip_prefix(prefix))?;
        let nodes = self.by_name.get(agent)?;
        let started = span.map_or(i64::MIN, |node| tree.start_ns(node));
        let next = nodes.partition_point(|node| tree.start_ns(*node) < started);
        nodes.get(next).map(|node| &tree.span(*node).span_id)
    }
}

/// A name in lower case with underscores between its words.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .flat_map(char::to_lowercase)
        .collect()
}

/// What a decision said: its messages' texts, else its output as text.
fn said(output: &Io) -> Cow<'_, str> {
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

/// The usage of a decision: its own metrics, else those of the LLM spans inside it.
fn usage(tree: &TraceTree, decision: NodeId) -> Usage {
    let mut sum = Usage::default();
    let mut stack = vec![decision];
    while let Some(node) = stack.pop() {
        let span = tree.span(node);
        let metric = |name| span.metric(name);
        if metric("input_tokens").is_none() && metric("output_tokens").is_none() {
            let inner = tree.children(node).iter();
            stack.extend(inner.filter(|child| *tree.kind(**child) == SpanKind::Llm));
        }
        let count = |name| metric(name).unwrap_or_default().max(0.0).round() as u64;
        sum.input = sum.input.saturating_add(count("input_tokens"));
        sum.output = sum.output.saturating_add(count("output_tokens"));
        sum.cache_read = sum
            .cache_read
            .saturating_add(count("cache_read_input_tokens"));
        let cost = cost_usd(metric("estimated_total_cost"), metric("total_cost"));
        sum.cost = add_costs(sum.cost, cost);
    }
    sum
}

fn add_costs(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (left, right) => left.or(right),
    }
}

fn fingerprint(role: &str, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (role, text).hash(&mut hasher);
    hasher.finish()
}
