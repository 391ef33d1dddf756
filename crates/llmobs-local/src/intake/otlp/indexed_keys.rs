//! Attributes whose keys are paths, such as `llm.input_messages.0.message.role`, as JSON trees.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Most segments after the prefix; no convention has longer keys.
const MAX_SEGMENTS: usize = 12;

/// Removes the keys that start with `prefix` and an index, and returns them as a list ordered by
/// index. Missing indexes are skipped.
pub(super) fn remove_list(attributes: &mut Map<String, Value>, prefix: &str) -> Vec<Value> {
    let is_indexed = |key: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| {
            let mut segments = rest.split('.');
            segments
                .next()
                .is_some_and(|first| first.parse::<u32>().is_ok())
                && segments.count() < MAX_SEGMENTS
        })
    };
    if !attributes.keys().any(|key| is_indexed(key)) {
        return Vec::new();
    }
    let mut tree = Tree::default();
    for (key, value) in std::mem::take(attributes) {
        let path = key.strip_prefix(prefix).filter(|_| is_indexed(&key));
        let inserted = match path {
            None => Err(value),
            Some(path) => tree.insert(&path.split('.').collect::<Vec<_>>(), value),
        };
        if let Err(value) = inserted {
            attributes.insert(key, value);
        }
    }
    match tree.into_value() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

#[derive(Default)]
struct Tree {
    value: Option<Value>,
    branches: BTreeMap<Segment, Tree>,
}

/// One segment of a path. Indexes are ordered as numbers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Index(u32),
    Key(String),
}

impl Tree {
    /// Inserts a value. Returns it if the path is taken, or if one path is the beginning of the
    /// other.
    fn insert(&mut self, path: &[&str], value: Value) -> Result<(), Value> {
        let Some((first, rest)) = path.split_first() else {
            if self.value.is_some() || !self.branches.is_empty() {
                return Err(value);
            }
            self.value = Some(value);
            return Ok(());
        };
        if self.value.is_some() {
            return Err(value);
        }
        let segment = first
            .parse()
            .map_or_else(|_| Segment::Key((*first).to_owned()), Segment::Index);
        self.branches
            .entry(segment)
            .or_default()
            .insert(rest, value)
    }

    /// A list if all segments are indexes, otherwise an object.
    fn into_value(self) -> Value {
        if let Some(value) = self.value {
            return value;
        }
        let is_list = !self.branches.is_empty()
            && self
                .branches
                .keys()
                .all(|segment| matches!(segment, Segment::Index(_)));
        if is_list {
            return Value::Array(self.branches.into_values().map(Tree::into_value).collect());
        }
        let entries = self.branches.into_iter().map(|(segment, tree)| {
            let key = match segment {
                Segment::Key(key) => key,
                Segment::Index(index) => index.to_string(),
            };
            (key, tree.into_value())
        });
        Value::Object(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn removes_indexed_keys_as_ordered_list() {
        let Value::Object(mut attributes) = json!({
            "p.10.role": "tool", "p.2.role": "assistant", "p.2.calls.0.name": "f",
            "p.2.calls.1.name": "g", "p.x": 1, "q.0": 2, "p.2": "clash"})
        else {
            panic!();
        };
        assert_eq!(
            remove_list(&mut attributes, "p."),
            [
                json!({"calls": [{"name": "f"}, {"name": "g"}], "role": "assistant"}),
                json!({"role": "tool"})
            ]
        );
        assert_eq!(
            Value::Object(attributes),
            json!({"p.x": 1, "q.0": 2, "p.2": "clash"})
        );
    }
}
