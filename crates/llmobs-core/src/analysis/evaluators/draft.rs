//! Drafts: evaluators as callers write them.
//!
//! A caller can write an evaluator in flat form, as the official tool accepts it, in nested form,
//! as reads return it, or as the documented attributes. All forms have the same fields, so a draft
//! is read to flat fields first and then converted to the documented attributes.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::example::example_value;
use super::fields::{FIELDS, Field, FieldKind, READ_ONLY, REQUIRED, SYNONYMS, Section};
use super::form::{attributes_from_flat, values_equal};
use super::problem::FieldProblem;
use crate::analysis::candidates::closest;
use crate::model::Evaluator;

/// An evaluator as a caller wrote it.
#[derive(Debug, Clone)]
pub struct EvaluatorDraft {
    /// The evaluator; meaningful only if there are no problems.
    pub evaluator: Evaluator,
    /// The fields that the caller wrote, in flat form.
    pub fields: Map<String, Value>,
    /// Fields that are missing, unknown or of the wrong type.
    pub problems: Vec<FieldProblem>,
}

/// Reads an evaluator in any of its forms. [`find_problems`](super::find_problems) also checks
/// that the values are consistent.
pub fn read_draft(arguments: &Map<String, Value>) -> EvaluatorDraft {
    let mut reader = DraftReader::default();
    reader.read_object(arguments, "", &[]);
    let DraftReader {
        mut fields,
        mut problems,
    } = reader;
    for name in REQUIRED {
        let has_problem = problems.iter().any(|problem| problem.field == name);
        if !fields.contains_key(name) && !has_problem {
            problems.push(FieldProblem::new(
                name,
                "is required",
                Some(example_value(name)),
            ));
        }
    }
    let mut ordered = Map::new();
    for field in &FIELDS {
        if let Some(value) = fields.remove(field.name) {
            ordered.insert(field.name.to_owned(), value);
        }
    }
    let evaluator = match Evaluator::from_attributes(attributes_from_flat(&ordered)) {
        Ok(evaluator) => evaluator,
        Err(error) => {
            problems.push(FieldProblem::new("configuration", error.to_string(), None));
            Evaluator::default()
        }
    };
    EvaluatorDraft {
        evaluator,
        fields: ordered,
        problems,
    }
}

#[derive(Default)]
struct DraftReader {
    fields: BTreeMap<&'static str, Value>,
    problems: Vec<FieldProblem>,
}

impl DraftReader {
    /// Reads the keys of an object. `path` is the prefix of keys in messages. `sections` are the
    /// sections whose fields the object may contain; empty at the top level, which may contain
    /// every field.
    fn read_object(&mut self, map: &Map<String, Value>, path: &str, sections: &[Section]) {
        for (key, value) in map {
            if value.is_null() {
                continue;
            }
            if sections.is_empty() && READ_ONLY.contains(&key.as_str()) {
                continue;
            }
            if let Some(inner_sections) = sections_of_object(key, sections) {
                match as_object(value) {
                    Some(inner) => {
                        self.read_object(&inner, &format!("{path}{key}."), inner_sections);
                    }
                    None => self.problems.push(FieldProblem::new(
                        format!("{path}{key}"),
                        "must be an object",
                        None,
                    )),
                }
                continue;
            }
            let field = FIELDS.iter().find(|field| {
                field.name == key && (sections.is_empty() || sections.contains(&field.section))
            });
            match field {
                Some(field) => self.read_field(field, value),
                None => self.report_unknown(path, key, sections),
            }
        }
    }

    fn read_field(&mut self, field: &Field, value: &Value) {
        match coerce(field.kind, value) {
            Ok(None) => {}
            Ok(Some(value)) => {
                if field.name == "integration_provider"
                    && let Some(text) = value.as_str()
                {
                    // The SDK writes underscores, the documented API dashes.
                    self.put(field.name, Value::from(text.replace('_', "-")));
                    return;
                }
                self.put(field.name, value);
            }
            Err(expected) => self.problems.push(FieldProblem::new(
                field.name,
                format!("must be {expected}"),
                Some(example_value(field.name)).filter(|value| !value.is_null()),
            )),
        }
    }

    fn put(&mut self, name: &'static str, value: Value) {
        match self.fields.get(name) {
            Some(other) if !values_equal(other, &value) => self.problems.push(FieldProblem::new(
                name,
                "is set twice with different values; set it once, at the top level",
                Some(value),
            )),
            _ => {
                self.fields.insert(name, value);
            }
        }
    }

    fn report_unknown(&mut self, path: &str, key: &str, sections: &[Section]) {
        let names = FIELDS
            .iter()
            .filter(|field| sections.is_empty() || sections.contains(&field.section))
            .map(|field| field.name);
        let synonym = SYNONYMS
            .iter()
            .find(|(mistake, _)| mistake.eq_ignore_ascii_case(key))
            .map(|(_, name)| *name);
        let reason = match synonym.or_else(|| closest(key, names)) {
            Some(name) => format!("is not a field; did you mean `{name}`?"),
            None => "is not a field".to_owned(),
        };
        self.problems
            .push(FieldProblem::new(format!("{path}{key}"), reason, None));
    }
}

