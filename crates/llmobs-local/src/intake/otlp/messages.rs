//! Chat messages of the OpenTelemetry conventions as LLM Observability writes them.
//!
//! Three shapes come in: `{role, parts[]}` of the GenAI conventions, `{message: {…}}` of
//! OpenInference, and the model API's own `{role, content, tool_calls[]}`, which OpenLLMetry
//! flattens. What a message has besides stays on it under its own key.

use serde_json::{Map, Value, json};

use crate::intake::fields::text_of;

/// A list of messages; anything else is `None`.
pub(super) fn messages_of(value: Value) -> Option<Vec<Value>> {
    let Value::Array(items) = value else {
        return None;
    };
    items
        .iter()
        .all(Value::is_object)
        .then(|| items.into_iter().map(message_of).collect())
}

/// The system's instructions, `[{type: text, content}]` or plain text, as a message.
pub(super) fn system_message(instructions: Value) -> Value {
    match instructions {
        Value::Array(parts) => message_of(json!({"role": "system", "parts": parts})),
        other => json!({"role": "system", "content": text_of(&other)}),
    }
}

/// Messages as the value of a span that is no model call: the text when there is one message
/// of text alone, else all of it.
pub(super) fn value_of(messages: Vec<Value>) -> Value {
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

/// What a message is made of while it is read.
#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    calls: Vec<Value>,
    results: Vec<Value>,
    /// Parts without a place of their own: images, reasoning.
    others: Vec<Value>,
}

/// One message.
pub(super) fn message_of(value: Value) -> Value {
    let Value::Object(mut map) = value else {
        return json!({"role": "", "content": text_of(&value)});
    };
    if map.len() == 1
        && let Some(Value::Object(inner)) = map.get_mut("message")
    {
        map = std::mem::take(inner);
    }
    let role = map.shift_remove("role").unwrap_or_default();
    let mut parts = Parts::default();
    for key in ["parts", "contents"] {
        if let Some(Value::Array(_)) = map.get(key)
            && let Some(Value::Array(items)) = map.shift_remove(key)
        {
            items.into_iter().for_each(|part| parts.take(part));
        }
    }
    if let Some(Value::Array(_)) = map.get("tool_calls")
        && let Some(Value::Array(calls)) = map.shift_remove("tool_calls")
    {
        parts.calls.extend(calls.into_iter().map(call_of));
    }
    let name = map.shift_remove("function_call_name");
    let arguments = map.shift_remove("function_call_arguments_json");
    if name.is_some() || arguments.is_some() {
        parts
            .calls
            .push(call_of(json!({"name": name, "arguments": arguments})));
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), text_of(&role).as_ref().into());
    let content = match map.shift_remove("content") {
        None | Some(Value::Null) => None,
        Some(content) => Some(content),
    };
    let content =
        content.or_else(|| (!parts.texts.is_empty()).then(|| parts.texts.join("\n").into()));
    if let Some(Value::String(id)) = map.get("tool_call_id") {
        let result = content.as_ref().map(|text| text_of(text).into_owned());
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

impl Parts {
    fn take(&mut self, part: Value) {
        let inner = part.get("message_content").unwrap_or(&part);
        let kind = inner
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let get = |key: &str| inner.get(key).filter(|value| !value.is_null());
        match kind {
            "text" => match get("content").or_else(|| get("text")) {
                Some(text) => self.texts.push(text_of(text).into_owned()),
                None => self.others.push(part),
            },
            "tool_call" => self.calls.push(call_of(inner.clone())),
            "tool_call_response" => {
                let result = ["response", "result", "content"].into_iter().find_map(get);
                self.results.push(json!({
                    "name": get("name").map(text_of).unwrap_or_default(),
                    "result": result.map(text_of).unwrap_or_default(),
                    "tool_id": get("id").map(text_of).unwrap_or_default(),
                    "type": "tool_result"}));
            }
            _ => self.others.push(part),
        }
    }
}

/// A tool call in any of its shapes; keys without a place of their own stay.
fn call_of(call: Value) -> Value {
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
    let arguments = map.shift_remove("arguments").map(parsed);
    let id = map.shift_remove("id").unwrap_or_default();
    // The parts of the conventions say `tool_call` here, where models say `function`.
    map.shift_remove("type");
    let mut read = Map::new();
    read.insert("name".to_owned(), text_of_or_empty(&name));
    read.insert(
        "arguments".to_owned(),
        arguments.unwrap_or_else(|| json!({})),
    );
    read.insert("tool_id".to_owned(), text_of_or_empty(&id));
    read.insert("type".to_owned(), "function".into());
    for (key, value) in map {
        read.entry(key).or_insert(value);
    }
    Value::Object(read)
}

fn text_of_or_empty(value: &Value) -> Value {
    match value {
        Value::Null => Value::from(""),
        other => Value::from(text_of(other)),
    }
}

/// JSON text as what it stands for, if that is an object or a list; anything else as it is.
pub(super) fn parsed(value: Value) -> Value {
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
    fn parts_become_content_calls_and_results() {
        let read = message_of(
            json!({"role": "assistant", "finish_reason": "tool_call", "parts": [
            {"type": "text", "content": "a"}, {"type": "text", "content": "b"},
            {"type": "reasoning", "content": "hm"},
            {"type": "tool_call", "id": "c1", "name": "f", "arguments": "{\"x\":1}"},
            {"type": "tool_call_response", "id": "c0", "response": {"ok": true}}]}),
        );
        assert_eq!(
            read,
            json!({"role": "assistant", "content": "a\nb",
                "tool_calls": [{"name": "f", "arguments": {"x": 1}, "tool_id": "c1", "type": "function"}],
                "tool_results": [{"name": "", "result": "{\"ok\":true}", "tool_id": "c0", "type": "tool_result"}],
                "parts": [{"type": "reasoning", "content": "hm"}], "finish_reason": "tool_call"})
        );
    }

    #[test]
    fn open_inference_messages_are_unwrapped() {
        let read = message_of(json!({"message": {"role": "assistant",
            "contents": [{"message_content": {"type": "text", "text": "hi"}}],
            "tool_calls": [{"tool_call": {"id": "c1", "function": {"name": "f", "arguments": "{}"}}}]}}));
        assert_eq!(
            read,
            json!({"role": "assistant", "content": "hi",
                "tool_calls": [{"name": "f", "arguments": {}, "tool_id": "c1", "type": "function"}]})
        );
    }

    #[test]
    fn a_message_with_a_call_id_is_the_result_of_that_call() {
        let read = message_of(json!({"role": "tool", "content": "18C", "tool_call_id": "c1"}));
        assert_eq!(
            read,
            json!({"role": "tool", "content": "18C", "tool_results":
                [{"name": "", "result": "18C", "tool_id": "c1", "type": "tool_result"}]})
        );
    }

    #[test]
    fn one_text_message_is_its_text_and_more_are_kept_whole() {
        let user = json!({"role": "user", "content": "x"});
        assert_eq!(value_of(vec![user.clone()]), json!("x"));
        let all = value_of(vec![user.clone(), user]);
        assert!(all.as_str().unwrap().starts_with("[{\"role\":\"user\""));
    }
}
