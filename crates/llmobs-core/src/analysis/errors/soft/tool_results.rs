//! Tool results in the messages that models received.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::evidence::{Evidence, evidence};
use super::failure::{EVIDENCE_CHARS, TextRule, find_failure, parse_json, shorten};
use super::skim::skim;
use crate::analysis::content::ContentField;
use crate::analysis::tree::TraceTree;
use crate::analysis::truncate_chars;
use crate::model::{Message, Span, SpanKind};

/// Finds failed results of tools that have no span of their own.
pub(super) struct ToolResultScanner<'t> {
    tree: &'t TraceTree,
    /// Collected at the first result: in most traces, models receive none.
    tool_spans: OnceCell<ToolSpanKeys<'t>>,
    /// Results already examined. Every later call of a conversation receives them again.
    examined: HashSet<(String, String)>,
}

/// The tool call ids and the names of all tool spans.
struct ToolSpanKeys<'t> {
    ids: HashSet<Cow<'t, str>>,
    names: HashSet<&'t str>,
}

impl<'t> ToolSpanKeys<'t> {
    fn from_tree(tree: &'t TraceTree) -> Self {
        let tools = || {
            tree.nodes()
                .filter(|node| *tree.kind(*node) == SpanKind::Tool)
                .map(|node| tree.span(node))
        };
        Self {
            ids: tools().flat_map(|span| tool_call_ids(span)).collect(),
            names: tools().map(|span| span.name.as_str()).collect(),
        }
    }
}

impl<'t> ToolResultScanner<'t> {
    pub(super) fn new(tree: &'t TraceTree) -> Self {
        Self {
            tree,
            tool_spans: OnceCell::new(),
            examined: HashSet::new(),
        }
    }

    /// The failed results in the input of an LLM span that no earlier call has received.
    pub(super) fn failed_results(&mut self, llm: &Span) -> Vec<Evidence> {
        let names: OnceCell<HashMap<&str, &str>> = OnceCell::new();
        let mut failed = Vec::new();
        for (index, message) in llm.input.messages.iter().enumerate() {
            for result in tool_results(message) {
                let name = if result.name.is_empty() {
                    let names = names.get_or_init(|| requested_tools(llm));
                    names.get(result.id).copied().unwrap_or_default()
                } else {
                    result.name
                };
                let tool_spans = self
                    .tool_spans
                    .get_or_init(|| ToolSpanKeys::from_tree(self.tree));
                if tool_spans.ids.contains(result.id)
                    || tool_spans.names.contains(name)
                    || !self
                        .examined
                        .insert((result.id.to_owned(), result.digest()))
                {
                    continue;
                }
                if let Some((inner, value)) = result.failure() {
                    let path = format!("$.messages[{index}]{inner}");
                    failed.push(evidence(ContentField::Messages, &path, value));
                }
            }
        }
        failed
    }
}

/// The names of the tools that the input messages of an LLM span request, by tool call id.
fn requested_tools(llm: &Span) -> HashMap<&str, &str> {
    let calls = llm.input.messages.iter().flat_map(Message::tool_calls);
    calls.map(|call| (call.tool_id, call.name)).collect()
}

/// A tool result in a message.
struct MessageToolResult<'a> {
    id: &'a str,
    name: &'a str,
    value: Option<&'a Value>,
    /// The path of the value in the message.
    path: String,
    /// The path of the flag that marks the result as an error, if it is set.
    error_flag: Option<String>,
}

impl MessageToolResult<'_> {
    /// Distinguishes results with the same id: the length and the start of the text. The full text
    /// is not used, because conversations can be long.
    fn digest(&self) -> String {
        let text = match self.value {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => Cow::Owned(other.to_string()),
            None => Cow::Borrowed(""),
        };
        format!("{}:{}", text.len(), truncate_chars(&text, EVIDENCE_CHARS).0)
    }

    /// The path and value that show the failure, if the result is one.
    fn failure(&self) -> Option<(String, Value)> {
        if let Some(path) = &self.error_flag {
            return Some((path.clone(), Value::Bool(true)));
        }
        let value = self.value?;
        match value {
            Value::String(text) => match skim(text) {
                Some(inner) => find_failure(&inner, String::new(), TextRule::AnyError)
                    .map(|_| (self.path.clone(), shorten(value))),
                None => find_failure(value, self.path.clone(), TextRule::AnyError),
            },
            _ => find_failure(value, self.path.clone(), TextRule::AnyError),
        }
    }
}

/// The tool results of a message: its `tool_results`, else its content if it has the role `tool`.
fn tool_results(message: &Message) -> Vec<MessageToolResult<'_>> {
    let listed: Vec<_> = message
        .tool_results()
        .enumerate()
        .map(|(index, result)| {
            let flag = ["isError", "is_error"].into_iter().find(|key| {
                let pointer = format!("/tool_results/{index}/{key}");
                message.0.pointer(&pointer) == Some(&Value::Bool(true))
            });
            MessageToolResult {
                id: result.tool_id,
                name: result.name,
                value: result.result,
                path: format!(".tool_results[{index}].result"),
                error_flag: flag.map(|key| format!(".tool_results[{index}].{key}")),
            }
        })
        .collect();
    if !listed.is_empty() || message.role() != "tool" {
        return listed;
    }
    let text = |key: &str| message.0.get(key).and_then(Value::as_str);
    vec![MessageToolResult {
        id: text("tool_id")
            .or_else(|| text("tool_call_id"))
            .unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        value: message.0.get("content"),
        path: ".content".to_owned(),
        error_flag: None,
    }]
}

const ID_KEYS_IN_METADATA: [&str; 4] = ["tool_id", "tool_call_id", "tool_use_id", "call_id"];
const ID_KEYS_IN_INPUT: [&str; 3] = ["id", "tool_call_id", "tool_use_id"];

/// The ids of the tool calls that a tool span executes: from its metadata, or the `id` of the tool
/// call in its input.
pub fn tool_call_ids(span: &Span) -> Vec<Cow<'_, str>> {
    let mut ids: Vec<Cow<'_, str>> = texts_at(&span.metadata, &ID_KEYS_IN_METADATA)
        .map(Cow::Borrowed)
        .collect();
    match &span.input.value {
        Some(Value::Object(input)) => {
            ids.extend(texts_at(input, &ID_KEYS_IN_INPUT).map(Cow::Borrowed));
        }
        Some(Value::String(text)) if text.trim_start().starts_with('{') => {
            if let Some(Value::Object(input)) = parse_json(text) {
                let found = texts_at(&input, &ID_KEYS_IN_INPUT);
                ids.extend(found.map(|id| Cow::Owned(id.to_owned())));
            }
        }
        _ => {}
    }
    ids
}

/// The non-empty texts at these keys.
fn texts_at<'m>(
    map: &'m Map<String, Value>,
    keys: &'static [&'static str],
) -> impl Iterator<Item = &'m str> {
    let texts = keys.iter().filter_map(|key| map.get(*key)?.as_str());
    texts.filter(|text| !text.is_empty())
}
