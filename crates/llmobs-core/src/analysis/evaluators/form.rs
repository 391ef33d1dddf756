//! The forms in which an evaluator is written by a caller: flat, as the official tool takes it;
//! nested, as `get` shows it; and the documented one. All three name the same fields, so they are
//! read into one flat table first, and from there into the documented attributes.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::FieldProblem;
use super::schema::wrap_schema;
use super::validate::example_value;
use crate::analysis::candidates::closest;
use crate::model::Evaluator;

/// Where a field stands in the documented attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Top,
    Target,
    Provider,
    Judge,
    Inference,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// Text that is taken letter by letter, blanks included.
    Verbatim,
    Scope,
    Flag,
    Number,
    Whole,
    Object,
    List,
    Texts,
}

/// One field that a caller may write.
struct Field {
    name: &'static str,
    section: Section,
    kind: Kind,
}

const fn field(name: &'static str, section: Section, kind: Kind) -> Field {
    Field {
        name,
        section,
        kind,
    }
}

/// Every field, in the order in which answers show them.
const FIELDS: [Field; 29] = [
    field("eval_name", Section::Top, Kind::Text),
    field("category", Section::Top, Kind::Text),
    field("application_name", Section::Target, Kind::Text),
    field("enabled", Section::Target, Kind::Flag),
    field("eval_scope", Section::Target, Kind::Scope),
    field("filter", Section::Target, Kind::Verbatim),
    field("root_spans_only", Section::Target, Kind::Flag),
    field("sampling_percentage", Section::Target, Kind::Number),
    field("experiment_project_ids", Section::Target, Kind::Texts),
    field("integration_provider", Section::Provider, Kind::Text),
    field("integration_account_id", Section::Provider, Kind::Text),
    field("model_name", Section::Provider, Kind::Text),
    field("bedrock", Section::Provider, Kind::Object),
    field("vertex_ai", Section::Provider, Kind::Object),
    field("temperature", Section::Inference, Kind::Number),
    field("max_tokens", Section::Inference, Kind::Whole),
    field("top_p", Section::Inference, Kind::Number),
    field("top_k", Section::Inference, Kind::Whole),
    field("frequency_penalty", Section::Inference, Kind::Number),
    field("presence_penalty", Section::Inference, Kind::Number),
    field("prompt_template", Section::Judge, Kind::List),
    field("parsing_type", Section::Judge, Kind::Text),
    field("output_schema", Section::Judge, Kind::Object),
    field("assessment_criteria", Section::Judge, Kind::Object),
    field("context_query", Section::Judge, Kind::Verbatim),
    field("target_query", Section::Judge, Kind::Verbatim),
    field(
        "user_specified_json_post_processing_function",
        Section::Judge,
        Kind::Verbatim,
    ),
    field(
        "last_used_library_prompt_template_name",
        Section::Judge,
        Kind::Verbatim,
    ),
    field(
        "modified_library_prompt_template",
        Section::Judge,
        Kind::Flag,
    ),
];

/// Keys that `get` and `list` show and a write passes over.
const READ_ONLY: [&str; 11] = [
    "id",
    "created_at",
    "updated_at",
    "created_by",
    "last_updated_by",
    "type",
    "source",
    "notes",
    "other",
    "discard_draft_id",
    "status",
];

/// What must be given.
const REQUIRED: [&str; 8] = [
    "eval_name",
    "application_name",
    "enabled",
    "integration_provider",
    "model_name",
    "prompt_template",
    "parsing_type",
    "output_schema",
];

/// What callers write instead of a field's name.
const SYNONYMS: [(&str, &str); 11] = [
    ("ml_app", "application_name"),
    ("name", "eval_name"),
    ("evaluator_name", "eval_name"),
    ("model", "model_name"),
    ("provider", "integration_provider"),
    ("prompt", "prompt_template"),
    ("schema", "output_schema"),
    ("criteria", "assessment_criteria"),
    ("query", "filter"),
    ("sampling", "sampling_percentage"),
    ("sampling_rate", "sampling_percentage"),
];

/// An evaluator as a caller wrote it.
#[derive(Debug, Clone)]
pub struct EvaluatorDraft {
    /// What was read; meaningful only without problems.
    pub evaluator: Evaluator,
    /// The fields given, flat.
    pub fields: Map<String, Value>,
    /// What could not be read.
    pub problems: Vec<FieldProblem>,
}

/// Reads an evaluator in any of its forms. Whether its values fit together, too, is for
/// [`problems`](super::problems) to say.
pub fn read_draft(arguments: &Map<String, Value>) -> EvaluatorDraft {
    let mut found = Found::default();
    found.object(arguments, "", &[]);
    let Found { flat, mut problems } = found;
    for name in REQUIRED {
        let wrong = problems.iter().any(|problem| problem.field == name);
        if !flat.contains_key(name) && !wrong {
            problems.push(FieldProblem::new(
                name,
                "is required",
                Some(example_value(name)),
            ));
        }
    }
    let mut given = Map::new();
    for known in &FIELDS {
        if let Some(value) = flat.get(known.name) {
            given.insert(known.name.to_owned(), value.clone());
        }
    }
    let evaluator = match Evaluator::from_attributes(attributes(&given)) {
        Ok(evaluator) => evaluator,
        Err(error) => {
            problems.push(FieldProblem::new("configuration", error.to_string(), None));
            Evaluator::default()
        }
    };
    EvaluatorDraft {
        evaluator,
        fields: given,
        problems,
    }
}

