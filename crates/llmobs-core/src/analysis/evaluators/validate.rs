//! Whether an evaluator's values fit together, before anything is sent: each problem names the
//! field, the reason, and a value that is accepted.
//!
//! The rules are those that Datadog documents for its judges: the schema's form by type, criteria
//! by type, the sampling range, a filter and placeholders that can be read, and the scopes.

use serde_json::{Map, Value, json};

use super::FieldProblem;
use super::form::{EvaluatorDraft, read_draft};
use super::placeholders::PromptTemplate;
use super::schema::KINDS;
use crate::model::{EvalScope, Evaluator, MetricType, ROOT_PARENT};
use crate::query::{self, Expr, Field, Pattern, Query, Term};

const PROVIDERS: [&str; 7] = [
    "openai",
    "anthropic",
    "azure-openai",
    "amazon-bedrock",
    "vertex-ai",
    "llm-proxy",
    "datadog",
];
const PARSING_TYPES: [&str; 3] = ["structured_output", "json", "keyword_search"];
const ROLES: [&str; 3] = ["system", "user", "assistant"];
const MAX_NAME: usize = 200;

/// A small evaluator that is accepted, flat.
pub(super) fn example_fields() -> Map<String, Value> {
    let value = json!({
        "eval_name": "answer_relevance",
        "application_name": "my-app",
        "enabled": false,
        "integration_provider": "openai",
        "model_name": "gpt-4.1-mini",
        "prompt_template": [
            {"role": "system", "content": "You judge whether an answer addresses the question."},
            {"role": "user", "content": "Question: {{span_input}}\nAnswer: {{span_output}}"},
        ],
        "parsing_type": "structured_output",
        "output_schema": boolean_schema(),
        "assessment_criteria": {"pass_when": true},
    });
    value.as_object().cloned().unwrap_or_default()
}

/// The template's value of a field; null when it has none.
pub(super) fn example_value(field: &str) -> Value {
    match field {
        "root_spans_only" | "modified_library_prompt_template" => json!(false),
        "eval_scope" => json!("span"),
        "sampling_percentage" => json!(10),
        "temperature" => json!(0),
        "max_tokens" => json!(1000),
        _ => example_fields().get(field).cloned().unwrap_or_default(),
    }
}

fn boolean_schema() -> Value {
    json!({"name": "boolean_eval", "strict": true, "schema": {
        "type": "object",
        "properties": {"boolean_eval": {"type": "boolean"}, "reasoning": {"type": "string"}},
        "required": ["boolean_eval", "reasoning"],
        "additionalProperties": false,
    }})
}

/// Why a name cannot be used, if it cannot. A name becomes a part of a URL's path.
pub fn name_problem(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("is empty");
    }
    if name.chars().count() > MAX_NAME {
        return Some("is longer than 200 characters");
    }
    if name.chars().all(|c| c == '.') {
        return Some("is a path, not a name");
    }
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#');
    name.contains(forbidden)
        .then_some("holds one of / \\ % ? # or a control character, which no name may hold")
}

/// Everything that is wrong with a draft: what could not be read, then what does not fit.
pub fn find_problems(draft: &EvaluatorDraft) -> Vec<FieldProblem> {
    let mut all = draft.problems.clone();
    for problem in misfits(&draft.evaluator) {
        if !all.iter().any(|known| known.field == problem.field) {
            all.push(problem);
        }
    }
    all
}

fn misfits(evaluator: &Evaluator) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    names(evaluator, &mut found);
    model(evaluator, &mut found);
    sampling(evaluator, &mut found);
    filter(evaluator, &mut found);
    prompt(evaluator, &mut found);
    schema(evaluator, &mut found);
    // Criteria follow the type, which a broken schema does not tell.
    if !found.iter().any(|problem| problem.field == "output_schema") {
        criteria(evaluator, &mut found);
    }
    found
}

fn names(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let name = evaluator.eval_name.as_str();
    let cleaned: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(MAX_NAME)
        .collect();
    let cleaned = match cleaned.trim_matches('_') {
        "" => "answer_relevance",
        cleaned => cleaned,
    };
    if let Some(why) = name_problem(name) {
        found.push(FieldProblem::new("eval_name", why, Some(cleaned.into())));
    } else if name.contains('.') {
        found.push(FieldProblem::new(
            "eval_name",
            "holds a dot, and the label of an evaluation may not",
            Some(cleaned.into()),
        ));
    }
}

fn one_of(found: &mut Vec<FieldProblem>, field: &str, value: &str, known: &[&str], instead: &str) {
    if !known.contains(&value) {
        found.push(FieldProblem::new(
            field,
            format!("must be one of {}", known.join(", ")),
            Some(instead.into()),
        ));
    }
}

