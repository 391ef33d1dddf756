//! Which tool span and which result belong to which call of a model.
//!
//! A call and its result share an id in the messages; tool spans rarely carry it. So calls are
//! joined to tool spans in passes, the surest first: by id; by name and arguments; by name alone;
//! by a name that differs only in its dress; by arguments alone. Each tool span is claimed once,
//! and except for ids only a tool that started between its decision and the next one qualifies.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::scope::{Scope, ToolSpan};
use crate::analysis::errors::tool_call_ids;
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{Io, Message, Span, SpanKind, ToolCall};

/// Levels of LLM spans inside each other that are looked through.
const MAX_LLM_DEPTH: usize = 16;
/// Levels of arguments that are compared.
const MAX_ARGUMENT_DEPTH: usize = 64;

/// A tool call of a loop.
pub(super) struct Paired<'t> {
    /// The call as the model asked for it; `None` for a tool that ran unasked.
    pub(super) asked: Option<ToolCall<'t>>,
    /// The tool's span.
    pub(super) tool: Option<NodeId>,
    /// The result as a later decision was given it.
    pub(super) given: Option<Cow<'t, str>>,
}

/// The side of an LLM span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

fn side(span: &Span, which: Side) -> &Io {
    match which {
        Side::Input => &span.input,
        Side::Output => &span.output,
    }
}

/// One side of a decision: that of the outer LLM span, or where it recorded nothing, of the LLM
/// span inside it.
pub(super) fn content_of(tree: &TraceTree, decision: NodeId, which: Side) -> &Io {
    let mut at = decision;
    for _ in 0..MAX_LLM_DEPTH {
        let io = side(tree.span(at), which);
        if has_content(io) {
            return io;
        }
        let inner = tree
            .children(at)
            .iter()
            .rev()
            .find(|child| *tree.kind(**child) == SpanKind::Llm);
        match inner {
            Some(inner) => at = *inner,
            None => break,
        }
    }
    side(tree.span(decision), which)
}

fn has_content(io: &Io) -> bool {
    io.messages.iter().any(|message| {
        !message.text().is_empty()
            || message.tool_calls().next().is_some()
            || message.tool_results().next().is_some()
    }) || io.text().is_some_and(|text| !text.is_empty())
}

