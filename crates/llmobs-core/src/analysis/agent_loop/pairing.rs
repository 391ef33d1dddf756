//! Pairs each tool call of a model with its tool span and its result.
//!
//! A call and its result share an id in the messages, but tool spans rarely carry it. So calls
//! claim tool spans in passes, most reliable first: by id; by name and arguments; by name; by
//! normalized name; by arguments. Each tool span is claimed once. Except for ids, a tool span
//! qualifies only if it started between the decision and the next one.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::scope::{Scope, ToolSpan};
use crate::analysis::errors::tool_call_ids;
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{Io, Message, Span, SpanKind, ToolCall};

/// Levels of nested LLM spans that are searched for content.
const MAX_LLM_DEPTH: usize = 16;
/// Levels of nested arguments that are compared.
const MAX_ARGUMENT_DEPTH: usize = 64;

/// A tool call with its span and its result.
pub(super) struct PairedCall<'t> {
    /// The call as the model requested it; `None` for a tool that ran without a request.
    pub(super) request: Option<ToolCall<'t>>,
    /// The tool span.
    pub(super) tool: Option<NodeId>,
    /// The result that a later decision received.
    pub(super) result: Option<Cow<'t, str>>,
}

/// Input or output of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

fn io(span: &Span, direction: Direction) -> &Io {
    match direction {
        Direction::Input => &span.input,
        Direction::Output => &span.output,
    }
}

/// Input or output of a decision: of the outer LLM span, or of the nested one if the outer one has
/// no content.
pub(super) fn decision_io(tree: &TraceTree, decision: NodeId, direction: Direction) -> &Io {
    let mut node = decision;
    for _ in 0..MAX_LLM_DEPTH {
        let content = io(tree.span(node), direction);
        if has_content(content) {
            return content;
        }
        let inner = tree
            .children(node)
            .iter()
            .rev()
            .find(|child| *tree.kind(**child) == SpanKind::Llm);
        match inner {
            Some(inner) => node = *inner,
            None => break,
        }
    }
    io(tree.span(decision), direction)
}

fn has_content(io: &Io) -> bool {
    io.messages.iter().any(|message| {
        !message.text().is_empty()
            || message.tool_calls().next().is_some()
            || message.tool_results().next().is_some()
    }) || io.text().is_some_and(|text| !text.is_empty())
}

/// The tool calls of each decision of a loop, then the tools that ran during or after it without a
/// request.
pub(super) fn pair_calls<'t>(tree: &'t TraceTree, scope: &Scope) -> Vec<Vec<PairedCall<'t>>> {
    let calls: Vec<Vec<ToolCall<'t>>> = scope
        .decisions
        .iter()
        .map(|decision| {
            decision_io(tree, *decision, Direction::Output)
                .messages
                .iter()
                .flat_map(Message::tool_calls)
                .collect()
        })
        .collect();
    let claims = ToolClaims::new(tree, scope, &calls).resolve();
    let results = ResultIndex::new(tree, &scope.decisions);

    let mut paired: Vec<Vec<PairedCall<'t>>> = calls
        .iter()
        .zip(&claims.tool_of_call)
        .enumerate()
        .map(|(decision, (calls, tools))| {
            calls
                .iter()
                .zip(tools)
                .map(|(call, tool)| PairedCall {
                    request: Some(*call),
                    tool: *tool,
                    result: results.after(decision, call.tool_id),
                })
                .collect()
        })
        .collect();
    for (tool, claimed) in scope.tools.iter().zip(&claims.claimed) {
        if *claimed || tool.nested {
            continue;
        }
        let started = tree.start_ns(tool.node);
        let before = scope
            .decisions
            .partition_point(|decision| tree.start_ns(*decision) <= started);
        if let Some(list) = paired.get_mut(before.saturating_sub(1)) {
            list.push(PairedCall {
                request: None,
                tool: Some(tool.node),
                result: None,
            });
        }
    }
    paired
}

