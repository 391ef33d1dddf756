//! Reads the input or output of a span, from any dialect.

use serde_json::{Map, Value};

use llmobs_core::model::{Io, Message};

/// Keys by which an object is a wrapper around content and not the content.
const WRAPPER_KEYS: [&str; 6] = [
    "value",
    "messages",
    "documents",
    "prompt",
    "embedding",
    "parameters",
];

/// Reads an input or output. With `raw` the value has no wrapper, as in experiments.
///
/// Calls `report` with each key that could not be mapped. Such keys are stored under `extra`.
pub(super) fn io_of(value: Value, raw: bool, mut report: impl FnMut(&str)) -> Io {
    let map = match value {
        Value::Object(map) if is_wrapper(&map, raw) => map,
        other => {
            return Io {
                value: Some(other),
                ..Io::default()
            };
        }
    };
    let mut io = Io::default();
    for (key, value) in map {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("value", value) => io.value = Some(value),
            ("prompt", value) => io.prompt = Some(value),
            ("messages", Value::Array(messages)) => {
                io.messages = messages.into_iter().map(Message).collect();
            }
            ("documents", Value::Array(documents)) => io.documents = documents,
            (_, value) => {
                if matches!(key.as_str(), "messages" | "documents") {
                    report(&key);
                }
                io.extra.insert(key, value);
            }
        }
    }
    io
}

fn is_wrapper(map: &Map<String, Value>, raw: bool) -> bool {
    if map.is_empty() {
        // The JS SDK writes `{}` for no content; an experiment writes it for a failed task.
        return true;
    }
    if raw {
        return map.len() == 1 && map.contains_key("value");
    }
    map.keys().any(|key| WRAPPER_KEYS.contains(&key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value, raw: bool) -> (Io, Vec<String>) {
        let mut reported = Vec::new();
        let io = io_of(value, raw, |key| reported.push(key.to_owned()));
        (io, reported)
    }

    #[test]
    fn object_without_wrapper_key_is_the_value() {
        let (io, _) = read(json!({"question": "Capital of France?"}), false);
        assert_eq!(io.value, Some(json!({"question": "Capital of France?"})));
        let (io, _) = read(json!({"value": "x", "n": 1}), true);
        assert_eq!(io.value, Some(json!({"value": "x", "n": 1})));
        let (io, _) = read(json!("Paris"), true);
        assert_eq!(io.value, Some(json!("Paris")));
    }

    #[test]
    fn stores_unknown_keys_and_wrong_types_as_extra() {
        let (io, reported) = read(json!({"messages": "hi", "embedding": [0.5]}), false);
        assert_eq!(
            Value::Object(io.extra),
            json!({"messages": "hi", "embedding": [0.5]})
        );
        assert_eq!(reported, ["messages"]);
    }

    #[test]
    fn empty_wrapper_is_empty() {
        assert!(read(json!({}), false).0.is_empty());
        assert!(read(json!({"value": null}), false).0.is_empty());
    }
}
