//! Converts chat messages of the OpenTelemetry conventions to LLM Observability messages.
//!
//! Three formats are read: `{role, parts[]}` of the GenAI conventions, `{message: {…}}` of
//! OpenInference, and the model API's `{role, content, tool_calls[]}`, which OpenLLMetry flattens.
//! Other keys of a message stay on it.

use serde_json::{Map, Value, json};

use crate::intake::json_value::to_text;

/// Converts a list of messages; `None` if the value is not a list of objects.
pub(super) fn messages_of(value: Value) -> Option<Vec<Value>> {
    let Value::Array(items) = value else {
        return None;
    };
    items
        .iter()
        .all(Value::is_object)
        .then(|| items.into_iter().map(message_of).collect())
}

/// Converts system instructions, `[{type: text, content}]` or plain text.
pub(super) fn system_message(instructions: Value) -> Value {
    match instructions {
        Value::Array(parts) => message_of(json!({"role": "system", "parts": parts})),
        other => json!({"role": "system", "content": to_text(&other)}),
    }
}

/// Messages as the value of a span without messages: the text of a single text message, otherwise
/// all messages as JSON text.
pub(super) fn messages_as_value(messages: Vec<Value>) -> Value {
    if let [Value::Object(only)] = messages.as_slice()
        && let Some(Value::String(text)) = only.get("content")
        && only
            .keys()
            .all(|key| matches!(key.as_str(), "role" | "content" | "finish_reason"))
    {
        return Value::String(text.clone());
    }
    Value::String(Value::Array(messages).to_string())
}

/// The parts of a message, by type.
#[derive(Default)]
struct MessageParts {
    texts: Vec<String>,
    calls: Vec<Value>,
    results: Vec<Value>,
    /// Parts without a field of their own: images, reasoning.
    others: Vec<Value>,
}

/// Converts one message.
pub(super) fn message_of(value: Value) -> Value {
    let Value::Object(mut map) = value else {
        return json!({"role": "", "content": to_text(&value)});
    };
    if map.len() == 1
        && let Some(Value::Object(inner)) = map.get_mut("message")
    {
        map = std::mem::take(inner);
    }
    let role = map.shift_remove("role").unwrap_or_default();
    let mut parts = MessageParts::default();
    for key in ["parts", "contents"] {
        if let Some(Value::Array(_)) = map.get(key)
            && let Some(Value::Array(items)) = map.shift_remove(key)
        {
            items.into_iter().for_each(|part| parts.add(part));
        }
    }
    if let Some(Value::Array(_)) = map.get("tool_calls")
        && let Some(Value::Array(calls)) = map.shift_remove("tool_calls")
    {
        parts.calls.extend(calls.into_iter().map(tool_call_of));
    }
    let name = map.shift_remove("function_call_name");
    let arguments = map.shift_remove("function_call_arguments_json");
    if name.is_some() || arguments.is_some() {
        parts
            .calls
            .push(tool_call_of(json!({"name": name, "arguments": arguments})));
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), to_text(&role).as_ref().into());
    let content = match map.shift_remove("content") {
        None | Some(Value::Null) => None,
        Some(content) => Some(content),
    };
    let content =
        content.or_else(|| (!parts.texts.is_empty()).then(|| parts.texts.join("\n").into()));
    if let Some(Value::String(id)) = map.get("tool_call_id") {
        let result = content.as_ref().map(|text| to_text(text).into_owned());
        parts.results.push(json!({
            "name": map.get("name").cloned().unwrap_or_else(|| "".into()),
            "result": result.unwrap_or_default(), "tool_id": id, "type": "tool_result"}));
        map.shift_remove("tool_call_id");
    }
    if let Some(content) = content {
        message.insert("content".to_owned(), content);
    }
    for (key, list) in [
        ("tool_calls", parts.calls),
        ("tool_results", parts.results),
        ("parts", parts.others),
    ] {
        if !list.is_empty() {
            message.insert(key.to_owned(), Value::Array(list));
        }
    }
    for (key, value) in map {
        message.entry(key).or_insert(value);
    }
    Value::Object(message)
}