/// What a call and its tool span may have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum MatchKey<'t> {
    Id(Cow<'t, str>),
    NameAndArguments(&'t str, u64),
    Name(&'t str),
    NormalizedName(Arc<str>),
    Arguments(u64),
}

/// Normalized names by name: a loop has few tools and calls them often.
#[derive(Default)]
struct NameNormalizer<'t>(HashMap<&'t str, Option<Arc<str>>>);

impl<'t> NameNormalizer<'t> {
    fn normalize(&mut self, name: &'t str) -> Option<Arc<str>> {
        let entry = self.0.entry(name);
        entry
            .or_insert_with(|| normalize_tool_name(name).map(Arc::from))
            .clone()
    }
}

/// Assigns tool spans to calls.
struct ToolClaims<'a, 't> {
    calls: &'a [Vec<ToolCall<'t>>],
    /// For each decision, the range of tools that started after it and before the next decision in
    /// sequence.
    windows: Vec<(usize, usize)>,
    /// Unclaimed tools by key, as indexes into `tools`.
    unclaimed: HashMap<MatchKey<'t>, BTreeSet<usize>>,
    /// The keys of each tool.
    keys_of_tool: Vec<Vec<MatchKey<'t>>>,
    names: NameNormalizer<'t>,
    tools: &'a [ToolSpan],
    /// For each call of each decision, its tool span.
    tool_of_call: Vec<Vec<Option<NodeId>>>,
    claimed: Vec<bool>,
}

impl<'a, 't> ToolClaims<'a, 't> {
    fn new(tree: &'t TraceTree, scope: &'a Scope, calls: &'a [Vec<ToolCall<'t>>]) -> Self {
        let requested_ids: HashSet<&str> = calls
            .iter()
            .flatten()
            .map(|call| call.tool_id)
            .filter(|id| !id.is_empty())
            .collect();
        let mut names = NameNormalizer::default();
        let mut unclaimed: HashMap<MatchKey<'t>, BTreeSet<usize>> = HashMap::new();
        let mut tool_keys = Vec::with_capacity(scope.tools.len());
        for (index, tool) in scope.tools.iter().enumerate() {
            let keys = match_keys(tree.span(tool.node), &requested_ids, &mut names);
            for key in &keys {
                unclaimed.entry(key.clone()).or_default().insert(index);
            }
            tool_keys.push(keys);
        }
        Self {
            calls,
            windows: windows(tree, scope),
            unclaimed,
            keys_of_tool: tool_keys,
            names,
            tools: &scope.tools,
            tool_of_call: calls.iter().map(|calls| vec![None; calls.len()]).collect(),
            claimed: vec![false; scope.tools.len()],
        }
    }

    /// Runs all passes, most reliable first.
    fn resolve(mut self) -> Self {
        let name_and_arguments = |call: &ToolCall<'t>| {
            Some(MatchKey::NameAndArguments(
                call.name,
                arguments_hash(call.arguments)?,
            ))
        };
        let id = |call: &ToolCall<'t>| {
            (!call.tool_id.is_empty()).then_some(MatchKey::Id(Cow::Borrowed(call.tool_id)))
        };
        self.pass(id, false);
        self.pass(id, true);
        self.pass(name_and_arguments, false);
        self.pass(|call| Some(MatchKey::Name(call.name)), false);
        let mut names = std::mem::take(&mut self.names);
        self.pass(
            |call| Some(MatchKey::NormalizedName(names.normalize(call.name)?)),
            false,
        );
        self.pass(
            |call| {
                let arguments = call.arguments.map(argument_value)?;
                let is_distinctive = arguments.as_object().is_some_and(|map| !map.is_empty());
                is_distinctive.then(|| MatchKey::Arguments(hash_value(&arguments)))
            },
            false,
        );
        // Last, tools that started after the next decision.
        self.pass(name_and_arguments, true);
        self
    }

    /// Each call without a tool claims the first unclaimed tool with its key: in the window of its
    /// decision, or with `later` also after it.
    fn pass(&mut self, mut key: impl FnMut(&ToolCall<'t>) -> Option<MatchKey<'t>>, later: bool) {
        for (decision, calls) in self.calls.iter().enumerate() {
            let Some((from, to)) = self.windows.get(decision).copied() else {
                continue;
            };
            let to = if later { self.tools.len() } else { to };
            for (index, call) in calls.iter().enumerate() {
                let has_tool = self
                    .tool_of_call
                    .get(decision)
                    .and_then(|tools| tools.get(index))
                    .is_none_or(Option::is_some);
                if has_tool || from >= to {
                    continue;
                }
                let tool = key(call)
                    .and_then(|key| self.unclaimed.get(&key))
                    .and_then(|tools| tools.range(from..to).next().copied());
                if let Some(tool) = tool {
                    self.claim(decision, index, tool);
                }
            }
        }
    }

    fn claim(&mut self, decision: usize, call: usize, tool: usize) {
        for key in self.keys_of_tool.get(tool).into_iter().flatten() {
            if let Some(tools) = self.unclaimed.get_mut(key) {
                tools.remove(&tool);
            }
        }
        if let Some(claimed) = self.claimed.get_mut(tool) {
            *claimed = true;
        }
        if let Some(entry) = self
            .tool_of_call
            .get_mut(decision)
            .and_then(|tools| tools.get_mut(call))
        {
            *entry = self.tools.get(tool).map(|tool| tool.node);
        }
    }
}

