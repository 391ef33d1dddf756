//! JSON objects of answers, written key by key, and the numbers and texts in them.

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::render::cut_end;

/// Characters of an input or output that a list shows.
const MAX_PREVIEW: usize = 200;

/// A JSON object. Its keys keep the order in which they were set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct JsonObject(pub(super) Map<String, Value>);

impl JsonObject {
    /// Sets a key, whatever the value is.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a key unless the value is `null`, empty or zero.
    pub(super) fn set_unless_empty(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(_) => false,
        };
        if !empty {
            self.set(key, value);
        }
        self
    }

    /// Sets a key if there is a value, even an empty one.
    pub(super) fn set_some<V: Into<Value>>(&mut self, key: &str, value: Option<V>) -> &mut Self {
        if let Some(value) = value {
            self.set(key, value);
        }
        self
    }
}

impl From<JsonObject> for Value {
    fn from(object: JsonObject) -> Self {
        Self::Object(object.0)
    }
}

/// A number as JSON; a whole number has no decimal point, a number that is not finite is `null`.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Value::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

/// A statistic as JSON: ten significant digits, `null` if there is none or it is not finite.
pub(super) fn statistic(value: impl Into<Option<f64>>) -> Value {
    match value.into().filter(|value| value.is_finite()) {
        None => Value::Null,
        Some(value) => number(format!("{value:.9e}").parse().unwrap_or(value)),
    }
}

/// The start of a value, as one text.
pub(super) fn preview(value: &Value) -> String {
    match value {
        Value::String(text) => cut_end(text, MAX_PREVIEW),
        other => cut_end(&other.to_string(), MAX_PREVIEW),
    }
}

/// The start of a text.
pub(super) fn text_preview(text: &str) -> String {
    cut_end(text, MAX_PREVIEW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statistics_are_short_and_finite() {
        assert_eq!(statistic(2.0 / 7.0).to_string(), "0.2857142857");
        assert_eq!(statistic(3.0).to_string(), "3");
        assert_eq!(statistic(f64::NAN), Value::Null);
        assert_eq!(statistic(None), Value::Null);
        assert_eq!(statistic(-1.5e-12).to_string(), "-1.5e-12");
        assert_eq!(statistic(1e300), json!(1e300));
    }

    #[test]
    fn empty_values_are_left_out_and_false_is_kept() {
        let mut object = JsonObject::default();
        for (key, value) in [
            ("a", json!(null)),
            ("b", json!([])),
            ("c", json!(0)),
            ("d", json!("")),
        ] {
            object.set_unless_empty(key, value);
        }
        object.set_unless_empty("e", false);
        assert_eq!(Value::from(object), json!({"e": false}));
    }
}
