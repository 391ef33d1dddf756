//! Tool results as they stand in the messages given to models.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::judge::{SHORT_CHARS, Texts, json_in, judge, short};
use super::sketch::sketch;
use super::{Evidence, evidence};
use crate::analysis::content::ContentField;
use crate::analysis::tree::TraceTree;
use crate::analysis::truncate_chars;
use crate::model::{Message, Span, SpanKind};

/// Tool results as models were given them, for tools that left no span of their own.
pub(super) struct GivenResults<'t> {
    tree: &'t TraceTree,
    /// Looked for when the first result is met: most traces give their models none.
    shown: OnceCell<Shown<'t>>,
    /// Results already judged: each stands in the input of every later call too.
    seen: HashSet<(String, String)>,
}

/// What tool spans show: the tool ids that they carry, and their names.
struct Shown<'t> {
    ids: HashSet<Cow<'t, str>>,
    names: HashSet<&'t str>,
}

impl<'t> Shown<'t> {
    fn of(tree: &'t TraceTree) -> Self {
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

impl<'t> GivenResults<'t> {
    pub(super) fn of(tree: &'t TraceTree) -> Self {
        Self {
            tree,
            shown: OnceCell::new(),
            seen: HashSet::new(),
        }
    }

    /// The failed results in the input of an LLM call that were not judged before.
    pub(super) fn failed(&mut self, llm: &Span) -> Vec<Evidence> {
        let names: OnceCell<HashMap<&str, &str>> = OnceCell::new();
        let mut failed = Vec::new();
        for (at, message) in llm.input.messages.iter().enumerate() {
            for given in results_of(message) {
                let name = if given.name.is_empty() {
                    let names = names.get_or_init(|| asked_names(llm));
                    names.get(given.id).copied().unwrap_or_default()
                } else {
                    given.name
                };
                let shown = self.shown.get_or_init(|| Shown::of(self.tree));
                if shown.ids.contains(given.id)
                    || shown.names.contains(name)
                    || !self.seen.insert((given.id.to_owned(), given.key()))
                {
                    continue;
                }
                if let Some((inner, value)) = given.failure() {
                    let path = format!("$.messages[{at}]{inner}");
                    failed.push(evidence(ContentField::Messages, &path, value));
                }
            }
        }
        failed
    }
}

/// The names of the tools that the messages given to a model asked for, by the id of the call.
fn asked_names(llm: &Span) -> HashMap<&str, &str> {
    let calls = llm.input.messages.iter().flat_map(Message::tool_calls);
    calls.map(|call| (call.tool_id, call.name)).collect()
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
        format!("{}:{}", text.len(), truncate_chars(&text, SHORT_CHARS).0)
    }

    fn failure(&self) -> Option<(String, Value)> {
        if let Some(path) = &self.marked {
            return Some((path.clone(), Value::Bool(true)));
        }
        let value = self.result?;
        match value {
            Value::String(text) => match sketch(text) {
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
pub fn tool_call_ids(span: &Span) -> Vec<Cow<'_, str>> {
    let mut ids: Vec<Cow<'_, str>> = texts_of(&span.metadata, &IDS_IN_METADATA)
        .map(Cow::Borrowed)
        .collect();
    match &span.input.value {
        Some(Value::Object(input)) => {
            ids.extend(texts_of(input, &IDS_IN_INPUT).map(Cow::Borrowed));
        }
        Some(Value::String(text)) if text.trim_start().starts_with('{') => {
            if let Some(Value::Object(input)) = json_in(text) {
                let found = texts_of(&input, &IDS_IN_INPUT);
                ids.extend(found.map(|id| Cow::Owned(id.to_owned())));
            }
        }
        _ => {}
    }
    ids
}

const IDS_IN_METADATA: [&str; 4] = ["tool_id", "tool_call_id", "tool_use_id", "call_id"];
const IDS_IN_INPUT: [&str; 3] = ["id", "tool_call_id", "tool_use_id"];

/// The texts under these keys, those that are not empty.
fn texts_of<'m>(
    map: &'m Map<String, Value>,
    keys: &'static [&'static str],
) -> impl Iterator<Item = &'m str> {
    let texts = keys.iter().filter_map(|key| map.get(*key)?.as_str());
    texts.filter(|text| !text.is_empty())
}
