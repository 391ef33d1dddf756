//! The content of a span: its input and output.
//!
//! Messages and documents are stored as the JSON that was sent. SDKs, frameworks and providers add
//! their own keys, which a debugging tool must show. Typed accessors read the documented keys.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The input or the output of a span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Io {
    /// Usually text; any JSON value on experiment spans.
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
    /// Other keys, unchanged: `embedding`, `parameters`, attachment keys.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl Io {
    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.value.as_ref().is_none_or(Value::is_null)
            && self.messages.is_empty()
            && self.documents.is_empty()
            && self.prompt.is_none()
            && self.extra.is_empty()
    }

    /// The content as text: the value; otherwise the last `user` message, or all messages joined
    /// by newlines (Datadog's inference rule); otherwise the texts of the documents.
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

/// A chat message, exactly as sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Value);

impl Message {
    /// `system`, `user`, `assistant`, `tool`, …; empty when absent.
    pub fn role(&self) -> &str {
        self.0
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The content as text; empty when absent. Content parts are joined by newlines.
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

    /// The tool calls that the model requests in this message.
    pub fn tool_calls(&self) -> impl Iterator<Item = ToolCall<'_>> {
        self.entries("tool_calls").map(|call| ToolCall {
            name: call.get("name").and_then(Value::as_str).unwrap_or_default(),
            arguments: call.get("arguments"),
            tool_id: id_text(call),
        })
    }

    /// The tool results that this message returns.
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
    /// Its arguments: usually an object, sometimes the model's raw text.
    pub arguments: Option<&'a Value>,
    /// The id that joins the call to its result; empty when absent.
    pub tool_id: &'a str,
}

/// A tool result in a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolResult<'a> {
    /// Name of the tool; often empty.
    pub name: &'a str,
    /// The tool's return value, usually text.
    pub result: Option<&'a Value>,
    /// The id that joins the result to its call; empty when absent.
    pub tool_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_last_user_message_or_all_messages() {
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
    fn malformed_message_reads_as_empty() {
        let message = Message(json!(["not", "an", "object"]));
        assert_eq!(message.role(), "");
        assert_eq!(message.text(), "");
        assert_eq!(message.tool_calls().count(), 0);
    }

    #[test]
    fn tool_calls_keep_their_tool_id() {
        let message = Message(json!({"role":"assistant","tool_calls":[
            {"name":"search","arguments":{"q":1},"tool_id":"c1","type":"function"}]}));
        let call = message.tool_calls().next().unwrap();
        assert_eq!((call.name, call.tool_id), ("search", "c1"));
        assert_eq!(call.arguments, Some(&json!({"q":1})));
    }
}
