//! The attributes and events of one span while they are mapped.
//!
//! Mapping removes what it reads. The rest becomes tags, and values that a tag cannot hold are
//! stored under `extra.otel`.

use serde_json::{Map, Value};

use super::decoded::OtelEvent;
use super::messages::parse_nested_json;
use crate::intake::fields::Fields;
use crate::intake::json_value::to_text;

/// Prefix of collection errors about attributes.
const WARNING_PREFIX: &str = "otel_warning_";

/// The attributes and events that no field of the span holds yet.
pub(super) struct AttributeReader {
    pub(super) fields: Fields,
    pub(super) events: Vec<OtelEvent>,
    /// Attributes stored in full beside the tags.
    pub(super) stored: Map<String, Value>,
}

impl AttributeReader {
    pub(super) fn new(attributes: Map<String, Value>, events: Vec<OtelEvent>) -> Self {
        Self {
            fields: Fields::new(attributes, ""),
            events,
            stored: Map::new(),
        }
    }

    /// Removes an attribute as text. A list or an object stays and is reported.
    pub(super) fn remove_text(&mut self, key: &str) -> Option<String> {
        match self.fields.remove(key)? {
            value @ (Value::Array(_) | Value::Object(_)) => {
                self.insert_unmapped(key, value);
                None
            }
            value => Some(to_text(&value).into_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// Removes the first of several attributes that is present.
    pub(super) fn remove_first_text(&mut self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.remove_text(key))
    }

    /// Removes an attribute that is JSON or JSON text.
    pub(super) fn remove_json(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).map(parse_nested_json)
    }

    /// Removes an attribute that is an object or the JSON text of one.
    pub(super) fn remove_object(&mut self, key: &str) -> Map<String, Value> {
        match self.remove_json(key) {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                self.insert_unmapped(key, other);
                Map::new()
            }
        }
    }

    /// Inserts an attribute again and reports that it could not be mapped.
    pub(super) fn insert_unmapped(&mut self, key: &str, value: Value) {
        self.warn(&format!("unmapped_{}", key.replace('.', "_")));
        self.fields.insert(key, value);
    }

    /// Reports a collection error.
    pub(super) fn warn(&mut self, what: &str) {
        self.fields.report(&format!("{WARNING_PREFIX}{what}"));
    }

    /// Stores an attribute in full, without a tag.
    pub(super) fn store(&mut self, key: &str, value: Value) {
        self.stored.insert(key.to_owned(), value);
    }
}