/// The sections whose fields an object may contain; `None` if the key is not an object of
/// sections.
fn sections_of_object(key: &str, outer: &[Section]) -> Option<&'static [Section]> {
    let top = outer.is_empty();
    match key {
        "target" if top => Some(&[Section::Target]),
        "llm_provider" if top => Some(&[Section::Provider, Section::Inference]),
        "llm_judge_config" if top => Some(&[Section::Judge, Section::Inference]),
        "inference_params" if top || outer.contains(&Section::Inference) => {
            Some(&[Section::Inference])
        }
        _ => None,
    }
}

/// An object, also as JSON text.
fn as_object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Converts a value to the type of its field; `Ok(None)` for empty text. The error is the expected
/// type.
fn coerce(kind: FieldKind, value: &Value) -> Result<Option<Value>, &'static str> {
    let text = value.as_str().map(str::trim);
    if text == Some("") {
        return Ok(None);
    }
    let coerced = match kind {
        FieldKind::Text => match value {
            Value::Number(number) => Some(Value::from(number.to_string())),
            _ => text.map(Value::from),
        }
        .ok_or("text")?,
        FieldKind::VerbatimText => text.map(|_| value.clone()).ok_or("text")?,
        FieldKind::Scope => text
            .map(str::to_ascii_lowercase)
            .filter(|scope| ["span", "trace", "session"].contains(&scope.as_str()))
            .map(Value::from)
            .ok_or("span, trace or session")?,
        FieldKind::Flag => match (value, text.map(str::to_ascii_lowercase).as_deref()) {
            (Value::Bool(_), _) => value.clone(),
            (_, Some("true")) => Value::Bool(true),
            (_, Some("false")) => Value::Bool(false),
            _ => return Err("true or false"),
        },
        FieldKind::Number => number(value).ok_or("a number")?,
        FieldKind::Integer => number(value)
            .filter(|number| number.as_u64().is_some())
            .ok_or("a whole number")?,
        FieldKind::Object => as_object(value).map(Value::Object).ok_or("a JSON object")?,
        FieldKind::List => as_list(value).map(Value::Array).ok_or("a list")?,
        FieldKind::TextList => as_list(value)
            .filter(|items| items.iter().all(Value::is_string))
            .map(Value::Array)
            .ok_or("a list of strings")?,
    };
    Ok(Some(coerced))
}

/// A list, also as JSON text.
fn as_list(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// A number, also as text.
fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => {
            let text = text.trim();
            let integer = text.parse::<i64>().ok().map(Number::from);
            integer
                .or_else(|| Number::from_f64(text.parse().ok()?))
                .map(Value::Number)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::example_fields;
    use super::super::form::{keep_unlisted_fields, nested_form};
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_every_form_to_the_same_evaluator() {
        let mut flat = example_fields();
        flat.insert("temperature".into(), json!(0));
        flat.insert("sampling_percentage".into(), json!("10"));
        flat.insert(
            "prompt_template".into(),
            json!(flat["prompt_template"].to_string()),
        );
        let from_flat = read_draft(&flat);
        assert_eq!(from_flat.problems, []);
        assert_eq!(
            from_flat.evaluator.target.sampling_percentage,
            Some(10.into())
        );
        let from_nested = read_draft(&nested_form(&from_flat.evaluator));
        assert_eq!(from_nested.problems, []);
        assert_eq!(from_nested.evaluator, from_flat.evaluator);
        let documented = read_draft(&from_flat.evaluator.to_attributes());
        assert_eq!(documented.problems, []);
        assert_eq!(documented.evaluator, from_flat.evaluator);
    }

    #[test]
    fn suggests_closest_name_for_unknown_field() {
        let mut map = example_fields();
        map.insert("sampling".into(), json!(5));
        map.insert("ml_app".into(), json!("x"));
        map.insert("target".into(), json!({"zzz": 1}));
        let problems = read_draft(&map).problems;
        let words: Vec<String> = problems
            .iter()
            .map(|p| format!("{} {}", p.field, p.reason))
            .collect();
        assert_eq!(
            words,
            [
                "sampling is not a field; did you mean `sampling_percentage`?",
                "ml_app is not a field; did you mean `application_name`?",
                "target.zzz is not a field",
            ]
        );
    }

    #[test]
    fn refuses_field_with_two_values() {
        let mut map = example_fields();
        map.insert(
            "target".into(),
            json!({"enabled": false, "sampling_percentage": 10.0}),
        );
        map.insert("sampling_percentage".into(), json!(10));
        assert_eq!(read_draft(&map).problems, []);
        map.insert("target".into(), json!({"enabled": true}));
        assert_eq!(read_draft(&map).problems[0].field, "enabled");
    }

    #[test]
    fn unlisted_attributes_survive_read_and_write() {
        let mut attributes = Value::Object(read_draft(&example_fields()).evaluator.to_attributes());
        attributes["target"]["brand_new"] = json!(1);
        attributes["llm_judge_config"]["inference_params"] = json!({"effort": "low", "top_k": 3});
        let stored = Evaluator::from_attributes(attributes).unwrap();
        let form = nested_form(&stored);
        assert_eq!(
            form["other"],
            json!({"target.brand_new": 1, "llm_judge_config.inference_params.effort": "low"})
        );
        let draft = read_draft(&form);
        assert_eq!(draft.problems, []);
        assert_eq!(keep_unlisted_fields(draft.evaluator, &stored), stored);
    }
}