fn model(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let provider = &evaluator.llm_provider;
    let named = provider.integration_provider.to_ascii_lowercase();
    let instead = crate::analysis::candidates::closest(&named, PROVIDERS).unwrap_or("openai");
    one_of(
        found,
        "integration_provider",
        &provider.integration_provider,
        &PROVIDERS,
        instead,
    );
    for (field, options, known) in [
        (
            "bedrock",
            &provider.bedrock,
            ["region", "inference_profile"],
        ),
        ("vertex_ai", &provider.vertex_ai, ["location", "project"]),
    ] {
        let fits = options
            .iter()
            .all(|(key, value)| known.contains(&key.as_str()) && value.is_string());
        if !fits {
            let mut kept = options.clone();
            kept.retain(|key, value| known.contains(&key.as_str()) && value.is_string());
            found.push(FieldProblem::new(
                field,
                format!("may hold {} and {} only, as text", known[0], known[1]),
                (!kept.is_empty()).then_some(Value::Object(kept)),
            ));
        }
    }
    let params = &evaluator.llm_judge_config.inference_params;
    for (field, low, high) in [
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
        ("max_tokens", 1.0, 1e9),
        ("top_k", 1.0, 1e9),
    ] {
        let Some(value) = params.get(field).and_then(Value::as_f64) else {
            continue;
        };
        if !(low..=high).contains(&value) {
            let most = if high > 2.0 {
                String::new()
            } else {
                format!(" and at most {high}")
            };
            let nearest = if value < low { low } else { high };
            found.push(FieldProblem::new(
                field,
                format!("must be at least {low}{most}"),
                Some(json!(nearest)).map(whole_if_whole),
            ));
        }
    }
}

/// `1.0` as `1`: some fields take whole numbers only.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole_if_whole(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(number as i64),
        _ => value,
    }
}

fn sampling(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let Some(sampling) = &evaluator.target.sampling_percentage else {
        return;
    };
    let value = sampling.as_f64().unwrap_or_default();
    if !(value > 0.0 && value <= 100.0) {
        found.push(FieldProblem::new(
            "sampling_percentage",
            "must be above 0 and at most 100",
            Some(json!(if value > 100.0 { 100 } else { 10 })),
        ));
    }
}

fn filter(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let target = &evaluator.target;
    let parsed = match target.filter.as_deref().map(query::parse) {
        None => None,
        Some(Ok(parsed)) => Some(parsed),
        Some(Err(error)) => {
            found.push(FieldProblem::new(
                "filter",
                format!("cannot be read: {error}"),
                Some(json!("@meta.span.kind:llm")),
            ));
            return;
        }
    };
    let roots = target.root_spans_only || parsed.as_ref().is_some_and(names_roots);
    if target.eval_scope == EvalScope::Trace && !roots {
        let (field, suggestion) = match &target.filter {
            Some(filter) => (
                "filter",
                json!(format!("({filter}) @parent_id:{ROOT_PARENT}")),
            ),
            None => ("root_spans_only", json!(true)),
        };
        found.push(FieldProblem::new(
            field,
            "must choose root spans when eval_scope is trace: set root_spans_only, or put \
             @parent_id:undefined into the filter",
            Some(suggestion),
        ));
    }
}

/// Whether a query can only match roots because it says so.
fn names_roots(query: &Query) -> bool {
    let is_root = |expr: &Expr| {
        matches!(expr, Expr::Term(Term::Field { field: Field::Attribute(name) | Field::Tag(name),
            pattern: Pattern::Literal(text) }) if name == "parent_id" && text == ROOT_PARENT)
    };
    match &query.root {
        Expr::And(parts) => parts.iter().any(is_root),
        other => is_root(other),
    }
}

