//! Tool results as they stand in the messages given to models.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::judge::{SHORT_CHARS, Texts, json_in, judge, short};
use super::{Evidence, evidence};
use crate::analysis::content::Field;
use crate::analysis::first_chars;
use crate::analysis::tree::TraceTree;
use crate::model::{Message, Span, SpanKind};

/// Tool results as models were given them, for tools that left no span of their own.
pub(super) struct GivenResults {
    /// Tool ids that tool spans carry, and the names of tool spans.
    shown_ids: HashSet<String>,
    shown_names: HashSet<String>,
    /// Results already judged: each stands in the input of every later call too.
    seen: HashSet<(String, String)>,
}

impl GivenResults {
    pub(super) fn of(tree: &TraceTree) -> Self {
        let tools = || {
            tree.nodes()
                .map(|node| tree.span(node))
                .filter(|span| span.kind == SpanKind::Tool)
        };
        Self {
            shown_ids: tools().flat_map(|span| tool_ids(span)).collect(),
            shown_names: tools().map(|span| span.name.clone()).collect(),
            seen: HashSet::new(),
        }
    }

    /// The failed results in the input of an LLM call that were not judged before.
    pub(super) fn failed(&mut self, llm: &Span) -> Vec<Evidence> {
        let names: HashMap<&str, &str> = llm
            .input
            .messages
            .iter()
            .flat_map(Message::tool_calls)
            .map(|call| (call.tool_id, call.name))
            .collect();
        let mut failed = Vec::new();
        for (at, message) in llm.input.messages.iter().enumerate() {
            for given in results_of(message) {
                let name = if given.name.is_empty() {
                    names.get(given.id).copied().unwrap_or_default()
                } else {
                    given.name
                };
                if self.shown_ids.contains(given.id)
                    || self.shown_names.contains(name)
                    || !self.seen.insert((given.id.to_owned(), given.key()))
                {
                    continue;
                }
                if let Some((inner, value)) = given.failure() {
                    let path = format!("$.messages[{at}]{inner}");
                    failed.push(evidence(Field::Messages, &path, value));
                }
            }
        }
        failed
    }
}

/// One tool result inside a message.
struct Given<'a> {
    id: &'a str,
    name: &'a str,
    /// The result, and its path inside the message.
    result: Option<&'a Value>,
    path: String,
    /// Whether the result is marked as an error, and where.
    marked: Option<String>,
}

impl Given<'_> {
    /// What tells one result from another of the same id.
    fn key(&self) -> String {
        let text = match self.result {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => Cow::Owned(other.to_string()),
            None => Cow::Borrowed(""),
        };
        // The beginning and the length are enough, and keep long histories cheap.
        format!("{}:{}", text.len(), first_chars(&text, SHORT_CHARS).0)
    }

    fn failure(&self) -> Option<(String, Value)> {
        if let Some(path) = &self.marked {
            return Some((path.clone(), Value::Bool(true)));
        }
        let value = self.result?;
        match value {
            Value::String(text) => match json_in(text) {
                Some(inner) => judge(&inner, String::new(), Texts::AnyError)
                    .map(|(_, _)| (self.path.clone(), short(value))),
                None => judge(value, self.path.clone(), Texts::AnyError),
            },
            _ => judge(value, self.path.clone(), Texts::AnyError),
        }
    }
}

/// The results that a message brings: its `tool_results`, else its content when it has the role
/// `tool`.
fn results_of(message: &Message) -> Vec<Given<'_>> {
    let listed: Vec<_> = message
        .tool_results()
        .enumerate()
        .map(|(at, result)| {
            let mark = ["isError", "is_error"].into_iter().find(|key| {
                message.0.pointer(&format!("/tool_results/{at}/{key}")) == Some(&Value::Bool(true))
            });
            Given {
                id: result.tool_id,
                name: result.name,
                result: result.result,
                path: format!(".tool_results[{at}].result"),
                marked: mark.map(|key| format!(".tool_results[{at}].{key}")),
            }
        })
        .collect();
    if !listed.is_empty() || message.role() != "tool" {
        return listed;
    }
    let text = |key: &str| message.0.get(key).and_then(Value::as_str);
    vec![Given {
        id: text("tool_id")
            .or_else(|| text("tool_call_id"))
            .unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        result: message.0.get("content"),
        path: ".content".to_owned(),
        marked: None,
    }]
}

/// The ids of model decisions that a tool span says it answers: in its metadata, or as the `id` of
/// the tool call that is its input.
pub(crate) fn tool_ids(span: &Span) -> Vec<String> {
    let mut ids: Vec<String> = ["tool_id", "tool_call_id", "tool_use_id", "call_id"]
        .into_iter()
        .filter_map(|key| span.metadata.get(key)?.as_str())
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect();
    let input = match &span.input.value {
        Some(Value::String(text)) if text.trim_start().starts_with('{') => json_in(text),
        Some(object @ Value::Object(_)) => Some(object.clone()),
        _ => None,
    };
    if let Some(input) = input {
        ids.extend(
            ["id", "tool_call_id", "tool_use_id"]
                .into_iter()
                .filter_map(|key| input.get(key)?.as_str())
                .filter(|id| !id.is_empty())
                .map(str::to_owned),
        );
    }
    ids
}
