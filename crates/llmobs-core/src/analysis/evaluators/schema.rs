//! The two spellings of an output schema. Datadog's own documents disagree on which of them a
//! write wants, so both are taken and the wrapper `{name, strict, schema}` is what is kept.

use serde_json::{Value, json};

/// The wrapper names, each with the property that holds the verdict.
pub(super) const KINDS: [(&str, &str); 4] = [
    ("boolean_eval", "boolean_eval"),
    ("score_eval", "score_eval"),
    ("categorical_eval", "categorical_eval"),
    ("json_eval", "result"),
];

/// A schema with its wrapper; one that has it, or that is no schema at all, stays as it is.
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
    let name = KINDS
        .iter()
        .find(|(_, property)| properties.contains_key(*property))
        .map_or("json_eval", |(name, _)| name);
    json!({"name": name, "strict": true, "schema": schema})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_schema_gets_the_name_of_its_property() {
        for (name, property) in KINDS {
            let bare = json!({"type": "object", "properties": {"reasoning": {}, property: {}}});
            let whole = wrap_schema(&bare);
            assert_eq!(whole["name"], name);
            assert_eq!(whole["schema"], bare);
            assert_eq!(wrap_schema(&whole), whole);
        }
        assert_eq!(wrap_schema(&json!({"x": 1})), json!({"x": 1}));
    }
}
