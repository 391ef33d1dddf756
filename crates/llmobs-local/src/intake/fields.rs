//! The keys of a JSON object while it is mapped.
//!
//! Mapping removes the keys that it reads. The remaining keys have no field of their own and are
//! stored as they came.

use serde_json::{Map, Value};

use super::json_value::is_id_text;

/// Most collection errors per object; otherwise a hostile object could fill the store with them.
const MAX_ERRORS: usize = 32;

/// The remaining keys of an object, and collection errors about keys that could not be mapped.
pub(super) struct Fields {
    map: Map<String, Value>,
    path: &'static str,
    errors: Vec<String>,
}

impl Fields {
    /// `path` precedes a key in collection errors, for example `meta.`.
    pub(super) fn new(map: Map<String, Value>, path: &'static str) -> Self {
        Self {
            map,
            path,
            errors: Vec::new(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// Removes a key; null counts as absent.
    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Removes a key if its value has the expected form. Otherwise it stays and is reported.
    pub(super) fn remove_if(&mut self, key: &str, expected: fn(&Value) -> bool) -> Option<Value> {
        match self.map.get(key) {
            Some(value) if !value.is_null() && !expected(value) => {
                self.report_unmapped(key);
                None
            }
            _ => self.remove(key),
        }
    }

    /// Removes a key as text; an integer becomes its digits. Any other value stays and is reported.
    pub(super) fn remove_text(&mut self, key: &str) -> Option<String> {
        match self.remove_if(key, is_id_text)? {
            Value::String(text) => Some(text),
            number => Some(number.to_string()),
        }
    }

    /// Removes a key as a list. Any other value stays and is reported.
    pub(super) fn remove_list(&mut self, key: &str) -> Option<Vec<Value>> {
        match self.remove_if(key, Value::is_array) {
            Some(Value::Array(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, key: &str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Inserts a value again and reports that it could not be mapped.
    pub(super) fn insert_unmapped(&mut self, key: &str, value: Value) {
        self.report_unmapped(key);
        self.insert(key, value);
    }

    /// Inserts the remaining keys of a nested object again.
    pub(super) fn insert_rest(&mut self, key: &str, inner: Fields) {
        let (rest, errors) = inner.into_parts();
        for error in errors {
            self.report(&error);
        }
        if !rest.is_empty() {
            self.insert(key, Value::Object(rest));
        }
    }

    fn report_unmapped(&mut self, key: &str) {
        self.report(&format!("unmapped_{}{key}", self.path));
    }

    /// Adds a collection error.
    pub(super) fn report(&mut self, error: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error.to_owned());
        }
    }

    /// The remaining keys.
    pub(super) fn map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.map
    }

    /// The remaining keys and the collection errors.
    pub(super) fn into_parts(self) -> (Map<String, Value>, Vec<String>) {
        (self.map, self.errors)
    }
}
