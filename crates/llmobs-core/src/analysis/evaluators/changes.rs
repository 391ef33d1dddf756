//! The difference between two configurations of an evaluator.
//!
//! A write replaces the complete configuration, so an omitted field is reset to its default. Such
//! fields are listed separately from those that the caller changed.

use serde_json::{Map, Value, json};

use super::form::{flat_fields, values_equal};
use crate::model::Evaluator;

/// The change of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Name of the field.
    pub field: String,
    /// The value before the write; null if absent.
    pub from: Value,
    /// The value after the write; null if absent.
    pub to: Value,
}

/// The changes of a write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigurationDiff {
    /// Fields that the caller wrote with a new value.
    pub changed: Vec<FieldChange>,
    /// Fields that the caller omitted and that lose a value other than their default.
    pub reset: Vec<FieldChange>,
}

fn default_value(field: &str) -> Value {
    match field {
        "eval_scope" => json!("span"),
        "root_spans_only" | "modified_library_prompt_template" => json!(false),
        "sampling_percentage" => json!(100),
        _ => Value::Null,
    }
}

/// Compares the stored configuration with the new one. `caller_fields` are the fields that the
/// caller wrote.
pub fn diff_configurations(
    stored: &Evaluator,
    new: &Evaluator,
    caller_fields: &Map<String, Value>,
) -> ConfigurationDiff {
    let ((old, _), (new, _)) = (flat_fields(stored), flat_fields(new));
    let mut names: Vec<&String> = old.keys().collect();
    names.extend(new.keys().filter(|name| !old.contains_key(*name)));
    let mut changes = ConfigurationDiff::default();
    for name in names {
        let value =
            |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(default_value(name));
        let (from, to) = (value(&old), value(&new));
        if values_equal(&from, &to) {
            continue;
        }
        let change = FieldChange {
            field: name.clone(),
            from,
            to,
        };
        if caller_fields.contains_key(name) {
            changes.changed.push(change);
        } else {
            changes.reset.push(change);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::draft::read_draft;
    use super::super::example::example_fields;
    use super::*;

    #[test]
    fn lists_omitted_fields_as_reset() {
        let mut full = example_fields();
        full.insert("sampling_percentage".into(), json!(10));
        full.insert("filter".into(), json!("@status:ok"));
        full.insert("eval_scope".into(), json!("span"));
        let stored = read_draft(&full).evaluator;
        let mut partial = example_fields();
        partial.insert("enabled".into(), json!(true));
        partial.insert("sampling_percentage".into(), json!(10.0));
        let draft = read_draft(&partial);
        let changes = diff_configurations(&stored, &draft.evaluator, &draft.fields);
        let change = |field: &str, from, to| FieldChange {
            field: field.into(),
            from,
            to,
        };
        assert_eq!(
            changes.changed,
            [change("enabled", json!(false), json!(true))]
        );
        assert_eq!(
            changes.reset,
            [change("filter", json!("@status:ok"), Value::Null)]
        );
    }
}