impl MessageParts {
    fn add(&mut self, part: Value) {
        let inner = part.get("message_content").unwrap_or(&part);
        let kind = inner
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let get = |key: &str| inner.get(key).filter(|value| !value.is_null());
        match kind {
            "text" => match get("content").or_else(|| get("text")) {
                Some(text) => self.texts.push(to_text(text).into_owned()),
                None => self.others.push(part),
            },
            "tool_call" => self.calls.push(tool_call_of(inner.clone())),
            "tool_call_response" => {
                let result = ["response", "result", "content"].into_iter().find_map(get);
                self.results.push(json!({
                    "name": get("name").map(to_text).unwrap_or_default(),
                    "result": result.map(to_text).unwrap_or_default(),
                    "tool_id": get("id").map(to_text).unwrap_or_default(),
                    "type": "tool_result"}));
            }
            _ => self.others.push(part),
        }
    }
}

/// Converts a tool call of any format; keys without a field of their own stay.
fn tool_call_of(call: Value) -> Value {
    let Value::Object(mut map) = call else {
        return call;
    };
    if let Some(Value::Object(inner)) = map.get_mut("tool_call") {
        map = std::mem::take(inner);
    }
    if let Some(Value::Object(function)) = map.shift_remove("function") {
        for (key, value) in function {
            map.entry(key).or_insert(value);
        }
    }
    let name = map.shift_remove("name").unwrap_or_default();
    let arguments = map.shift_remove("arguments").map(parse_nested_json);
    let id = map.shift_remove("id").unwrap_or_default();
    // Conventions write `tool_call` here, model APIs write `function`.
    map.shift_remove("type");
    let mut converted = Map::new();
    converted.insert("name".to_owned(), text_or_empty(&name));
    converted.insert(
        "arguments".to_owned(),
        arguments.unwrap_or_else(|| json!({})),
    );
    converted.insert("tool_id".to_owned(), text_or_empty(&id));
    converted.insert("type".to_owned(), "function".into());
    for (key, value) in map {
        converted.entry(key).or_insert(value);
    }
    Value::Object(converted)
}

fn text_or_empty(value: &Value) -> Value {
    match value {
        Value::Null => Value::from(""),
        other => Value::from(to_text(other)),
    }
}

/// Parses JSON text that holds an object or a list; returns any other value unchanged.
pub(super) fn parse_nested_json(value: Value) -> Value {
    if let Value::String(text) = &value
        && text.trim_start().starts_with(['{', '['])
        && let Ok(inner) = crate::http::parse_json(text.as_bytes())
    {
        return inner;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_parts_to_content_calls_and_results() {
        let message = message_of(
            json!({"role": "assistant", "finish_reason": "tool_call", "parts": [
            {"type": "text", "content": "a"}, {"type": "text", "content": "b"},
            {"type": "reasoning", "content": "hm"},
            {"type": "tool_call", "id": "c1", "name": "f", "arguments": "{\"x\":1}"},
            {"type": "tool_call_response", "id": "c0", "response": {"ok": true}}]}),
        );
        assert_eq!(
            message,
            json!({"role": "assistant", "content": "a\nb",
                "tool_calls": [{"name": "f", "arguments": {"x": 1}, "tool_id": "c1", "type": "function"}],
                "tool_results": [{"name": "", "result": "{\"ok\":true}", "tool_id": "c0", "type": "tool_result"}],
                "parts": [{"type": "reasoning", "content": "hm"}], "finish_reason": "tool_call"})
        );
    }

    #[test]
    fn unwraps_open_inference_messages() {
        let message = message_of(json!({"message": {"role": "assistant",
            "contents": [{"message_content": {"type": "text", "text": "hi"}}],
            "tool_calls": [{"tool_call": {"id": "c1", "function": {"name": "f", "arguments": "{}"}}}]}}));
        assert_eq!(
            message,
            json!({"role": "assistant", "content": "hi",
                "tool_calls": [{"name": "f", "arguments": {}, "tool_id": "c1", "type": "function"}]})
        );
    }

    #[test]
    fn message_with_call_id_is_tool_result() {
        let message = message_of(json!({"role": "tool", "content": "18C", "tool_call_id": "c1"}));
        assert_eq!(
            message,
            json!({"role": "tool", "content": "18C", "tool_results":
                [{"name": "", "result": "18C", "tool_id": "c1", "type": "tool_result"}]})
        );
    }

    #[test]
    fn single_text_message_becomes_text() {
        let user = json!({"role": "user", "content": "x"});
        assert_eq!(messages_as_value(vec![user.clone()]), json!("x"));
        let all = messages_as_value(vec![user.clone(), user]);
        assert!(all.as_str().unwrap().starts_with("[{\"role\":\"user\""));
    }
}