fn prompt(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let scope = evaluator.target.eval_scope;
    let instead = || {
        let user = match scope {
            EvalScope::Span => "Question: {{span_input}}\nAnswer: {{span_output}}",
            EvalScope::Trace => "The trace: {{spans[*].name}}\n{{spans[0].meta.input.value}}",
            EvalScope::Session => "The conversation: {{traces[*].spans[0].meta.input.value}}",
        };
        Some(json!([{"role": "user", "content": user}]))
    };
    let mut refuse =
        |reason: String| found.push(FieldProblem::new("prompt_template", reason, instead()));
    let messages = &evaluator.llm_judge_config.prompt_template;
    let mut user_messages = 0;
    for (number, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str);
        let Some(role) = role.filter(|role| ROLES.contains(role)) else {
            return refuse(format!(
                "needs a `role` of system, user or assistant in message {number}"
            ));
        };
        let content = message.get("content").is_some_and(Value::is_string);
        if !content && !message.get("contents").is_some_and(Value::is_array) {
            return refuse(format!("needs `content` as text in message {number}"));
        }
        let known = message.as_object().is_some_and(|map| {
            map.keys()
                .all(|key| ["role", "content", "contents"].contains(&key.as_str()))
        });
        if !known {
            return refuse(format!(
                "may hold only `role`, `content` and `contents` in message {number}"
            ));
        }
        if role != "user" {
            continue;
        }
        user_messages += 1;
        for text in super::prompt::texts(message) {
            let template = match PromptTemplate::parse(text) {
                Ok(template) => template,
                Err(error) => {
                    return refuse(format!("cannot be read in message {number}: {error}"));
                }
            };
            for root in template.roots() {
                let misplaced = match root {
                    "span_input" | "span_output" => scope != EvalScope::Span,
                    "spans" => scope != EvalScope::Trace,
                    "traces" => scope != EvalScope::Session,
                    _ => false,
                };
                if misplaced {
                    let here = match scope {
                        EvalScope::Span => "{{span_input}}, {{span_output}} or a path of the span",
                        EvalScope::Trace => "{{spans…}}",
                        EvalScope::Session => "{{traces…}} or {{session_id}}",
                    };
                    return refuse(format!(
                        "uses {{{{{root}…}}}}, which nothing fills when eval_scope is {}; use {here}",
                        scope.as_str()
                    ));
                }
            }
        }
    }
    if user_messages == 0 {
        refuse("needs a user message: placeholders are filled in user messages only".to_owned());
    }
}

fn schema(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let judge = &evaluator.llm_judge_config;
    one_of(
        found,
        "parsing_type",
        &judge.parsing_type,
        &PARSING_TYPES,
        "structured_output",
    );
    let Some(wrapper) = &judge.output_schema else {
        return;
    };
    let mut refuse = |reason: String| {
        found.push(FieldProblem::new(
            "output_schema",
            reason,
            Some(boolean_schema()),
        ));
    };
    let name = wrapper.get("name").and_then(Value::as_str);
    if judge.parsing_type == "keyword_search" {
        if name.is_some_and(|name| name != "boolean_eval") {
            refuse("must be boolean_eval when parsing_type is keyword_search".to_owned());
        }
        return;
    }
    let Some(schema) = wrapper.get("schema").and_then(Value::as_object) else {
        return refuse(
            "must be a JSON Schema with `properties`, bare or as {name, strict, schema}".to_owned(),
        );
    };
    if judge.parsing_type == "json" {
        return;
    }
    let property = KINDS.iter().find(|(kind, _)| Some(*kind) == name);
    let Some((name, property)) = property else {
        return refuse(
            "must have the name boolean_eval, score_eval, categorical_eval or json_eval".to_owned(),
        );
    };
    if let Err(reason) = structured(name, property, schema) {
        let mended = closed(name, property, schema);
        let kept = structured(name, property, &mended).is_ok();
        let suggestion = if kept {
            json!({"name": name, "strict": true, "schema": mended})
        } else {
            boolean_schema()
        };
        found.push(FieldProblem::new("output_schema", reason, Some(suggestion)));
    }
}

/// The caller's schema, made to require its properties and allow no others.
fn closed(name: &str, property: &str, schema: &Map<String, Value>) -> Map<String, Value> {
    let mut closed = schema.clone();
    let mut required = vec![property];
    if let Some(Value::Object(properties)) = closed.get_mut("properties") {
        properties.retain(|key, _| name == "json_eval" || key == property || key == "reasoning");
        if properties.contains_key("reasoning") {
            required.push("reasoning");
        }
    }
    closed.insert("required".to_owned(), json!(required));
    closed.insert("additionalProperties".to_owned(), Value::Bool(false));
    closed
}

