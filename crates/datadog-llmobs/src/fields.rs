//! Lenient reading of JSON object fields.
//!
//! Upstreams write the same field as a number or as text, and leave fields out or set them to `null`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A scalar as text. Numbers keep all their digits.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number, written as a number or as text. Fractions are truncated.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    match value {
        // The cast of a float saturates.
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(text) => {
            let text = text.trim();
            text.parse()
                .ok()
                .or_else(|| text.parse::<f64>().ok().map(|float| float as i64))
        }
        _ => None,
    }
}

/// Removes a scalar field and returns it as text.
pub(crate) fn remove_text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    map.remove(key).as_ref().and_then(scalar_text)
}

/// Removes a scalar field and returns it as text, unless it is empty.
pub(crate) fn remove_nonempty_text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    remove_text(map, key).filter(|text| !text.is_empty())
}

/// Removes a field with a whole number.
pub(crate) fn remove_integer(map: &mut Map<String, Value>, key: &str) -> Option<i64> {
    map.remove(key).as_ref().and_then(integer)
}

/// Removes a field with an object; any other value counts as empty.
pub(crate) fn remove_map(map: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match map.remove(key) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    }
}

/// The scalars of an array as text.
pub(crate) fn text_list(value: Option<Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items
            .into_iter()
            .filter_map(|item| match item {
                Value::String(text) => Some(text),
                other => scalar_text(&other),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Tags: a list of `key:value`, or an object.
pub(crate) fn tags(value: Option<Value>) -> Vec<String> {
    match value {
        Some(Value::Object(map)) => map
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}:{}", scalar_text(&value)?)))
            .collect(),
        other => text_list(other),
    }
}

/// Metrics: the finite numbers of an object.
pub(crate) fn metrics(map: Map<String, Value>) -> BTreeMap<String, f64> {
    map.into_iter()
        .filter_map(|(name, value)| {
            let number = match &value {
                Value::Number(number) => number.as_f64(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            Some((name, number.filter(|number| number.is_finite())?))
        })
        .collect()
}

/// The nanoseconds of a start time. Values of 13 digits are milliseconds, as in the example of
/// Datadog's documentation.
pub(crate) fn start_nanoseconds(value: i64) -> i64 {
    if (1_000_000_000_000..10_000_000_000_000).contains(&value) {
        value.saturating_mul(1_000_000)
    } else {
        value
    }
}
