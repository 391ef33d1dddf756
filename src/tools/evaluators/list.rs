//! `list_llmobs_evals` and `list_llmobs_evals_by_ml_app`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::render::{Budget, candidate, json_chars};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::EvaluatorSummary;

const NAME: &str = "list_llmobs_evals";
const BY_APP_NAME: &str = "list_llmobs_evals_by_ml_app";
/// Applications that the answer for an application without evaluators lists.
const MAX_APPS: usize = 10;

pub(super) const ALL: Tool = Tool {
    name: NAME,
    title: "List evaluators",
    description: "List all LLM evaluators (evals, LLM judges) of the organisation with application, \
        enabled or draft, custom or ootb (out of the box), and type.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<AllArguments>,
    run: |context, arguments| {
        Box::pin(async move {
            let AllArguments { cursor } = args::parse(NAME, arguments)?;
            list(context, NAME, None, cursor).await
        })
    },
};

pub(super) const BY_APP: Tool = Tool {
    name: BY_APP_NAME,
    title: "List an application's evaluators",
    description: "List the LLM evaluators (evals, LLM judges) of one application. The list is empty \
        for an application without evaluators.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<ByAppArguments>,
    run: |context, arguments| {
        Box::pin(async move {
            let ByAppArguments { ml_app, cursor } = args::parse(BY_APP_NAME, arguments)?;
            list(context, BY_APP_NAME, Some(ml_app), cursor).await
        })
    },
};

#[derive(Deserialize, JsonSchema)]
struct AllArguments {
    /// next_cursor of the previous answer.
    cursor: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct ByAppArguments {
    /// Application name.
    ml_app: String,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
}

async fn list(
    context: &ToolContext,
    tool: &'static str,
    ml_app: Option<String>,
    cursor: Option<String>,
) -> Result<String, ToolError> {
    let example = match &ml_app {
        Some(app) => json!({"ml_app": app}),
        None => json!({}),
    };
    let list = ListRequest::new(tool, ml_app.as_ref(), example);
    let first = list.offset(cursor.as_deref())?;
    let evaluators = context.client.evaluators(ml_app.as_deref()).await?;
    let mut notes = Notes::default();
    notes.add_gaps(&evaluators.gaps);
    let mut tail = JsonObject::default();
    if evaluators.rows.is_empty() && ml_app.is_some() {
        tail.set_unless_empty("apps_with_evaluators", apps_with_evaluators(context).await);
    }
    let total = evaluators.rows.len();
    let rows = evaluators.rows.into_iter().skip(first).map(row).collect();
    Page::custom(
        JsonObject::default(),
        rows,
        json_chars::<JsonObject>,
        |rows, _| {
            let mut keys = JsonObject::default();
            keys.set("evaluators", json!(rows));
            keys.set("total_count", total);
            keys.0
        },
    )
    .next_offset(&list, first, total)
    .tail(tail)
    .notes(notes)
    .write(Budget::of_answer(None))
}

/// Applications that have evaluators. They only help to correct a name, so errors are ignored.
async fn apps_with_evaluators(context: &ToolContext) -> Vec<String> {
    let rows = match context.client.evaluators(None).await {
        Ok(evaluators) => evaluators.rows,
        Err(_) => Vec::new(),
    };
    let mut apps: Vec<String> = rows.into_iter().filter_map(|row| row.ml_app).collect();
    apps.sort();
    apps.dedup();
    apps.iter()
        .take(MAX_APPS)
        .map(|app| candidate(app))
        .collect()
}

fn row(evaluator: EvaluatorSummary) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("eval_name", evaluator.eval_name);
    row.set("ml_app", evaluator.ml_app);
    row.set_some("enabled", evaluator.enabled);
    row.set_some("source", evaluator.source);
    row.set_some("type", evaluator.metric_type);
    row.set("created_at", evaluator.created_at);
    row
}
