//! A small valid evaluator, for examples in errors and for tests.

use serde_json::{Map, Value, json};

/// The fields of a small valid evaluator, in flat form.
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

/// An example value for a field; null if there is none.
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

/// An output schema for a boolean evaluation with reasoning.
pub(super) fn boolean_schema() -> Value {
    json!({"name": "boolean_eval", "strict": true, "schema": {
        "type": "object",
        "properties": {"boolean_eval": {"type": "boolean"}, "reasoning": {"type": "string"}},
        "required": ["boolean_eval", "reasoning"],
        "additionalProperties": false,
    }})
}
