//! Taking known keys out of an object, so that what is left is what has no field of its own.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Most notes about one object; a hostile one would fill the store with them.
const MAX_PROBLEMS: usize = 32;

/// The keys of an object that nobody has taken yet, and notes on those that could not be mapped.
pub(super) struct Fields {
    map: Map<String, Value>,
    path: &'static str,
    problems: Vec<String>,
}

impl Fields {
    /// `path` stands before a key in notes, for example `meta.`.
    pub(super) fn new(map: Map<String, Value>, path: &'static str) -> Self {
        Self {
            map,
            path,
            problems: Vec::new(),
        }
    }

    /// Looks at a key and leaves it.
    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// Takes a key; null counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Takes a key if its value has the form wanted; otherwise it stays where it is and is noted.
    pub(super) fn take_if(&mut self, key: &str, wanted: fn(&Value) -> bool) -> Option<Value> {
        match self.map.get(key) {
            Some(value) if !value.is_null() && !wanted(value) => {
                self.note_unmapped(key);
                None
            }
            _ => self.take(key),
        }
    }

    /// Takes a key as text. A whole number is its digits; anything else stays and is noted.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take_if(key, is_id_text)? {
            Value::String(text) => Some(text),
            number => Some(number.to_string()),
        }
    }

    /// Takes a key as a list; anything else stays and is noted.
    pub(super) fn list(&mut self, key: &str) -> Option<Vec<Value>> {
        match self.take_if(key, Value::is_array) {
            Some(Value::Array(items)) => Some(items),
            _ => None,
        }
    }

    /// Puts a value back under its key, and notes that it could not be mapped.
    pub(super) fn unmapped(&mut self, key: &str, value: Value) {
        self.note_unmapped(key);
        self.put_back(key, value);
    }

    fn note_unmapped(&mut self, key: &str) {
        self.problem(&format!("unmapped_{}{key}", self.path));
    }

    /// Puts a value back under its key.
    pub(super) fn put_back(&mut self, key: &str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Puts back what is left of an object that was taken apart.
    pub(super) fn keep_rest(&mut self, key: &str, inner: Fields) {
        let (rest, problems) = inner.rest();
        for problem in problems {
            self.problem(&problem);
        }
        if !rest.is_empty() {
            self.put_back(key, Value::Object(rest));
        }
    }

    /// Adds a note.
    pub(super) fn problem(&mut self, note: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(note.to_owned());
        }
    }

    /// All that nobody has taken yet.
    pub(super) fn map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.map
    }

    /// What is left, and the notes.
    pub(super) fn rest(self) -> (Map<String, Value>, Vec<String>) {
        (self.map, self.problems)
    }
}

/// An id or other short text: text as it is, a whole number as its digits.
pub(super) fn id_text(value: &Value) -> Option<String> {
    is_id_text(value).then(|| text_of(value).into_owned())
}

fn is_id_text(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Number(number) => !number.is_f64(),
        _ => false,
    }
}

/// Any value as text: text as it is, the rest as JSON.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The type of a JSON value in words for an error.
pub(super) fn kind_of_json(value: &Value) -> &'static str {
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
