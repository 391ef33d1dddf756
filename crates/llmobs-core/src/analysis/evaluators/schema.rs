//! The two forms of an output schema: bare, and in the wrapper `{name, strict, schema}`.
//!
//! Datadog's documents disagree on the form that a write requires. Both are accepted and the
//! wrapper is stored.

use serde_json::{Value, json};

/// The names of wrappers, each with the property that contains the result.
pub(super) const SCHEMA_KINDS: [(&str, &str); 4] = [
    ("boolean_eval", "boolean_eval"),
    ("score_eval", "score_eval"),
    ("categorical_eval", "categorical_eval"),
    ("json_eval", "result"),
];

/// Wraps a bare schema. A wrapped schema, or a value that is not a schema, is returned unchanged.
pub fn wrap_schema(schema: &Value) -> Value {
    let Some(map) = schema.as_object() else {
        return schema.clone();
    };
    if map.get("schema").is_some_and(Value::is_object) {
        return schema.clone();
    }
    let Some(properties) = map.get("properties").and_then(Value::as_object) else {
        return schema.clone();
    };
    let name = SCHEMA_KINDS
        .iter()
        .find(|(_, property)| properties.contains_key(*property))
        .map_or("json_eval", |(name, _)| name);
    json!({"name": name, "strict": true, "schema": schema})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_schema_is_named_after_its_property() {
        for (name, property) in SCHEMA_KINDS {
            let bare = json!({"type": "object", "properties": {"reasoning": {}, property: {}}});
            let wrapped = wrap_schema(&bare);
            assert_eq!(wrapped["name"], name);
            assert_eq!(wrapped["schema"], bare);
            assert_eq!(wrap_schema(&wrapped), wrapped);
        }
        assert_eq!(wrap_schema(&json!({"x": 1})), json!({"x": 1}));
    }
}
