//! Attributes whose keys are paths, `llm.input_messages.0.message.role`, as the trees they stand for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Deepest path that is followed; a longer key is not of these conventions.
const MAX_PARTS: usize = 12;

/// Takes the keys that start with `prefix` and an index out of the attributes, as a list ordered
/// by index. Gaps are closed.
pub(super) fn take_list(attributes: &mut Map<String, Value>, prefix: &str) -> Vec<Value> {
    let indexed = |key: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| {
            let mut parts = rest.split('.');
            parts
                .next()
                .is_some_and(|first| first.parse::<u32>().is_ok())
                && parts.count() < MAX_PARTS
        })
    };
    if !attributes.keys().any(|key| indexed(key)) {
        return Vec::new();
    }
    let mut tree = Tree::default();
    for (key, value) in std::mem::take(attributes) {
        let path = key.strip_prefix(prefix).filter(|_| indexed(&key));
        let kept = match path {
            None => Err(value),
            Some(path) => tree.put(&path.split('.').collect::<Vec<_>>(), value),
        };
        if let Err(value) = kept {
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
    branches: BTreeMap<Part, Tree>,
}

/// One part of a path; numbers come in their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Index(u32),
    Key(String),
}

impl Tree {
    /// Gives the value back when a path that another value ends within, or passes, is its own.
    fn put(&mut self, path: &[&str], value: Value) -> Result<(), Value> {
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
        let part = first
            .parse()
            .map_or_else(|_| Part::Key((*first).to_owned()), Part::Index);
        self.branches.entry(part).or_default().put(rest, value)
    }

    /// A list when all parts are numbers.
    fn into_value(self) -> Value {
        if let Some(value) = self.value {
            return value;
        }
        let listed = !self.branches.is_empty()
            && self
                .branches
                .keys()
                .all(|part| matches!(part, Part::Index(_)));
        if listed {
            return Value::Array(self.branches.into_values().map(Tree::into_value).collect());
        }
        let entries = self.branches.into_iter().map(|(part, tree)| {
            let key = match part {
                Part::Key(key) => key,
                Part::Index(index) => index.to_string(),
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
    fn indexed_keys_become_a_list_in_order_and_the_others_stay() {
        let Value::Object(mut attributes) = json!({
            "p.10.role": "tool", "p.2.role": "assistant", "p.2.calls.0.name": "f",
            "p.2.calls.1.name": "g", "p.x": 1, "q.0": 2, "p.2": "clash"})
        else {
            panic!();
        };
        assert_eq!(
            take_list(&mut attributes, "p."),
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
