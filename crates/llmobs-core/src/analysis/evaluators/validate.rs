//! Validation of an evaluator before it is sent. Each problem names the field, the reason, and a
//! valid value.
//!
//! The rules are those that Datadog documents for evaluators: the form of the output schema and the
//! criteria by type, the sampling range, the syntax of filter and placeholders, and the scopes.

mod prompt;
mod schema;

use serde_json::{Map, Value, json};

use super::draft::{EvaluatorDraft, read_draft};
use super::example::example_fields;
use super::problem::FieldProblem;
use crate::analysis::candidates::closest;
use crate::model::{EvalScope, Evaluator, ROOT_PARENT};
use crate::query::{self, Expr, Field, Pattern, Query, Term};
use prompt::check_prompt;
use schema::{check_criteria, check_schema, prefer_integer};

const PROVIDERS: [&str; 7] = [
    "openai",
    "anthropic",
    "azure-openai",
    "amazon-bedrock",
    "vertex-ai",
    "llm-proxy",
    "datadog",
];
const MAX_NAME_CHARS: usize = 200;
/// Maximum rounds of correction. A corrected field can reveal a problem with another field.
const MAX_CORRECTION_ROUNDS: usize = 4;

/// Why a name is invalid, if it is. A name becomes a segment of a URL path.
pub fn name_problem(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("is empty");
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Some("is longer than 200 characters");
    }
    if name.chars().all(|c| c == '.') {
        return Some("consists of dots only, which is a path and not a name");
    }
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#');
    name.contains(forbidden).then_some(
        "contains one of / \\ % ? # or a control character, which are not allowed in a name",
    )
}

/// All problems of a draft: invalid fields first, then inconsistent values.
pub fn find_problems(draft: &EvaluatorDraft) -> Vec<FieldProblem> {
    let mut all = draft.problems.clone();
    for problem in check_values(&draft.evaluator) {
        if !all.iter().any(|other| other.field == problem.field) {
            all.push(problem);
        }
    }
    all
}

fn check_values(evaluator: &Evaluator) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    problems.extend(check_name(&evaluator.eval_name));
    check_model(evaluator, &mut problems);
    check_inference_params(evaluator, &mut problems);
    problems.extend(check_sampling(evaluator));
    problems.extend(check_filter(evaluator));
    problems.extend(check_prompt(evaluator));
    check_schema(evaluator, &mut problems);
    // The criteria depend on the schema.
    if !problems
        .iter()
        .any(|problem| problem.field == "output_schema")
    {
        problems.extend(check_criteria(evaluator));
    }
    problems
}

fn check_name(name: &str) -> Option<FieldProblem> {
    let cleaned: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(MAX_NAME_CHARS)
        .collect();
    let suggestion = match cleaned.trim_matches('_') {
        "" => "answer_relevance",
        cleaned => cleaned,
    };
    let contains_dot = "contains a dot, which is not allowed in the label of an evaluation";
    let reason = name_problem(name).or(name.contains('.').then_some(contains_dot))?;
    Some(FieldProblem::new(
        "eval_name",
        reason,
        Some(suggestion.into()),
    ))
}

fn check_model(evaluator: &Evaluator, problems: &mut Vec<FieldProblem>) {
    let provider = &evaluator.llm_provider;
    let lower_case = provider.integration_provider.to_ascii_lowercase();
    problems.extend(FieldProblem::unless_one_of(
        "integration_provider",
        &provider.integration_provider,
        &PROVIDERS,
        closest(&lower_case, PROVIDERS).unwrap_or("openai"),
    ));
    for (field, options, allowed) in [
        (
            "bedrock",
            &provider.bedrock,
            ["region", "inference_profile"],
        ),
        ("vertex_ai", &provider.vertex_ai, ["location", "project"]),
    ] {
        let mut valid = options.clone();
        valid.retain(|key, value| allowed.contains(&key.as_str()) && value.is_string());
        if valid.len() < options.len() {
            let [first, second] = allowed;
            problems.push(FieldProblem::new(
                field,
                format!("may contain only `{first}` and `{second}`, as text"),
                (!valid.is_empty()).then_some(Value::Object(valid)),
            ));
        }
    }
}

fn check_inference_params(evaluator: &Evaluator, problems: &mut Vec<FieldProblem>) {
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
            let upper_bound = if high > 2.0 {
                String::new()
            } else {
                format!(" and at most {high}")
            };
            let clamped = if value < low { low } else { high };
            problems.push(FieldProblem::new(
                field,
                format!("must be at least {low}{upper_bound}"),
                Some(prefer_integer(json!(clamped))),
            ));
        }
    }
}

fn check_sampling(evaluator: &Evaluator) -> Option<FieldProblem> {
    let sampling = evaluator.target.sampling_percentage.as_ref()?;
    let value = sampling.as_f64().unwrap_or_default();
    let valid = value > 0.0 && value <= 100.0;
    (!valid).then(|| {
        FieldProblem::new(
            "sampling_percentage",
            "must be above 0 and at most 100",
            Some(json!(if value > 100.0 { 100 } else { 10 })),
        )
    })
}

