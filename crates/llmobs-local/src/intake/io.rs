//! One side of a span, input or output, from any dialect.

use serde_json::{Map, Value};

use llmobs_core::model::{Io, Message};

/// The keys by which an object is known to wrap content rather than to be it.
const WRAPPER_KEYS: [&str; 6] = [
    "value",
    "messages",
    "documents",
    "prompt",
    "embedding",
    "parameters",
];

/// Reads one side. `raw` says that the value stands there without a wrapper, as in experiments.
///
/// `problem` is told the key of what could not be mapped; it is kept under `extra`.
pub(super) fn io_of(value: Value, raw: bool, mut problem: impl FnMut(&str)) -> Io {
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
                    problem(&key);
                }
                io.extra.insert(key, value);
            }
        }
    }
    io
}

fn is_wrapper(map: &Map<String, Value>, raw: bool) -> bool {
    if map.is_empty() {
        // The JS SDK writes `{}` for "nothing"; an experiment writes it when a task failed.
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
        let mut problems = Vec::new();
        let io = io_of(value, raw, |key| problems.push(key.to_owned()));
        (io, problems)
    }

    #[test]
    fn an_object_without_a_known_key_is_the_value_itself() {
        let (io, _) = read(json!({"question": "Capital of France?"}), false);
        assert_eq!(io.value, Some(json!({"question": "Capital of France?"})));
        let (io, _) = read(json!({"value": "x", "n": 1}), true);
        assert_eq!(io.value, Some(json!({"value": "x", "n": 1})));
        let (io, _) = read(json!("Paris"), true);
        assert_eq!(io.value, Some(json!("Paris")));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_kept() {
        let (io, problems) = read(json!({"messages": "hi", "embedding": [0.5]}), false);
        assert_eq!(
            Value::Object(io.extra),
            json!({"messages": "hi", "embedding": [0.5]})
        );
        assert_eq!(problems, ["messages"]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(read(json!({}), false).0.is_empty());
        assert!(read(json!({"value": null}), false).0.is_empty());
    }
}
