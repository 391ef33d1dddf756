//! Random valid evaluators, and properties of their forms.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[cfg(test)]
use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9_ -]{0,20}[a-z0-9]"
}

fn schema_and_criteria() -> impl Strategy<Value = (Value, Option<Value>)> {
    let schema = |name: &str, result: Value, reasoning: bool| {
        let mut properties = Map::from_iter([(name.to_owned(), result)]);
        let mut required = json!([name]);
        if reasoning {
            properties.insert("reasoning".to_owned(), json!({"type": "string"}));
            required = json!([name, "reasoning"]);
        }
        json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false})
    };
    (0..3_usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        move |(kind, reasoning, pass, bare)| {
            let (name, result, criteria) = match kind {
                0 => ("boolean_eval", json!({"type": "boolean"}), json!({"pass_when": pass})),
                1 => (
                    "score_eval",
                    json!({"type": "number", "minimum": 0, "maximum": 5.5}),
                    json!({"min_threshold": 2, "max_threshold": 4.5}),
                ),
                _ => (
                    "categorical_eval",
                    json!({"type": "string", "anyOf": [{"const": "a", "description": "A"}, {"const": "b", "description": ""}]}),
                    json!({"pass_values": ["b"]}),
                ),
            };
            let plain = schema(name, result, reasoning);
            let schema = if bare { plain } else { json!({"name": name, "strict": true, "schema": plain}) };
            (schema, pass.then_some(criteria))
        },
    )
}

fn optional() -> impl Strategy<Value = Map<String, Value>> {
    let choices = [
        ("category", json!("quality")),
        ("filter", json!("@meta.span.kind:llm -@name:\"a b\"")),
        ("root_spans_only", json!(true)),
        ("sampling_percentage", json!(12.5)),
        (
            "experiment_project_ids",
            json!(["0a5f2a4e-1111-4222-8333-123456789abc"]),
        ),
        ("integration_account_id", json!("account")),
        ("bedrock", json!({"region": "eu-west-1"})),
        ("vertex_ai", json!({"location": "x", "project": "y"})),
        ("temperature", json!(0.2)),
        ("max_tokens", json!(512)),
        ("top_p", json!(1)),
        ("top_k", json!(40)),
        ("frequency_penalty", json!(-0.5)),
        ("presence_penalty", json!(0)),
        ("context_query", json!(" x ")),
        ("target_query", json!("y")),
        (
            "user_specified_json_post_processing_function",
            json!("function __evalPostProcessing(i) {\n return {assessment: 'pass'} }"),
        ),
        ("last_used_library_prompt_template_name", json!("tone")),
        ("modified_library_prompt_template", json!(true)),
    ];
    proptest::collection::vec(any::<bool>(), choices.len()).prop_map(move |chosen| {
        choices
            .iter()
            .zip(chosen)
            .filter(|(_, chosen)| *chosen)
            .map(|((key, value), _)| ((*key).to_owned(), value.clone()))
            .collect()
    })
}

/// Random valid configurations in flat form.
pub fn configurations() -> impl Strategy<Value = Map<String, Value>> {
    (
        name(),
        name(),
        any::<bool>(),
        schema_and_criteria(),
        optional(),
        "[^{}]{0,30}",
    )
        .prop_map(
            |(eval_name, app, enabled, (schema, criteria), mut rest, words)| {
                let user =
                    format!("{words} {{{{span_input}}}} {{{{meta.output.messages[*].content}}}}");
                let value = json!({
                    "eval_name": eval_name, "application_name": app, "enabled": enabled,
                    "integration_provider": "openai", "model_name": "m",
                    "prompt_template": [{"role": "system", "content": words},
                        {"role": "user", "contents": [{"type": "text", "value": {"text": user}}]}],
                    "parsing_type": "structured_output", "output_schema": schema,
                });
                rest.extend(value.as_object().cloned().unwrap_or_default());
                if let Some(criteria) = criteria {
                    rest.insert("assessment_criteria".into(), criteria);
                }
                rest
            },
        )
}

proptest! {
    #[test]
    fn every_form_reads_to_the_same_evaluator(flat in configurations()) {
        let draft = read_draft(&flat);
        prop_assert_eq!(find_problems(&draft), vec![]);
        for form in [nested_form(&draft.evaluator), draft.evaluator.to_attributes(), corrected_fields(&flat, &[])] {
            let again = read_draft(&form);
            prop_assert_eq!(&again.problems, &vec![]);
            prop_assert_eq!(&again.evaluator, &draft.evaluator);
            prop_assert_eq!(diff_configurations(&draft.evaluator, &again.evaluator, &again.fields), ConfigurationDiff::default());
        }
    }

    #[test]
    fn correction_of_any_fields_is_valid(
        mut flat in configurations(),
        key in "[a-z_]{1,12}|enabled|filter|output_schema|prompt_template|target|eval_scope",
        value in prop_oneof![Just(json!([[[]]])), Just(json!({"a": 1})), Just(json!("x")), Just(json!(-1)), Just(json!("trace"))],
    ) {
        flat.insert(key, value);
        let draft = read_draft(&flat);
        let corrected = corrected_fields(&draft.fields, &find_problems(&draft));
        prop_assert_eq!(find_problems(&read_draft(&corrected)), vec![]);
    }
}