#[derive(Default)]
struct Found {
    flat: BTreeMap<&'static str, Value>,
    problems: Vec<FieldProblem>,
}

impl Found {
    /// Reads the keys of one object. `path` stands before them in messages; no `sections` means
    /// the top, where everything may stand.
    fn object(&mut self, map: &Map<String, Value>, path: &str, sections: &[Section]) {
        for (key, value) in map {
            if value.is_null() {
                continue;
            }
            if sections.is_empty() && READ_ONLY.contains(&key.as_str()) {
                continue;
            }
            if let Some(inside) = section_of(key, sections) {
                match as_object(value) {
                    Some(inner) => self.object(&inner, &format!("{path}{key}."), inside),
                    None => self.problems.push(FieldProblem::new(
                        format!("{path}{key}"),
                        "must be an object",
                        None,
                    )),
                }
                continue;
            }
            let known = FIELDS.iter().find(|known| {
                known.name == key && (sections.is_empty() || sections.contains(&known.section))
            });
            match known {
                Some(known) => self.value(known, value),
                None => self.unknown(path, key, sections),
            }
        }
    }

    fn value(&mut self, known: &Field, value: &Value) {
        match coerced(known.kind, value) {
            Ok(None) => {}
            Ok(Some(value)) => {
                if known.name == "integration_provider"
                    && let Some(text) = value.as_str()
                {
                    // The SDK writes underscores, the documented API dashes.
                    self.put(known.name, Value::from(text.replace('_', "-")));
                    return;
                }
                self.put(known.name, value);
            }
            Err(wanted) => self.problems.push(FieldProblem::new(
                known.name,
                format!("must be {wanted}"),
                Some(example_value(known.name)).filter(|value| !value.is_null()),
            )),
        }
    }

    fn put(&mut self, name: &'static str, value: Value) {
        match self.flat.get(name) {
            Some(other) if !same(other, &value) => self.problems.push(FieldProblem::new(
                name,
                "is given twice with different values; give it once, at the top",
                Some(value),
            )),
            _ => {
                self.flat.insert(name, value);
            }
        }
    }

    fn unknown(&mut self, path: &str, key: &str, sections: &[Section]) {
        let names = FIELDS
            .iter()
            .filter(|known| sections.is_empty() || sections.contains(&known.section))
            .map(|known| known.name);
        let synonym = SYNONYMS
            .iter()
            .find(|(wrong, _)| wrong.eq_ignore_ascii_case(key))
            .map(|(_, right)| *right);
        let reason = match synonym.or_else(|| closest(key, names)) {
            Some(near) => format!("is not a field; did you mean `{near}`?"),
            None => "is not a field".to_owned(),
        };
        self.problems
            .push(FieldProblem::new(format!("{path}{key}"), reason, None));
    }
}

/// What may stand inside an object of that name.
fn section_of(key: &str, outer: &[Section]) -> Option<&'static [Section]> {
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

fn as_object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// A value as its field wants it; `Ok(None)` when nothing was given.
fn coerced(kind: Kind, value: &Value) -> Result<Option<Value>, &'static str> {
    let text = value.as_str().map(str::trim);
    if text == Some("") {
        return Ok(None);
    }
    let taken = match kind {
        Kind::Text => match value {
            Value::Number(number) => Some(Value::from(number.to_string())),
            _ => text.map(Value::from),
        }
        .ok_or("text")?,
        Kind::Verbatim => text.map(|_| value.clone()).ok_or("text")?,
        Kind::Scope => text
            .map(str::to_ascii_lowercase)
            .filter(|scope| ["span", "trace", "session"].contains(&scope.as_str()))
            .map(Value::from)
            .ok_or("span, trace or session")?,
        Kind::Flag => match (value, text.map(str::to_ascii_lowercase).as_deref()) {
            (Value::Bool(_), _) => value.clone(),
            (_, Some("true")) => Value::Bool(true),
            (_, Some("false")) => Value::Bool(false),
            _ => return Err("true or false"),
        },
        Kind::Number => number(value).ok_or("a number")?,
        Kind::Whole => number(value)
            .filter(|number| number.as_u64().is_some())
            .ok_or("a whole number")?,
        Kind::Object => as_object(value).map(Value::Object).ok_or("a JSON object")?,
        Kind::List => as_list(value).map(Value::Array).ok_or("a list")?,
        Kind::Texts => as_list(value)
            .filter(|items| items.iter().all(Value::is_string))
            .map(Value::Array)
            .ok_or("a list of texts")?,
    };
    Ok(Some(taken))
}

