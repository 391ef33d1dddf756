//! Parses only those parts of a JSON text that can report a failure.
//!
//! A trace may hold thousands of long tool outputs, but only a few keys report failures. The parser
//! skips all other values without storing them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::keys::{DATA_ENVELOPE_KEYS, ENVELOPE_KEYS, FAILURE_KEYS};

/// The relevant parts of a text that holds a JSON object or array; `None` for any other text.
/// Objects keep the relevant keys, arrays their first element.
pub(super) fn skim(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['{', '[']) {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(trimmed);
    let value = SkimVisitor.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// Reads the relevant parts of a value.
struct SkimVisitor;

impl<'de> DeserializeSeed<'de> for SkimVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SkimVisitor {
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let first = elements.next_element_seed(SkimVisitor)?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(first.into_iter().collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = entries.next_key_seed(RelevantKeyVisitor)? {
            match key {
                Some(RelevantKey::Envelope(key)) => {
                    kept.insert(key.to_owned(), entries.next_value_seed(SkimVisitor)?);
                }
                Some(RelevantKey::Failure(key)) => {
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

/// A key whose value is kept.
enum RelevantKey {
    /// Its value may report a failure.
    Failure(&'static str),
    /// Its value is skimmed, too.
    Envelope(&'static str),
}

/// Reads a relevant key; `None` for any other key.
struct RelevantKeyVisitor;

impl<'de> DeserializeSeed<'de> for RelevantKeyVisitor {
    type Value = Option<RelevantKey>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Option<RelevantKey>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for RelevantKeyVisitor {
    type Value = Option<RelevantKey>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<RelevantKey>, E> {
        let find = |keys: &'static [&'static str]| keys.iter().copied().find(|known| *known == key);
        Ok(find(&ENVELOPE_KEYS)
            .or_else(|| find(&DATA_ENVELOPE_KEYS))
            .map(RelevantKey::Envelope)
            .or_else(|| find(FAILURE_KEYS).map(RelevantKey::Failure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_relevant_keys_only() {
        let text = r#" {"rows": [{"error": 1}], "isError": false, "result": {"a": 1, "status": 502},
            "error": {"code": 7, "\u0061": []}, "errors": [{"m": 1}, 2], "status": 1e2} "#;
        let kept = skim(text).unwrap();
        assert_eq!(
            kept,
            json!({"isError": false, "result": {"status": 502}, "error": {"code": 7, "a": []},
                "errors": [{"m": 1}, 2], "status": 100.0})
        );
        assert_eq!(
            skim(r#"[{"text": "x", "type": "t"}, 1]"#),
            Some(json!([{"text": "x"}]))
        );
    }

    #[test]
    fn rejects_texts_without_json_object_or_array() {
        for text in ["plain", "[not json", "{\"a\": 1} and more", "5", ""] {
            assert_eq!(skim(text), None, "{text}");
        }
    }
}