/// The tool calls of each decision of a loop, then the tools that ran unasked during or after it.
pub(super) fn pair<'t>(tree: &'t TraceTree, scope: &Scope) -> Vec<Vec<Paired<'t>>> {
    let calls: Vec<Vec<ToolCall<'t>>> = scope
        .decisions
        .iter()
        .map(|decision| {
            content_of(tree, *decision, Side::Output)
                .messages
                .iter()
                .flat_map(Message::tool_calls)
                .collect()
        })
        .collect();
    let claims = Claims::of(tree, scope, &calls).settle();
    let given = Given::of(tree, &scope.decisions);

    let mut paired: Vec<Vec<Paired<'t>>> = calls
        .iter()
        .zip(&claims.tools_of)
        .enumerate()
        .map(|(at, (calls, tools))| {
            calls
                .iter()
                .zip(tools)
                .map(|(call, tool)| Paired {
                    asked: Some(*call),
                    tool: *tool,
                    given: given.after(at, call.tool_id),
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
            list.push(Paired {
                asked: None,
                tool: Some(tool.node),
                given: None,
            });
        }
    }
    paired
}

/// What a tool span may be found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key<'t> {
    Id(Cow<'t, str>),
    NameAndArguments(&'t str, u64),
    Name(&'t str),
    PlainName(Arc<str>),
    Arguments(u64),
}

/// Plain names by name: a loop has few tools and calls them often.
#[derive(Default)]
struct PlainNames<'t>(HashMap<&'t str, Option<Arc<str>>>);

impl<'t> PlainNames<'t> {
    fn of(&mut self, name: &'t str) -> Option<Arc<str>> {
        let plain = self.0.entry(name);
        plain
            .or_insert_with(|| plain_name(name).map(Arc::from))
            .clone()
    }
}

/// The claiming of tool spans by calls.
struct Claims<'a, 't> {
    calls: &'a [Vec<ToolCall<'t>>],
    /// For each decision, the first tool that started after it did, and the first that did not
    /// start before the next decision in sequence.
    windows: Vec<(usize, usize)>,
    /// Unclaimed tools by key; numbers count the tools of the scope by start.
    open: HashMap<Key<'t>, BTreeSet<usize>>,
    keys_of: Vec<Vec<Key<'t>>>,
    names: PlainNames<'t>,
    tools: &'a [ToolSpan],
    tools_of: Vec<Vec<Option<NodeId>>>,
    claimed: Vec<bool>,
}

impl<'a, 't> Claims<'a, 't> {
    fn of(tree: &'t TraceTree, scope: &'a Scope, calls: &'a [Vec<ToolCall<'t>>]) -> Self {
        let asked_ids: HashSet<&str> = calls
            .iter()
            .flatten()
            .map(|call| call.tool_id)
            .filter(|id| !id.is_empty())
            .collect();
        let mut names = PlainNames::default();
        let mut open: HashMap<Key<'t>, BTreeSet<usize>> = HashMap::new();
        let mut keys_of = Vec::with_capacity(scope.tools.len());
        for (at, tool) in scope.tools.iter().enumerate() {
            let keys = keys_of_tool(tree.span(tool.node), &asked_ids, &mut names);
            for key in &keys {
                open.entry(key.clone()).or_default().insert(at);
            }
            keys_of.push(keys);
        }
        Self {
            calls,
            windows: windows(tree, scope),
            open,
            keys_of,
            names,
            tools: &scope.tools,
            tools_of: calls.iter().map(|calls| vec![None; calls.len()]).collect(),
            claimed: vec![false; scope.tools.len()],
        }
    }

    fn settle(mut self) -> Self {
        let with_arguments = |call: &ToolCall<'t>| {
            Some(Key::NameAndArguments(
                call.name,
                arguments_hash(call.arguments)?,
            ))
        };
        let id = |call: &ToolCall<'t>| {
            (!call.tool_id.is_empty()).then_some(Key::Id(Cow::Borrowed(call.tool_id)))
        };
        self.pass(id, false);
        self.pass(id, true);
        self.pass(with_arguments, false);
        self.pass(|call| Some(Key::Name(call.name)), false);
        let mut names = std::mem::take(&mut self.names);
        self.pass(|call| Some(Key::PlainName(names.of(call.name)?)), false);
        self.pass(
            |call| {
                let arguments = call.arguments.map(argument_value)?;
                let telling = arguments.as_object().is_some_and(|map| !map.is_empty());
                telling.then(|| Key::Arguments(hash(&arguments)))
            },
            false,
        );
        // A tool that was put off until after the next decision.
        self.pass(with_arguments, true);
        self
    }

    /// Lets each call that has no tool yet claim the first one of its key in its window, or any
    /// later one.
    fn pass(&mut self, mut key: impl FnMut(&ToolCall<'t>) -> Option<Key<'t>>, later: bool) {
        for (decision, calls) in self.calls.iter().enumerate() {
            let Some((from, to)) = self.windows.get(decision).copied() else {
                continue;
            };
            let to = if later { self.tools.len() } else { to };
            for (at, call) in calls.iter().enumerate() {
                let settled = self
                    .tools_of
                    .get(decision)
                    .and_then(|tools| tools.get(at))
                    .is_none_or(Option::is_some);
                if settled || from >= to {
                    continue;
                }
                let found = key(call)
                    .and_then(|key| self.open.get(&key))
                    .and_then(|open| open.range(from..to).next().copied());
                if let Some(tool) = found {
                    self.claim(decision, at, tool);
                }
            }
        }
    }

    fn claim(&mut self, decision: usize, at: usize, tool: usize) {
        for key in self.keys_of.get(tool).into_iter().flatten() {
            if let Some(open) = self.open.get_mut(key) {
                open.remove(&tool);
            }
        }
        if let Some(claimed) = self.claimed.get_mut(tool) {
            *claimed = true;
        }
        if let Some(slot) = self
            .tools_of
            .get_mut(decision)
            .and_then(|tools| tools.get_mut(at))
        {
            *slot = self.tools.get(tool).map(|tool| tool.node);
        }
    }
}

/// For each decision, the tools that may answer it: from its own start until the start of the
/// first decision after its end. Decisions that run in parallel share their windows.
fn windows(tree: &TraceTree, scope: &Scope) -> Vec<(usize, usize)> {
    let start = |node: NodeId| tree.start_ns(node);
    let first_tool = |ns: i64| scope.tools.partition_point(|tool| start(tool.node) < ns);
    scope
        .decisions
        .iter()
        .enumerate()
        .map(|(at, decision)| {
            let end = tree.end_ns(*decision);
            let next = scope
                .decisions
                .partition_point(|other| start(*other) < end)
                .max(at + 1);
            let to = scope
                .decisions
                .get(next)
                .map_or(scope.tools.len(), |next| first_tool(start(*next)));
            (first_tool(start(*decision)), to)
        })
        .collect()
}

