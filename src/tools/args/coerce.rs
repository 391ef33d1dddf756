//! Converts arguments to the types that the schema names.
//!
//! Models write numbers and booleans as text, ids as numbers, and objects as JSON text. With this
//! conversion the arguments of a tool are plain Rust types. Arrays and tags have their own types in
//! [`super::lists`].

use serde_json::{Map, Value};

use crate::render::candidate;

/// A value that cannot be converted to the type of its argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeMismatch {
    /// The name of the argument.
    pub(super) argument: String,
    /// The expected type with an example, and the value received.
    pub(super) reason: String,
}

/// Converts each argument to the type that `properties` names for it.
pub(super) fn coerce(
    arguments: &mut Map<String, Value>,
    properties: &Map<String, Value>,
) -> Result<(), TypeMismatch> {
    for (argument, value) in arguments {
        let Some(property) = properties.get(argument) else {
            continue;
        };
        let kind = property.get("type").and_then(Value::as_str);
        let (converted, expected, example) = match kind {
            Some("string") if argument == "from" || argument == "to" => (
                text(value),
                "a time",
                "\"now-7d\", \"2026-07-01T10:00:00Z\" or 1784000000000",
            ),
            Some("string") => (text(value), "text", "\"abc\""),
            Some("integer") => (whole_number(value), "a whole number", "20"),
            Some("boolean") => (boolean(value), "true or false", "true"),
            Some("object") if property.get("additionalProperties").is_none() => {
                (object(value), "an object", "{\"model\": \"gpt-5\"}")
            }
            _ => continue,
        };
        *value = converted.ok_or_else(|| TypeMismatch {
            argument: argument.clone(),
            reason: mismatch(expected, example, value),
        })?;
    }
    Ok(())
}

/// What was expected, an example, and what was received.
pub(super) fn mismatch(expected: &str, example: &str, received: &Value) -> String {
    let received = match received {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => received.to_string(),
        Value::String(text) if text.chars().count() <= 40 => format!("\"{}\"", candidate(text)),
        Value::String(_) => "other text".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("expected {expected} such as {example}, got {received}")
}

/// A string, number or boolean as text without surrounding blanks.
pub(super) fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<Value> {
    to_text(value).map(Value::from)
}

fn whole_number(value: &Value) -> Option<Value> {
    let number: u64 = match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?))?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    usize::try_from(number).ok().map(Value::from)
}

/// A float without a fraction: `20.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9e15).contains(&number)).then_some(number as u64)
}

fn boolean(value: &Value) -> Option<Value> {
    match to_text(value)?.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true.into()),
        "false" | "0" | "no" => Some(false.into()),
        _ => None,
    }
}

fn object(value: &Value) -> Option<Value> {
    let value = match value {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    value.is_object().then_some(value)
}
