//! Reads of a JSON text only what can tell a failure.
//!
//! Outputs of tools are long and there are thousands of them, but whether one says that it failed
//! stands in a few keys: everything else is skipped without being kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::judge::{DATA_ENVELOPES, ENVELOPES, TELLING_KEYS};

/// What tells of a text that holds a JSON object or array; `None` if it holds something else.
/// Objects keep the keys that are judged, arrays their first member.
pub(super) fn sketch(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['{', '[']) {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(trimmed);
    let value = Sketch.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// Reads a value as a sketch.
struct Sketch;

impl<'de> DeserializeSeed<'de> for Sketch {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sketch {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let first = members.next_element_seed(Sketch)?;
        while members.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(first.into_iter().collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = entries.next_key_seed(KeyOfUse)? {
            match key {
                Some(Use::Envelope(key)) => {
                    kept.insert(key.to_owned(), entries.next_value_seed(Sketch)?);
                }
                Some(Use::Telling(key)) => {
                    kept.insert(key.to_owned(), entries.next_value()?);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(kept))
    }
}

/// What a key is good for.
enum Use {
    /// Its value may be a failure.
    Telling(&'static str),
    /// Its value is judged in its turn.
    Envelope(&'static str),
}

/// Reads a key of use; `None` for any other.
struct KeyOfUse;

impl<'de> DeserializeSeed<'de> for KeyOfUse {
    type Value = Option<Use>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Use>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeyOfUse {
    type Value = Option<Use>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<Use>, E> {
        let of = |keys: &'static [&'static str]| keys.iter().copied().find(|known| *known == key);
        Ok(of(&ENVELOPES)
            .or_else(|| of(&DATA_ENVELOPES))
            .map(Use::Envelope)
            .or_else(|| of(TELLING_KEYS).map(Use::Telling)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_judged_is_kept() {
        let text = r#" {"rows": [{"error": 1}], "isError": false, "result": {"a": 1, "status": 502},
            "error": {"code": 7, "\u0061": []}, "errors": [{"m": 1}, 2], "status": 1e2} "#;
        let kept = sketch(text).unwrap();
        assert_eq!(
            kept,
            json!({"isError": false, "result": {"status": 502}, "error": {"code": 7, "a": []},
                "errors": [{"m": 1}, 2], "status": 100.0})
        );
        assert_eq!(
            sketch(r#"[{"text": "x", "type": "t"}, 1]"#),
            Some(json!([{"text": "x"}]))
        );
    }

    #[test]
    fn what_is_not_json_is_not_sketched() {
        for text in ["plain", "[not json", "{\"a\": 1} and more", "5", ""] {
            assert_eq!(sketch(text), None, "{text}");
        }
    }
}