/// The rules of a structured output.
fn structured(name: &str, property: &str, schema: &Map<String, Value>) -> Result<(), String> {
    let empty = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let verdict = properties
        .get(property)
        .ok_or_else(|| format!("must have the property `{property}` when its name is {name}"))?;
    if let Some(other) = properties
        .keys()
        .find(|key| *key != property && *key != "reasoning")
        && name != "json_eval"
    {
        return Err(format!(
            "may have the properties `{property}` and `reasoning` only, not `{}`",
            other
                .chars()
                .take(60)
                .filter(|c| !c.is_control())
                .collect::<String>()
        ));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut wanted = vec![property];
    if properties.contains_key("reasoning") {
        wanted.push("reasoning");
    }
    let fits = required == wanted || required == [property];
    if !fits && name != "json_eval" {
        return Err(format!(
            "must have `required`: [\"{}\"]",
            wanted.join("\", \"")
        ));
    }
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err("must have `additionalProperties`: false".to_owned());
    }
    let kind = verdict.get("type").and_then(Value::as_str);
    match name {
        "boolean_eval" if kind != Some("boolean") => {
            Err("must give `boolean_eval` the type boolean".to_owned())
        }
        "score_eval" => {
            let bound = |key: &str| verdict.get(key).and_then(Value::as_f64);
            match (kind, bound("minimum"), bound("maximum")) {
                (Some("number" | "integer"), Some(low), Some(high)) if low < high => Ok(()),
                _ => Err(
                    "must give `score_eval` the type number, a `minimum` and a larger `maximum`"
                        .to_owned(),
                ),
            }
        }
        "categorical_eval" => {
            let options = categories(verdict);
            if kind == Some("string") && options.is_some_and(|options| !options.is_empty()) {
                Ok(())
            } else {
                Err("must give `categorical_eval` the type string and anyOf: \
                     [{\"const\": \"happy\", \"description\": \"…\"}, …]"
                    .to_owned())
            }
        }
        _ => Ok(()),
    }
}

/// The words that a categorical verdict may be; `None` when some option is no word.
fn categories(verdict: &Value) -> Option<Vec<&str>> {
    let options = verdict.get("anyOf")?.as_array()?;
    options
        .iter()
        .map(|option| option.get("const")?.as_str())
        .collect()
}

fn criteria(evaluator: &Evaluator, found: &mut Vec<FieldProblem>) {
    let judge = &evaluator.llm_judge_config;
    let criteria = &judge.assessment_criteria;
    if criteria.is_empty() {
        return;
    }
    let Some(kind) = evaluator.metric_type() else {
        return;
    };
    let verdict = judge
        .output_schema
        .as_ref()
        .and_then(|schema| schema.pointer(&format!("/schema/properties/{}_eval", kind.as_str())));
    let words = verdict.and_then(categories).unwrap_or_default();
    let bound = |key: &str| verdict.and_then(|v| v.get(key)).and_then(Value::as_f64);
    let (low, high) = (bound("minimum"), bound("maximum"));
    let inside = |value: &Value| {
        value.as_f64().is_some_and(|number| {
            low.is_none_or(|low| number >= low) && high.is_none_or(|high| number <= high)
        })
    };
    let fits = criteria
        .iter()
        .all(|(key, value)| match (kind, key.as_str()) {
            (MetricType::Boolean, "pass_when") => value.is_boolean(),
            (MetricType::Score, "min_threshold" | "max_threshold") => inside(value),
            (MetricType::Categorical, "pass_values") => value.as_array().is_some_and(|values| {
                !values.is_empty()
                    && values.iter().all(|value| {
                        value
                            .as_str()
                            .is_some_and(|value| words.is_empty() || words.contains(&value))
                    })
            }),
            _ => false,
        });
    if fits {
        return;
    }
    let (reason, suggestion) = match kind {
        MetricType::Boolean => (
            "must be {\"pass_when\": true} or false for a boolean evaluator",
            Some(json!({"pass_when": true})),
        ),
        MetricType::Score => (
            "may hold min_threshold and max_threshold for a score evaluator, numbers within the \
             schema's minimum and maximum",
            Some(json!({"min_threshold": low.map_or(json!(0.5), |low| {
                whole_if_whole(json!(high.map_or(low, |high| f64::midpoint(low, high))))
            })})),
        ),
        MetricType::Categorical => (
            "must be {\"pass_values\": […]} for a categorical evaluator, words of the schema's anyOf",
            words.first().map(|word| json!({"pass_values": [word]})),
        ),
        MetricType::Json | MetricType::Text => (
            "cannot be given for a JSON evaluator: it passes or fails by its post-processing \
             function",
            None,
        ),
    };
    found.push(FieldProblem::new("assessment_criteria", reason, suggestion));
}