/// For each decision, the range of tools that may execute its calls: from its start to the start of
/// the first decision after its end. Parallel decisions have overlapping ranges.
fn windows(tree: &TraceTree, scope: &Scope) -> Vec<(usize, usize)> {
    let start = |node: NodeId| tree.start_ns(node);
    let first_tool = |ns: i64| scope.tools.partition_point(|tool| start(tool.node) < ns);
    scope
        .decisions
        .iter()
        .enumerate()
        .map(|(index, decision)| {
            let end = tree.end_ns(*decision);
            let next = scope
                .decisions
                .partition_point(|other| start(*other) < end)
                .max(index + 1);
            let to = scope
                .decisions
                .get(next)
                .map_or(scope.tools.len(), |next| first_tool(start(*next)));
            (first_tool(start(*decision)), to)
        })
        .collect()
}

/// The keys under which a call may claim a tool span.
fn match_keys<'t>(
    span: &'t Span,
    requested_ids: &HashSet<&str>,
    names: &mut NameNormalizer<'t>,
) -> Vec<MatchKey<'t>> {
    let mut keys: Vec<MatchKey<'t>> = tool_call_ids(span)
        .into_iter()
        .filter(|id| requested_ids.contains(id.as_ref()))
        .map(MatchKey::Id)
        .collect();
    keys.push(MatchKey::Name(&span.name));
    keys.extend(names.normalize(&span.name).map(MatchKey::NormalizedName));
    for hash in argument_hashes(span) {
        keys.push(MatchKey::NameAndArguments(&span.name, hash));
        keys.push(MatchKey::Arguments(hash));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The name of a tool without the additions of frameworks: `mcp__shop__search`, `functions.search`
/// and `execute_tool search` are all `search`.
fn normalize_tool_name(name: &str) -> Option<String> {
    let last_word = name.split_whitespace().last()?;
    let after_server = last_word.rsplit("__").next().unwrap_or(last_word);
    let bare = after_server
        .rsplit(['.', '/', ':'])
        .next()
        .unwrap_or(after_server);
    let normalized: String = bare
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    (!normalized.is_empty()).then_some(normalized)
}

/// Hashes of what may be the arguments of a tool span: its input, and the objects in it under the
/// keys that frameworks use.
fn argument_hashes(span: &Span) -> Vec<u64> {
    let input = match &span.input.value {
        Some(value) => argument_value(value),
        None => return Vec::new(),
    };
    let mut hashes: Vec<u64> = ["args", "arguments", "kwargs", "input", "parameters"]
        .into_iter()
        .filter_map(|key| {
            input
                .get(key)
                .filter(|inner| inner.is_object())
                .map(hash_value)
        })
        .collect();
    hashes.push(hash_value(&input));
    hashes
}

/// Arguments as JSON; text that holds JSON is parsed.
pub(super) fn argument_value(value: &Value) -> Cow<'_, Value> {
    if let Value::String(text) = value
        && text.trim_start().starts_with(['{', '['])
        && let Ok(inner) = serde_json::from_str(text)
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(value)
}

