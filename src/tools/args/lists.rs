//! Lists and tags as arguments, in each form that models send.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::coerce::{mismatch, to_text};

macro_rules! list_argument {
    ($(#[$doc:meta])* $type:ident, $inner:ty, $($schema:tt)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(crate) struct $type(pub(crate) $inner);

        impl Deref for $type {
            type Target = $inner;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)+)
            }
        }
    };
}

list_argument! {
    /// Ids without duplicates, at least one: an array, its JSON text, or text with commas.
    IdList, Vec<String>, { "type": "array", "items": { "type": "string" } }
}

impl<'de> Deserialize<'de> for IdList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let items: Option<Vec<Value>> = match &value {
            Value::String(text) if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).ok()
            }
            Value::String(text) => Some(text.split(',').map(Value::from).collect()),
            Value::Array(items) => Some(items.clone()),
            Value::Number(_) => Some(vec![value.clone()]),
            _ => None,
        };
        let ids: Option<Vec<String>> = items.and_then(|items| items.iter().map(to_text).collect());
        let example = "[\"17\", \"42\"]";
        let mut ids =
            ids.ok_or_else(|| D::Error::custom(mismatch("a list of ids", example, &value)))?;
        let mut seen = HashSet::new();
        ids.retain(|id| !id.is_empty() && seen.insert(id.clone()));
        if ids.is_empty() {
            return Err(D::Error::custom(format!(
                "the list is empty; expected ids such as {example}"
            )));
        }
        Ok(Self(ids))
    }
}

list_argument! {
    /// Tags: an object, `["key:value"]` (split at the first colon), or `key:value` text.
    Tags, Vec<(String, String)>,
    { "type": "object", "additionalProperties": { "type": "string" } }
}

impl Tags {
    /// Each tag as `key:value`.
    pub(crate) fn texts(&self) -> Vec<String> {
        let tags = self.0.iter();
        tags.map(|(key, value)| format!("{key}:{value}")).collect()
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => serde_json::from_str(text)
                .ok()
                .filter(|value: &Value| value.is_object() || value.is_array())
                .unwrap_or_else(|| text.split(',').map(|tag| Value::from(tag.trim())).collect()),
            other => other.clone(),
        };
        let tags: Option<Vec<(String, String)>> = match &parsed {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Some((key.clone(), to_text(value)?)))
                .collect(),
            Value::Array(items) => items
                .iter()
                .map(|item| {
                    let (key, value) = item.as_str()?.split_once(':')?;
                    (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
                })
                .collect(),
            _ => None,
        };
        let example = "{\"env\": \"prod\"}";
        tags.map(Self)
            .ok_or_else(|| D::Error::custom(mismatch("an object of tags", example, &value)))
    }
}

list_argument! {
    /// Objects, at least one: an array, its JSON text, or a single object.
    ObjectList, Vec<Map<String, Value>>, { "type": "array", "items": { "type": "object" } }
}

impl<'de> Deserialize<'de> for ObjectList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        let objects: Vec<Map<String, Value>> = match parsed {
            Value::Object(object) => vec![object],
            list => serde_json::from_value(list).unwrap_or_default(),
        };
        if objects.is_empty() {
            let example = "[{\"input\": {\"question\": \"…\"}}]";
            return Err(D::Error::custom(mismatch(
                "a list of objects",
                example,
                &value,
            )));
        }
        Ok(Self(objects))
    }
}