/// The caller's fields with each problem mended; a small evaluator of the same name when they
/// still do not fit together.
pub fn corrected_fields(
    given: &Map<String, Value>,
    problems: &[FieldProblem],
) -> Map<String, Value> {
    let mut map = given.clone();
    // Mending one field can bring up the next: a replaced schema wants other criteria.
    let mut open = problems.to_vec();
    for _round in 0..4 {
        for problem in &open {
            match &problem.suggestion {
                Some(value) => {
                    map.insert(problem.field.clone(), value.clone());
                }
                None => {
                    map.shift_remove(&problem.field);
                }
            }
        }
        open = self::find_problems(&read_draft(&map));
        if open.is_empty() {
            return map;
        }
    }
    let mut map = example_fields();
    if let Some(name) = given.get("eval_name").and_then(Value::as_str)
        && name_problem(name).is_none()
        && !name.contains('.')
    {
        map.insert("eval_name".to_owned(), name.into());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn found(map: &Map<String, Value>) -> Vec<FieldProblem> {
        find_problems(&read_draft(map))
    }

    #[rstest]
    #[case("eval_name", json!("../x"))]
    #[case("eval_name", json!("a.b"))]
    #[case("eval_name", json!("a%2fb"))]
    #[case("enabled", json!("perhaps"))]
    #[case("integration_provider", json!("opanai"))]
    #[case("sampling_percentage", json!(0))]
    #[case("sampling_percentage", json!(101))]
    #[case("filter", json!("@a:\"x"))]
    #[case("temperature", json!(7))]
    #[case("max_tokens", json!(0))]
    #[case("eval_scope", json!("galaxy"))]
    #[case("parsing_type", json!("regex"))]
    #[case("prompt_template", json!([]))]
    #[case("prompt_template", json!([{"role": "system", "content": "x"}]))]
    #[case("prompt_template", json!([{"role": "user", "content": "{{spans[-1]}}"}]))]
    #[case("prompt_template", json!([{"role": "user", "content": "{{spans[0].name}}"}]))]
    #[case("output_schema", json!({"name": "vibes", "schema": {"type": "object"}}))]
    #[case("output_schema", json!({"type": "object", "properties": {"boolean_eval": {"type": "string"}}, "required": ["boolean_eval"], "additionalProperties": false}))]
    #[case("assessment_criteria", json!({"pass_values": ["x"]}))]
    #[case("bedrock", json!({"zone": "eu"}))]
    fn a_problem_names_its_field_and_its_suggestion_is_accepted(
        #[case] field: &str,
        #[case] value: Value,
    ) {
        let mut map = example_fields();
        map.insert(field.into(), value);
        let problems = found(&map);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].field, field);
        let mended = corrected_fields(&map, &problems);
        assert_eq!(found(&mended), []);
        let same = map
            .iter()
            .filter(|(key, value)| mended.get(*key) == Some(value));
        assert!(same.count() >= map.len() - 1, "{mended:?}");
    }

    #[test]
    fn criteria_follow_the_type() {
        let schema = |name: &str, verdict: Value| {
            json!({"type": "object", "properties": {name: verdict}, "required": [name],
                "additionalProperties": false})
        };
        let score = schema(
            "score_eval",
            json!({"type": "number", "minimum": 0, "maximum": 10}),
        );
        let words = schema(
            "categorical_eval",
            json!({"type": "string", "anyOf": [{"const": "happy"}, {"const": "sad"}]}),
        );
        let cases = [
            (
                &score,
                json!({"min_threshold": 7, "max_threshold": 3}),
                true,
            ),
            (&score, json!({"min_threshold": 11}), false),
            (&score, json!({"pass_when": true}), false),
            (&words, json!({"pass_values": ["happy"]}), true),
            (&words, json!({"pass_values": ["angry"]}), false),
            (&words, json!({"pass_values": []}), false),
        ];
        for (schema, criteria, fits) in cases {
            let mut map = example_fields();
            map.insert("output_schema".into(), schema.clone());
            map.insert("assessment_criteria".into(), criteria.clone());
            let problems = found(&map);
            assert_eq!(problems.is_empty(), fits, "{criteria}: {problems:?}");
            assert_eq!(found(&corrected_fields(&map, &problems)), []);
        }
    }

    #[test]
    fn a_trace_evaluator_chooses_roots_and_reads_spans() {
        let mut map = example_fields();
        map.insert("eval_scope".into(), json!("trace"));
        let problems = found(&map);
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["root_spans_only", "prompt_template"]);
        assert_eq!(found(&corrected_fields(&map, &problems)), []);
        map.insert(
            "prompt_template".into(),
            json!([{"role": "user", "content": "{{spans[0].name}}"}]),
        );
        map.insert("filter".into(), json!("@status:ok @parent_id:undefined"));
        assert_eq!(found(&map), []);
        map.insert("filter".into(), json!("@status:ok OR @parent_id:undefined"));
        assert_eq!(found(&map)[0].field, "filter");
    }

    #[test]
    fn an_empty_call_is_answered_with_a_whole_one() {
        let problems = found(&Map::new());
        assert_eq!(problems.len(), 8, "{problems:?}");
        assert_eq!(found(&corrected_fields(&Map::new(), &problems)), []);
    }
}