/// The arguments of a tool span, in the form that a model writes.
pub(super) fn span_arguments(span: &Span) -> Cow<'_, Value> {
    let input = match &span.input.value {
        Some(Value::Null) | None => {
            return Cow::Owned(span.input.text().map_or(Value::Null, |t| t.into()));
        }
        Some(value) => argument_value(value),
    };
    // LangChain records the entire call: `{"args": …, "id": …, "name": …, "type": "tool_call"}`.
    let is_call = |call: &Value| call.get("type").and_then(Value::as_str) == Some("tool_call");
    match input {
        Cow::Borrowed(call) if is_call(call) => Cow::Borrowed(call.get("args").unwrap_or(call)),
        Cow::Owned(call) if is_call(&call) => Cow::Owned(call.get("args").cloned().unwrap_or(call)),
        input => input,
    }
}

fn arguments_hash(arguments: Option<&Value>) -> Option<u64> {
    arguments.map(|arguments| hash_value(&argument_value(arguments)))
}

/// A hash that is equal for equal JSON, in any order of keys.
pub(super) fn hash_value(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_into(value, &mut hasher, 0);
    hasher.finish()
}

fn hash_into(value: &Value, hasher: &mut DefaultHasher, depth: usize) {
    if depth > MAX_ARGUMENT_DEPTH {
        return;
    }
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(yes) => (1_u8, yes).hash(hasher),
        // 1 and 1.0 are different values.
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => (2_u8, integer).hash(hasher),
            (None, Some(integer)) => (6_u8, integer).hash(hasher),
            (None, None) => (7_u8, number.as_f64().map(f64::to_bits)).hash(hasher),
        },
        Value::String(text) => (3_u8, text).hash(hasher),
        Value::Array(items) => {
            (4_u8, items.len()).hash(hasher);
            for item in items {
                hash_into(item, hasher, depth + 1);
            }
        }
        Value::Object(map) => {
            (5_u8, map.len()).hash(hasher);
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            for key in keys {
                key.hash(hasher);
                if let Some(item) = map.get(key) {
                    hash_into(item, hasher, depth + 1);
                }
            }
        }
    }
}

/// The tool results that the decisions of a loop received.
struct ResultIndex<'t> {
    /// By tool call id: the decisions that received a result, with the last result in their input.
    results: HashMap<&'t str, Vec<(usize, Cow<'t, str>)>>,
}

impl<'t> ResultIndex<'t> {
    fn new(tree: &'t TraceTree, decisions: &[NodeId]) -> Self {
        let mut results: HashMap<&'t str, Vec<(usize, Cow<'t, str>)>> = HashMap::new();
        for (index, decision) in decisions.iter().enumerate() {
            for message in &decision_io(tree, *decision, Direction::Input).messages {
                for (id, result) in message_results(message) {
                    let list = results.entry(id).or_default();
                    match list.last_mut() {
                        Some((last_index, last)) if *last_index == index => *last = result,
                        _ => list.push((index, result)),
                    }
                }
            }
        }
        Self { results }
    }

    /// The result that the first later decision with one received.
    fn after(&self, decision: usize, tool_id: &str) -> Option<Cow<'t, str>> {
        let list = self.results.get(tool_id)?;
        let next = list.partition_point(|(index, _)| *index <= decision);
        list.get(next).map(|(_, result)| result.clone())
    }
}

/// The tool results of a message with their ids: its `tool_results`, else its content if it has the
/// role `tool` and an id.
fn message_results(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
    let listed: Vec<_> = message
        .tool_results()
        .filter(|result| !result.tool_id.is_empty())
        .filter_map(|result| {
            let text = match result.result? {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                other => Cow::Owned(other.to_string()),
            };
            Some((result.tool_id, text))
        })
        .collect();
    if !listed.is_empty() || message.role() != "tool" {
        return listed;
    }
    let id = ["tool_id", "tool_call_id"]
        .into_iter()
        .find_map(|key| message.0.get(key)?.as_str());
    id.map(|id| (id, message.text())).into_iter().collect()
}
