//! `create_or_update_llmobs_evaluator`: checks a configuration, compares it with the saved one, and
//! writes it.
//!
//! Datadog replaces the complete configuration, so a field that the caller leaves out falls back to
//! its default. The answer, and `preview` before the write, name each such field.

use serde_json::{Map, Value, json};

use super::configuration::draft_error;
use crate::render::{squeeze, to_json};
use crate::tools::answer::Notes;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::ClientError;
use llmobs_core::analysis::evaluators::{
    ConfigurationDiff, FieldChange, diff_configurations, find_problems, keep_unlisted_fields,
    read_draft,
};

const NAME: &str = "create_or_update_llmobs_evaluator";
/// Characters of JSON of the value of a changed field.
const MAX_VALUE_CHARS: usize = 1_200;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Create or update an evaluator",
    description: "Create a custom LLM evaluator (LLM-as-a-judge), or fully replace the one with \
        that name: optional fields left out fall back to defaults. Accepts these fields, or the \
        object of get_llmobs_evaluator with changes. preview: true shows the difference without writing. \
        enabled: false makes a draft. Placeholders in user messages: {{span_input}}, \
        {{span_output}}, {{meta.metadata.key}}, {{*}}; trace scope {{spans[*].name}}, \
        {{spans[meta.span.kind:tool].meta.output.value}}; session scope {{traces[*].spans[0]...}}. \
        output_schema: boolean_eval, score_eval (minimum, maximum) or categorical_eval (anyOf of \
        const, description).",
    toolset: "llmobs",
    access: Access::Write {
        destructive: true,
        idempotent: true,
    },
    schema,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

/// The schema is short, because every conversation pays for it; errors explain the details.
fn schema() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let number = || json!({"type": "number"});
    let object = || json!({"type": "object"});
    let value = json!({
        "type": "object",
        "properties": {
            "eval_name": text(),
            "application_name": {"type": "string", "description": "The ml_app to evaluate."},
            "enabled": {"type": "boolean", "description": "false: draft."},
            "integration_provider": {"type": "string", "description":
                "openai, anthropic, azure-openai, amazon-bedrock, vertex-ai, llm-proxy or datadog."},
            "model_name": text(),
            "prompt_template": {"type": "array", "items": object(), "description":
                "[{role: system|user|assistant, content}]"},
            "parsing_type": {"type": "string", "description":
                "structured_output, json or keyword_search."},
            "output_schema": {"type": "object", "description":
                "{name: boolean_eval, strict: true, schema: {type: object, properties: {boolean_eval: \
                 {type: boolean}, reasoning: {type: string}}, required: [both], \
                 additionalProperties: false}}"},
            "assessment_criteria": {"type": "object", "description":
                "{pass_when}, {min_threshold, max_threshold} or {pass_values: []}."},
            "eval_scope": {"type": "string", "description":
                "span (default), trace (needs root_spans_only) or session."},
            "filter": {"type": "string", "description": "Span query, as in search_llmobs_spans."},
            "root_spans_only": {"type": "boolean"},
            "sampling_percentage": {"type": "number", "description": "Above 0 to 100."},
            "integration_account_id": text(),
            "temperature": number(),
            "max_tokens": {"type": "integer"},
            "category": text(),
            "user_specified_json_post_processing_function": text(),
            "bedrock": object(),
            "vertex_ai": object(),
            "experiment_project_ids": {"type": "array", "items": text()},
            "preview": {"type": "boolean", "description": "true: write nothing, show the changes."},
            "telemetry": {"type": "object", "properties": {"intent": {"type": "string"}}},
        },
    });
    value.as_object().cloned().unwrap_or_default()
}

/// A corrected call. It writes nothing, because some of its values are not the caller's.
fn preview_arguments(mut fields: Map<String, Value>) -> Value {
    fields.insert("preview".to_owned(), Value::Bool(true));
    Value::Object(fields)
}

async fn run(
    context: &ToolContext,
    mut arguments: Map<String, Value>,
) -> Result<String, ToolError> {
    let preview = take_preview(&mut arguments)?;
    let draft = read_draft(&arguments);
    let problems = find_problems(&draft);
    if !problems.is_empty() {
        return Err(draft_error(NAME, preview_arguments, &draft, &problems));
    }
    let name = draft.evaluator.eval_name.clone();
    let saved = context.client.evaluator(&name).await?;
    let (evaluator, diff) = match &saved {
        None => (draft.evaluator, ConfigurationDiff::default()),
        Some(saved) => {
            let evaluator = keep_unlisted_fields(draft.evaluator, saved);
            let diff = diff_configurations(saved, &evaluator, &draft.fields);
            (evaluator, diff)
        }
    };
    let mut notes = Notes::default();
    let was_enabled = saved.as_ref().is_some_and(|saved| saved.target.enabled);
    if evaluator.target.enabled && !was_enabled {
        notes.add(
            "enabled: it evaluates new traffic and costs tokens; preview_llmobs_evaluator estimates \
             how many",
        );
    }
    if !diff.reset.is_empty() {
        notes.add(
            "a write replaces the complete configuration: the fields in reset_to_default were not \
             sent and lose their value; send them to keep it",
        );
    }
    if saved.is_some() && diff == ConfigurationDiff::default() {
        notes.add("the configuration equals the saved one");
    }
    if preview {
        notes.add("nothing was written; send the same call without preview to write it");
    } else {
        let written = context.client.put_evaluator(&evaluator).await;
        if written.map_err(write_error)?.bare_schema {
            notes.add("the site refused the schema with its wrapper and accepted the bare schema");
        }
    }
    let mut answer = JsonObject::default();
    answer.set("status", if preview { "preview" } else { "ok" });
    answer.set("eval_name", name);
    answer.set("created", saved.is_none() && !preview);
    answer.set("changed", change_rows(diff.changed));
    answer.set("reset_to_default", change_rows(diff.reset));
    answer.set_unless_empty("notes", json!(notes));
    Ok(to_json(&answer)?)
}

fn change_rows(changes: Vec<FieldChange>) -> Vec<Value> {
    let rows = changes.into_iter().map(|change| {
        let from = squeeze(&change.from, MAX_VALUE_CHARS).0;
        let to = squeeze(&change.to, MAX_VALUE_CHARS).0;
        json!({"field": change.field, "from": from, "to": to})
    });
    rows.collect()
}

/// Removes `preview` from the arguments, which are otherwise fields of an evaluator.
fn take_preview(arguments: &mut Map<String, Value>) -> Result<bool, ToolError> {
    let preview = match arguments.shift_remove("preview") {
        None | Some(Value::Null) => Some(false),
        Some(Value::Bool(preview)) => Some(preview),
        Some(Value::String(text)) => text.trim().to_ascii_lowercase().parse().ok(),
        Some(_) => None,
    };
    preview.ok_or_else(|| {
        ToolError::arguments(
            "nothing was sent: `preview` must be true or false",
            "send preview: true to see the changes without writing",
        )
        .example("list_llmobs_evals", json!({}))
    })
}

/// The error of a write. No argument can correct a versioned evaluator.
fn write_error(error: ClientError) -> ToolError {
    let error = ToolError::from(error);
    if error.error.contains("versioned") {
        return error.hint(
            "this evaluator can be edited in Datadog's UI only; create one with another name instead",
        );
    }
    error
}
