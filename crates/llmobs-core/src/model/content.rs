//! What goes into and comes out of a span.
//!
//! Messages and documents are kept as the JSON that was sent: SDKs, frameworks and providers add
//! keys of their own, and a debugging tool must show them. Typed views read the documented ones.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One side of a span: its input or its output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Io {
    /// Text, as a rule; experiment spans hold any JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Chat messages (LLM spans).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// Documents (retrieval output, embedding input): `{text, name, id, score}`, each optional.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Value>,
    /// The prompt template: `{id, version, label, template, variables, …}` (LLM input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
    /// Other keys as sent: `embedding`, `parameters`, attachment keys.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl Io {
    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.value.as_ref().is_none_or(Value::is_null)
            && self.messages.is_empty()
            && self.documents.is_empty()
            && self.prompt.is_none()
            && self.extra.is_empty()
    }

    /// This side as text: the value; else the content of the last `user` message, else all
    /// contents joined by a newline (Datadog's inference rule); else the documents' texts.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Some(Value::String(text)) => return Some(Cow::Borrowed(text)),
            Some(Value::Null) | None => {}
            Some(other) => return Some(Cow::Owned(other.to_string())),
        }
        if !self.messages.is_empty() {
            if let Some(user) = self.messages.iter().rfind(|m| m.role() == "user") {
                let text = user.text();
                if !text.is_empty() {
                    return Some(text);
                }
            }
            return Some(Cow::Owned(join_lines(
                self.messages.iter().map(Message::text),
            )));
        }
        if !self.documents.is_empty() {
            let texts = self
                .documents
                .iter()
                .filter_map(|d| d.get("text").and_then(Value::as_str));
            return Some(Cow::Owned(join_lines(texts.map(Cow::Borrowed))));
        }
        None
    }
}

fn join_lines<'a>(parts: impl Iterator<Item = Cow<'a, str>>) -> String {
    let mut joined = String::new();
    for part in parts.filter(|part| !part.is_empty()) {
        if !joined.is_empty() {
            joined.push('\n');
        }
        joined.push_str(&part);
    }
    joined
}

/// One chat message, exactly as sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Value);

impl Message {
    /// `system`, `user`, `assistant`, `tool`, …; empty when not sent.
    pub fn role(&self) -> &str {
        self.0
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The content as text; empty when the message has none. Content parts are joined.
    pub fn text(&self) -> Cow<'_, str> {
        match self.0.get("content") {
            Some(Value::String(text)) => Cow::Borrowed(text),
            Some(Value::Array(parts)) => Cow::Owned(join_lines(parts.iter().map(|part| {
                let text = part
                    .as_str()
                    .or_else(|| part.get("text").and_then(Value::as_str));
                text.map_or_else(|| Cow::Owned(part.to_string()), Cow::Borrowed)
            }))),
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(other) => Cow::Owned(other.to_string()),
        }
    }

    /// The tool calls that the model asked for in this message.
    pub fn tool_calls(&self) -> impl Iterator<Item = ToolCall<'_>> {
        self.entries("tool_calls").map(|call| ToolCall {
            name: call.get("name").and_then(Value::as_str).unwrap_or_default(),
            arguments: call.get("arguments"),
            tool_id: id_text(call),
        })
    }

    /// The tool results that this message brings back.
    pub fn tool_results(&self) -> impl Iterator<Item = ToolResult<'_>> {
        self.entries("tool_results").map(|result| ToolResult {
            name: result
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            result: result.get("result"),
            tool_id: id_text(result),
        })
    }

    fn entries(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.0
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
}

fn id_text(entry: &Value) -> &str {
    entry
        .get("tool_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A tool call in a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolCall<'a> {
    /// Name of the tool.
    pub name: &'a str,
    /// Its arguments: an object as a rule, sometimes the model's raw text.
    pub arguments: Option<&'a Value>,
    /// Joins the call to its result; empty when not sent.
    pub tool_id: &'a str,
}

/// A tool result in a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolResult<'a> {
    /// Name of the tool; often empty.
    pub name: &'a str,
    /// What the tool returned: text as a rule.
    pub result: Option<&'a Value>,
    /// Joins the result to its call; empty when not sent.
    pub tool_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_of_messages_is_the_last_user_message_else_all_of_them() {
        let io = |messages: Value| Io {
            messages: serde_json::from_value(messages).unwrap(),
            ..Io::default()
        };
        let chat = io(
            json!([{"role":"user","content":"a"},{"role":"user","content":"b"},
                             {"role":"assistant","content":"c"}]),
        );
        assert_eq!(chat.text().as_deref(), Some("b"));
        let answer = io(json!([{"role":"assistant","content":"x"},{"content":"y"}]));
        assert_eq!(answer.text().as_deref(), Some("x\ny"));
        assert_eq!(Io::default().text(), None);
    }

    #[test]
    fn a_malformed_message_reads_as_empty() {
        let message = Message(json!(["not", "an", "object"]));
        assert_eq!(message.role(), "");
        assert_eq!(message.text(), "");
        assert_eq!(message.tool_calls().count(), 0);
    }

    #[test]
    fn tool_calls_and_results_keep_their_join_key() {
        let message = Message(json!({"role":"assistant","tool_calls":[
            {"name":"search","arguments":{"q":1},"tool_id":"c1","type":"function"}]}));
        let call = message.tool_calls().next().unwrap();
        assert_eq!((call.name, call.tool_id), ("search", "c1"));
        assert_eq!(call.arguments, Some(&json!({"q":1})));
    }
}
