//! What a write changes. Datadog replaces the whole configuration, so a field that is left out
//! falls back to its default: that is said apart from what the caller changed on purpose.

use serde_json::{Map, Value, json};

use super::form::{flat, same};
use crate::model::Evaluator;

/// One field before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// The field's flat name.
    pub field: String,
    /// What it held; null for nothing.
    pub from: Value,
    /// What it holds after the write; null for nothing.
    pub to: Value,
}

/// What a write does to a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigurationDiff {
    /// Fields that the caller gave and that differ from what was kept.
    pub changed: Vec<FieldChange>,
    /// Fields that the caller left out and that held something else than their default.
    pub reset: Vec<FieldChange>,
}

fn default_of(field: &str) -> Value {
    match field {
        "eval_scope" => json!("span"),
        "root_spans_only" | "modified_library_prompt_template" => json!(false),
        "sampling_percentage" => json!(100),
        _ => Value::Null,
    }
}

/// The difference between what is kept and what would be written. `given` are the caller's fields.
pub fn diff_configurations(
    kept: &Evaluator,
    new: &Evaluator,
    given: &Map<String, Value>,
) -> ConfigurationDiff {
    let ((old, _), (new, _)) = (flat(kept), flat(new));
    let mut names: Vec<&String> = old.keys().collect();
    names.extend(new.keys().filter(|name| !old.contains_key(*name)));
    let mut changes = ConfigurationDiff::default();
    for name in names {
        let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(default_of(name));
        let (from, to) = (value(&old), value(&new));
        if same(&from, &to) {
            continue;
        }
        let change = FieldChange {
            field: name.clone(),
            from,
            to,
        };
        if given.contains_key(name) {
            changes.changed.push(change);
        } else {
            changes.reset.push(change);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::form::read_draft;
    use super::super::validate::example_fields;
    use super::*;

    #[test]
    fn what_was_left_out_is_told_apart_from_what_was_changed() {
        let mut full = example_fields();
        full.insert("sampling_percentage".into(), json!(10));
        full.insert("filter".into(), json!("@status:ok"));
        full.insert("eval_scope".into(), json!("span"));
        let kept = read_draft(&full).evaluator;
        let mut less = example_fields();
        less.insert("enabled".into(), json!(true));
        less.insert("sampling_percentage".into(), json!(10.0));
        let draft = read_draft(&less);
        let changes = diff_configurations(&kept, &draft.evaluator, &draft.fields);
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
