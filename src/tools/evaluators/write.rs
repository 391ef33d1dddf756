//! `create_or_update_llmobs_evaluator`: checks, compares with what is there, and writes whole.
//!
//! Datadog replaces the whole configuration, so what a caller leaves out silently falls back to a
//! default: the answer, and `preview` before anything is written, name each such field.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::refused;
use crate::render::{squeeze, to_json};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::ClientError;
use llmobs_core::analysis::evaluators::{
    ConfigurationDiff, FieldChange, diff_configurations, find_problems, keep_unlisted_fields,
    read_draft,
};

const NAME: &str = "create_or_update_llmobs_evaluator";
/// Longer values of changed fields lose their middle, in characters.
const MAX_VALUE: usize = 1_200;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Create or update an evaluator",
    description: "Create a custom LLM evaluator (LLM-as-a-judge), or fully replace the one of that \
        name: optional fields left out fall back to defaults. Takes these fields, or the object of \
        get_llmobs_evaluator with changes. preview: true shows the difference without writing. \
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

/// Short on purpose: it is paid for in every conversation, and refusals teach the rest.
fn schema() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let number = || json!({"type": "number"});
    let object = || json!({"type": "object"});
    let value = json!({
        "type": "object",
        "properties": {
            "eval_name": text(),
            "application_name": {"type": "string", "description": "The ml_app to judge."},
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
            "preview": {"type": "boolean", "description": "true: write nothing, show what would change."},
            "telemetry": {"type": "object", "properties": {"intent": {"type": "string"}}},
        },
    });
    value.as_object().cloned().unwrap_or_default()
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    eval_name: String,
    created: bool,
    changed: Vec<Row>,
    reset_to_default: Vec<Row>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
}

#[derive(Serialize)]
struct Row {
    field: String,
    from: Value,
    to: Value,
}

impl From<FieldChange> for Row {
    fn from(change: FieldChange) -> Self {
        Self {
            field: change.field,
            from: squeeze(&change.from, MAX_VALUE).0,
            to: squeeze(&change.to, MAX_VALUE).0,
        }
    }
}

/// The mended call; it writes nothing, as some of its values are ours.
fn example(mut mended: Map<String, Value>) -> Value {
    mended.insert("preview".to_owned(), Value::Bool(true));
    Value::Object(mended)
}

async fn run(
    context: &ToolContext,
    mut arguments: Map<String, Value>,
) -> Result<String, ToolError> {
    args::strip_intent(&mut arguments);
    let preview = match arguments.shift_remove("preview") {
        None | Some(Value::Null) => false,
        Some(value) => flag(&value).ok_or_else(|| {
            ToolError::arguments(
                "nothing was sent: `preview` must be true or false",
                "send preview: true to see the difference without writing",
            )
            .example("list_llmobs_evals", json!({}))
        })?,
    };
    let draft = read_draft(&arguments);
    let found = find_problems(&draft);
    if !found.is_empty() {
        return Err(refused(NAME, example, &draft, &found));
    }
    let name = draft.evaluator.eval_name.clone();
    let kept = context.client.evaluator(&name).await?;
    let (evaluator, difference) = match &kept {
        None => (draft.evaluator, ConfigurationDiff::default()),
        Some(kept) => {
            let evaluator = keep_unlisted_fields(draft.evaluator, kept);
            let difference = diff_configurations(kept, &evaluator, &draft.fields);
            (evaluator, difference)
        }
    };
    let mut notes = Notes::default();
    let was_enabled = kept.as_ref().is_some_and(|kept| kept.target.enabled);
    if evaluator.target.enabled && !was_enabled {
        notes.add(
            "enabled: it judges new traffic and costs tokens; preview_llmobs_evaluator estimates how many",
        );
    }
    if !difference.reset.is_empty() {
        notes.add(
            "a write replaces the whole configuration: the fields in reset_to_default were not given \
             and lose their value; give them to keep it",
        );
    }
    if kept.is_some() && difference == ConfigurationDiff::default() {
        notes.add("nothing differs from what is there");
    }
    if preview {
        notes.add("nothing was written; send the same call without preview to write it");
    } else {
        let written = context
            .client
            .put_evaluator(&evaluator)
            .await
            .map_err(not_written)?;
        if written.bare_schema {
            notes.add("the site refused the schema with its wrapper and took the bare one");
        }
    }
    let rows = |changes: Vec<FieldChange>| changes.into_iter().map(Row::from).collect();
    let answer = Answer {
        status: if preview { "preview" } else { "ok" },
        eval_name: name,
        created: kept.is_none() && !preview,
        changed: rows(difference.changed),
        reset_to_default: rows(difference.reset),
        notes,
    };
    Ok(to_json(&answer)?)
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// What the site refuses for reasons that no argument mends.
fn not_written(error: ClientError) -> ToolError {
    let error = ToolError::from(error);
    if error.error.contains("versioned") {
        return ToolError {
            hint: "this evaluator can be edited in Datadog's UI only; create one under another \
                   name instead"
                .to_owned(),
            ..error
        };
    }
    error
}
