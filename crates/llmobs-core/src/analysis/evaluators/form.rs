//! Conversion of an evaluator between its forms: documented, flat and nested.

use serde_json::{Map, Value};

use super::fields::{FIELDS, READ_ONLY, Section};
use super::schema::wrap_schema;
use crate::model::Evaluator;

/// Converts flat fields to the documented attributes.
pub(super) fn attributes_from_flat(flat: &Map<String, Value>) -> Value {
    let (mut top, mut target, mut provider) = (Map::new(), Map::new(), Map::new());
    let (mut judge, mut inference) = (Map::new(), Map::new());
    for field in &FIELDS {
        let Some(value) = flat.get(field.name) else {
            continue;
        };
        let value = match field.name {
            "output_schema" => wrap_schema(value),
            _ => value.clone(),
        };
        let section = match field.section {
            Section::Top => &mut top,
            Section::Target => &mut target,
            Section::Provider => &mut provider,
            Section::Judge => &mut judge,
            Section::Inference => &mut inference,
        };
        section.insert(field.name.to_owned(), value);
    }
    if !inference.is_empty() {
        judge.insert("inference_params".to_owned(), Value::Object(inference));
    }
    for (name, section) in [
        ("target", target),
        ("llm_provider", provider),
        ("llm_judge_config", judge),
    ] {
        top.insert(name.to_owned(), Value::Object(section));
    }
    Value::Object(top)
}

/// The fields of an evaluator that have a value, in flat form, and the attributes without a field.
pub(super) fn flat_fields(evaluator: &Evaluator) -> (Map<String, Value>, Map<String, Value>) {
    let attributes = evaluator.to_attributes();
    let empty = Map::new();
    let object = |value: Option<&Value>| value.and_then(Value::as_object).unwrap_or(&empty).clone();
    let judge = object(attributes.get("llm_judge_config"));
    let sections = [
        ("", Section::Top, attributes.clone()),
        ("target.", Section::Target, object(attributes.get("target"))),
        (
            "llm_provider.",
            Section::Provider,
            object(attributes.get("llm_provider")),
        ),
        (
            "llm_judge_config.inference_params.",
            Section::Inference,
            object(judge.get("inference_params")),
        ),
        ("llm_judge_config.", Section::Judge, judge),
    ];
    let (mut fields, mut other) = (Map::new(), Map::new());
    let section_keys = [
        "target",
        "llm_provider",
        "llm_judge_config",
        "inference_params",
    ];
    for (path, section, map) in sections {
        for (key, value) in map {
            let is_field = FIELDS
                .iter()
                .any(|field| field.section == section && field.name == key);
            if is_field {
                fields.insert(key, value);
            } else if !section_keys.contains(&key.as_str()) && !READ_ONLY.contains(&key.as_str()) {
                other.insert(format!("{path}{key}"), value);
            }
        }
    }
    if let Some(schema) = fields.get_mut("output_schema") {
        *schema = wrap_schema(schema);
    }
    (fields, other)
}

/// The nested form of an evaluator: `target` and `llm_provider` as objects, other fields at the
/// top level. [`read_draft`](super::read_draft) reads it back to the same evaluator.
pub fn nested_form(evaluator: &Evaluator) -> Map<String, Value> {
    let (mut fields, other) = flat_fields(evaluator);
    let (mut target, mut provider) = (Map::new(), Map::new());
    let mut top = Map::new();
    for field in &FIELDS {
        let Some(value) = fields.shift_remove(field.name) else {
            continue;
        };
        let section = match field.section {
            Section::Target => &mut target,
            Section::Provider | Section::Inference => &mut provider,
            Section::Top | Section::Judge => &mut top,
        };
        section.insert(field.name.to_owned(), value);
    }
    let mut form = Map::new();
    for name in ["eval_name", "category"] {
        if let Some(value) = top.shift_remove(name) {
            form.insert(name.to_owned(), value);
        }
    }
    form.insert("target".to_owned(), Value::Object(target));
    form.insert("llm_provider".to_owned(), Value::Object(provider));
    form.extend(top);
    if !other.is_empty() {
        form.insert("other".to_owned(), Value::Object(other));
    }
    for (name, value) in [
        ("created_at", evaluator.created_at.clone().map(Value::from)),
        ("updated_at", evaluator.updated_at.clone().map(Value::from)),
        ("created_by", evaluator.created_by.clone()),
        ("last_updated_by", evaluator.last_updated_by.clone()),
    ] {
        if let Some(value) = value {
            form.insert(name.to_owned(), value);
        }
    }
    form
}

/// Copies the attributes that callers cannot write from the stored configuration to the new one.
/// A write replaces the complete configuration and would otherwise lose them.
pub fn keep_unlisted_fields(mut new: Evaluator, stored: &Evaluator) -> Evaluator {
    let extras = [
        (&mut new.extra, &stored.extra),
        (&mut new.target.extra, &stored.target.extra),
        (&mut new.llm_provider.extra, &stored.llm_provider.extra),
        (
            &mut new.llm_judge_config.extra,
            &stored.llm_judge_config.extra,
        ),
        (
            &mut new.llm_judge_config.inference_params,
            &stored.llm_judge_config.inference_params,
        ),
    ];
    for (attributes, stored_attributes) in extras {
        for (key, value) in stored_attributes {
            let is_field = FIELDS.iter().any(|field| field.name == key);
            if !is_field {
                attributes
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
        }
    }
    new
}

/// Whether two values are equal, with numbers compared by value: 10 equals 10.0.
pub(super) fn values_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| values_equal(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(key, x)| y.get(key).is_some_and(|y| values_equal(x, y)))
        }
        _ => a == b,
    }
}