fn check_filter(evaluator: &Evaluator) -> Option<FieldProblem> {
    let target = &evaluator.target;
    let parsed = match target.filter.as_deref().map(query::parse) {
        None => None,
        Some(Ok(parsed)) => Some(parsed),
        Some(Err(error)) => {
            return Some(FieldProblem::new(
                "filter",
                format!("is not a valid query: {error}"),
                Some(json!("@meta.span.kind:llm")),
            ));
        }
    };
    let selects_roots = target.root_spans_only || parsed.as_ref().is_some_and(requires_root);
    if target.eval_scope != EvalScope::Trace || selects_roots {
        return None;
    }
    let (field, suggestion) = match &target.filter {
        Some(filter) => (
            "filter",
            json!(format!("({filter}) @parent_id:{ROOT_PARENT}")),
        ),
        None => ("root_spans_only", json!(true)),
    };
    Some(FieldProblem::new(
        field,
        "must select root spans when eval_scope is trace: set root_spans_only to true, or add \
         @parent_id:undefined to the filter",
        Some(suggestion),
    ))
}

/// Whether a query has a term that restricts it to root spans.
fn requires_root(query: &Query) -> bool {
    let is_root = |expr: &Expr| {
        matches!(expr, Expr::Term(Term::Field { field: Field::Attribute(name) | Field::Tag(name),
            pattern: Pattern::Literal(text) }) if name == "parent_id" && text == ROOT_PARENT)
    };
    match &query.root {
        Expr::And(parts) => parts.iter().any(is_root),
        other => is_root(other),
    }
}

/// The caller's fields with a valid value for each problem. If the result is still inconsistent,
/// a small valid evaluator with the caller's name.
pub fn corrected_fields(
    fields: &Map<String, Value>,
    problems: &[FieldProblem],
) -> Map<String, Value> {
    let mut corrected = fields.clone();
    let mut remaining = problems.to_vec();
    for _ in 0..MAX_CORRECTION_ROUNDS {
        for problem in &remaining {
            match &problem.suggestion {
                Some(value) => {
                    corrected.insert(problem.field.clone(), value.clone());
                }
                None => {
                    corrected.shift_remove(&problem.field);
                }
            }
        }
        remaining = find_problems(&read_draft(&corrected));
        if remaining.is_empty() {
            return corrected;
        }
    }
    let mut example = example_fields();
    if let Some(name) = fields.get("eval_name").and_then(Value::as_str)
        && check_name(name).is_none()
    {
        example.insert("eval_name".to_owned(), name.into());
    }
    example
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn problems_of(map: &Map<String, Value>) -> Vec<FieldProblem> {
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
    fn suggestion_for_invalid_field_is_valid(#[case] field: &str, #[case] value: Value) {
        let mut map = example_fields();
        map.insert(field.into(), value);
        let problems = problems_of(&map);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].field, field);
        let corrected = corrected_fields(&map, &problems);
        assert_eq!(problems_of(&corrected), []);
        let unchanged = map
            .iter()
            .filter(|(key, value)| corrected.get(*key) == Some(value));
        assert!(unchanged.count() >= map.len() - 1, "{corrected:?}");
    }

    #[test]
    fn criteria_depend_on_the_type() {
        let schema = |name: &str, property: Value| {
            json!({"type": "object", "properties": {name: property}, "required": [name],
                "additionalProperties": false})
        };
        let score = schema(
            "score_eval",
            json!({"type": "number", "minimum": 0, "maximum": 10}),
        );
        let categories = schema(
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
            (&categories, json!({"pass_values": ["happy"]}), true),
            (&categories, json!({"pass_values": ["angry"]}), false),
            (&categories, json!({"pass_values": []}), false),
        ];
        for (schema, criteria, valid) in cases {
            let mut map = example_fields();
            map.insert("output_schema".into(), schema.clone());
            map.insert("assessment_criteria".into(), criteria.clone());
            let problems = problems_of(&map);
            assert_eq!(problems.is_empty(), valid, "{criteria}: {problems:?}");
            assert_eq!(problems_of(&corrected_fields(&map, &problems)), []);
        }
    }

    #[test]
    fn trace_evaluator_needs_root_spans_and_span_placeholders() {
        let mut map = example_fields();
        map.insert("eval_scope".into(), json!("trace"));
        let problems = problems_of(&map);
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["root_spans_only", "prompt_template"]);
        assert_eq!(problems_of(&corrected_fields(&map, &problems)), []);
        map.insert(
            "prompt_template".into(),
            json!([{"role": "user", "content": "{{spans[0].name}}"}]),
        );
        map.insert("filter".into(), json!("@status:ok @parent_id:undefined"));
        assert_eq!(problems_of(&map), []);
        map.insert("filter".into(), json!("@status:ok OR @parent_id:undefined"));
        assert_eq!(problems_of(&map)[0].field, "filter");
    }

    #[test]
    fn correction_of_no_fields_is_a_complete_evaluator() {
        let problems = problems_of(&Map::new());
        assert_eq!(problems.len(), 8, "{problems:?}");
        assert_eq!(problems_of(&corrected_fields(&Map::new(), &problems)), []);
    }
}
