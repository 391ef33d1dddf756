//! Conversions of JSON values that all dialects share.

use std::borrow::Cow;

use base64::Engine as _;
use serde_json::{Map, Number, Value};

/// An id or other short text: a string, or an integer as its digits.
pub(super) fn id_to_text(value: &Value) -> Option<String> {
    is_id_text(value).then(|| to_text(value).into_owned())
}

pub(super) fn is_id_text(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Number(number) => !number.is_f64(),
        _ => false,
    }
}

/// A string as it is, any other value as JSON text.
pub(super) fn to_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The type of a JSON value, for error messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction or a number out of range",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A floating-point number. NaN and infinities, which JSON cannot hold, become their names.
pub(super) fn from_float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}

/// Bytes as `{"$base64": …}`.
pub(super) fn from_bytes(bytes: &[u8]) -> Value {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Value::Object(Map::from_iter([("$base64".to_owned(), Value::from(text))]))
}