fn keys_of_tool<'t>(
    span: &'t Span,
    asked_ids: &HashSet<&str>,
    names: &mut PlainNames<'t>,
) -> Vec<Key<'t>> {
    let mut keys: Vec<Key<'t>> = tool_call_ids(span)
        .into_iter()
        .filter(|id| asked_ids.contains(id.as_ref()))
        .map(Key::Id)
        .collect();
    keys.push(Key::Name(&span.name));
    keys.extend(names.of(&span.name).map(Key::PlainName));
    for hashed in argument_hashes(span) {
        keys.push(Key::NameAndArguments(&span.name, hashed));
        keys.push(Key::Arguments(hashed));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A tool's name without what frameworks dress it in: `mcp__shop__search`, `functions.search` and
/// `execute_tool search` are all `search`.
fn plain_name(name: &str) -> Option<String> {
    let last_word = name.split_whitespace().last()?;
    let after_server = last_word.rsplit("__").next().unwrap_or(last_word);
    let bare = after_server
        .rsplit(['.', '/', ':'])
        .next()
        .unwrap_or(after_server);
    let plain: String = bare
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    (!plain.is_empty()).then_some(plain)
}

/// The input of a tool span as arguments: the whole of it, and what stands in it under the names
/// that frameworks use. Each as the number that stands for it.
fn argument_hashes(span: &Span) -> Vec<u64> {
    let whole = match &span.input.value {
        Some(value) => argument_value(value),
        None => return Vec::new(),
    };
    let mut hashes: Vec<u64> = ["args", "arguments", "kwargs", "input", "parameters"]
        .into_iter()
        .filter_map(|key| whole.get(key).filter(|inner| inner.is_object()).map(hash))
        .collect();
    hashes.push(hash(&whole));
    hashes
}

/// Arguments as JSON, also where they were sent as text.
pub(super) fn argument_value(value: &Value) -> Cow<'_, Value> {
    if let Value::String(text) = value
        && text.trim_start().starts_with(['{', '['])
        && let Ok(inner) = serde_json::from_str(text)
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(value)
}

/// The arguments of a tool span as the model would have written them.
pub(super) fn span_arguments(span: &Span) -> Cow<'_, Value> {
    let whole = match &span.input.value {
        Some(Value::Null) | None => {
            return Cow::Owned(span.input.text().map_or(Value::Null, |t| t.into()));
        }
        Some(value) => argument_value(value),
    };
    // LangChain records the whole call: `{"args": …, "id": …, "name": …, "type": "tool_call"}`.
    let is_call = |call: &Value| call.get("type").and_then(Value::as_str) == Some("tool_call");
    match whole {
        Cow::Borrowed(call) if is_call(call) => Cow::Borrowed(call.get("args").unwrap_or(call)),
        Cow::Owned(call) if is_call(&call) => Cow::Owned(call.get("args").cloned().unwrap_or(call)),
        whole => whole,
    }
}

fn arguments_hash(arguments: Option<&Value>) -> Option<u64> {
    arguments.map(|arguments| hash(&argument_value(arguments)))
}

/// A number that is the same for the same JSON, whatever the order of its keys.
pub(super) fn hash(value: &Value) -> u64 {
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
        // Whole numbers and others print differently, so they are different.
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => (2_u8, whole).hash(hasher),
            (None, Some(whole)) => (6_u8, whole).hash(hasher),
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

/// The tool results in the inputs of a loop's decisions.
struct Given<'t> {
    /// By tool id: the decision whose input holds it, and the last such result there.
    results: HashMap<&'t str, Vec<(usize, Cow<'t, str>)>>,
}

impl<'t> Given<'t> {
    fn of(tree: &'t TraceTree, decisions: &[NodeId]) -> Self {
        let mut results: HashMap<&'t str, Vec<(usize, Cow<'t, str>)>> = HashMap::new();
        for (at, decision) in decisions.iter().enumerate() {
            for message in &content_of(tree, *decision, Side::Input).messages {
                for (id, result) in results_of(message) {
                    let list = results.entry(id).or_default();
                    match list.last_mut() {
                        Some((known, last)) if *known == at => *last = result,
                        _ => list.push((at, result)),
                    }
                }
            }
        }
        Self { results }
    }

    /// The result of a call in the first later decision that was given one.
    fn after(&self, decision: usize, tool_id: &str) -> Option<Cow<'t, str>> {
        let list = self.results.get(tool_id)?;
        let next = list.partition_point(|(at, _)| *at <= decision);
        list.get(next).map(|(_, result)| result.clone())
    }
}

/// The results that a message brings, with their ids: its `tool_results`, else its content when it
/// has the role `tool` and an id.
fn results_of(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
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
