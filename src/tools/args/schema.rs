//! JSON Schemas of arguments, in the subset of 2020-12 that every client understands.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The schema of an arguments struct.
pub(crate) fn schema<A: JsonSchema>() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generated = settings.into_generator().into_root_schema_for::<A>();
    let Value::Object(mut schema) = portable(generated.to_value()) else {
        return Map::new();
    };
    schema.remove("title");
    schema.remove("description");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(
            "telemetry".to_owned(),
            json!({"type": "object", "properties": {"intent": {"type": "string"}}}),
        );
    }
    schema
}

/// Argument schemas by the type of the arguments.
type SchemaCache = HashMap<TypeId, Arc<Map<String, Value>>>;

/// The schema of each argument, without `telemetry`. Generated once per type.
pub(super) fn properties<A: JsonSchema + 'static>() -> Arc<Map<String, Value>> {
    static CACHE: LazyLock<Mutex<SchemaCache>> = LazyLock::new(Mutex::default);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = cache.entry(TypeId::of::<A>()).or_insert_with(|| {
        let properties = match schema::<A>().remove("properties") {
            Some(Value::Object(mut properties)) => {
                properties.shift_remove("telemetry");
                properties
            }
            _ => Map::new(),
        };
        Arc::new(properties)
    });
    Arc::clone(entry)
}

/// Removes what some clients reject or warn about: `null` types and defaults, formats of integers,
/// and `additionalProperties: true`, which is the default.
fn portable(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut result = Map::new();
            for (key, item) in map {
                match (key.as_str(), item) {
                    ("format", Value::String(_))
                    | ("default", Value::Null)
                    | ("additionalProperties", Value::Bool(true)) => {}
                    ("type", Value::Array(types)) => {
                        result.insert(key, without_null_type(types));
                    }
                    ("anyOf", Value::Array(options)) => {
                        let mut options: Vec<Value> = options
                            .into_iter()
                            .filter(|option| option["type"] != "null")
                            .map(portable)
                            .collect();
                        match (options.len(), options.pop()) {
                            (1, Some(Value::Object(only))) => result.extend(only),
                            (_, last) => {
                                options.extend(last);
                                result.insert(key, Value::Array(options));
                            }
                        }
                    }
                    (_, item) => {
                        result.insert(key, portable(item));
                    }
                }
            }
            Value::Object(result)
        }
        Value::Array(items) => items.into_iter().map(portable).collect(),
        other => other,
    }
}

/// The type, or the array of types if several remain.
fn without_null_type(mut types: Vec<Value>) -> Value {
    types.retain(|name| name != "null");
    match (types.len(), types.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            types.extend(last);
            Value::Array(types)
        }
    }
}