fn as_list(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => {
            let text = text.trim();
            let whole = text.parse::<i64>().ok().map(Number::from);
            whole
                .or_else(|| Number::from_f64(text.parse().ok()?))
                .map(Value::Number)
        }
        _ => None,
    }
}

/// Whether two values mean the same: 10 is 10.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// The documented attributes of flat fields.
fn attributes(flat: &Map<String, Value>) -> Value {
    let (mut top, mut target, mut provider) = (Map::new(), Map::new(), Map::new());
    let (mut judge, mut inference) = (Map::new(), Map::new());
    for known in &FIELDS {
        let Some(value) = flat.get(known.name) else {
            continue;
        };
        let value = match known.name {
            "output_schema" => wrap_schema(value),
            _ => value.clone(),
        };
        let section = match known.section {
            Section::Top => &mut top,
            Section::Target => &mut target,
            Section::Provider => &mut provider,
            Section::Judge => &mut judge,
            Section::Inference => &mut inference,
        };
        section.insert(known.name.to_owned(), value);
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

/// All fields of an evaluator that have a value, flat, and beside them what has no name here.
pub(super) fn flat(evaluator: &Evaluator) -> (Map<String, Value>, Map<String, Value>) {
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
    let structure = [
        "target",
        "llm_provider",
        "llm_judge_config",
        "inference_params",
    ];
    for (path, section, map) in sections {
        for (key, value) in map {
            let known = FIELDS
                .iter()
                .any(|known| known.section == section && known.name == key);
            if known {
                fields.insert(key, value);
            } else if !structure.contains(&key.as_str()) && !READ_ONLY.contains(&key.as_str()) {
                other.insert(format!("{path}{key}"), value);
            }
        }
    }
    if let Some(schema) = fields.get_mut("output_schema") {
        *schema = wrap_schema(schema);
    }
    (fields, other)
}

/// The form that `get` shows: `target` and `llm_provider` as objects, all else at the top. Reading
/// it gives the same evaluator.
pub fn nested_form(evaluator: &Evaluator) -> Map<String, Value> {
    let (mut fields, other) = flat(evaluator);
    let (mut target, mut provider) = (Map::new(), Map::new());
    let mut form = Map::new();
    for known in &FIELDS {
        let Some(value) = fields.shift_remove(known.name) else {
            continue;
        };
        let place = match known.section {
            Section::Target => &mut target,
            Section::Provider | Section::Inference => &mut provider,
            Section::Top | Section::Judge => &mut form,
        };
        place.insert(known.name.to_owned(), value);
    }
    let mut shown = Map::new();
    for name in ["eval_name", "category"] {
        if let Some(value) = form.shift_remove(name) {
            shown.insert(name.to_owned(), value);
        }
    }
    shown.insert("target".to_owned(), Value::Object(target));
    shown.insert("llm_provider".to_owned(), Value::Object(provider));
    shown.extend(form);
    if !other.is_empty() {
        shown.insert("other".to_owned(), Value::Object(other));
    }
    for (name, value) in [
        ("created_at", evaluator.created_at.clone().map(Value::from)),
        ("updated_at", evaluator.updated_at.clone().map(Value::from)),
        ("created_by", evaluator.created_by.clone()),
        ("last_updated_by", evaluator.last_updated_by.clone()),
    ] {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    }
    shown
}

/// The draft with what the kept configuration has beyond the fields that a caller can write: a
/// write replaces everything, and what cannot be named must not be lost by it.
pub fn keep_unlisted_fields(mut draft: Evaluator, kept: &Evaluator) -> Evaluator {
    let extras = [
        (&mut draft.extra, &kept.extra),
        (&mut draft.target.extra, &kept.target.extra),
        (&mut draft.llm_provider.extra, &kept.llm_provider.extra),
        (
            &mut draft.llm_judge_config.extra,
            &kept.llm_judge_config.extra,
        ),
        (
            &mut draft.llm_judge_config.inference_params,
            &kept.llm_judge_config.inference_params,
        ),
    ];
    for (mine, theirs) in extras {
        for (key, value) in theirs {
            let known = FIELDS.iter().any(|known| known.name == key);
            if !known {
                mine.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::super::validate::example_fields;
    use super::*;
    use serde_json::json;

    #[test]
    fn flat_nested_and_documented_forms_are_one() {
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
    fn unknown_fields_are_named_with_the_nearest() {
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
    fn a_field_given_twice_must_agree_with_itself() {
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
    fn what_has_no_name_here_is_shown_and_kept_by_a_write() {
        let mut attributes = Value::Object(read_draft(&example_fields()).evaluator.to_attributes());
        attributes["target"]["brand_new"] = json!(1);
        attributes["llm_judge_config"]["inference_params"] = json!({"effort": "low", "top_k": 3});
        let kept = Evaluator::from_attributes(attributes).unwrap();
        let shown = nested_form(&kept);
        assert_eq!(
            shown["other"],
            json!({"target.brand_new": 1, "llm_judge_config.inference_params.effort": "low"})
        );
        let draft = read_draft(&shown);
        assert_eq!(draft.problems, []);
        assert_eq!(keep_unlisted_fields(draft.evaluator, &kept), kept);
    }
}
