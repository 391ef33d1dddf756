//! `update_llmobs_experiment`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::write_error;
use crate::render::Budget;
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::ExperimentChange;

const NAME: &str = "update_llmobs_experiment";
const STATUSES: [&str; 4] = ["running", "completed", "failed", "interrupted"];

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Update experiment",
    description: "Change an LLM experiment: status (running, completed, failed, interrupted), \
        error, name, description, metadata. metadata replaces all existing metadata. Fields that \
        are not sent stay unchanged.",
    toolset: "llmobs",
    access: Access::Write {
        destructive: true,
        idempotent: true,
    },
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// New run name.
    name: Option<String>,
    /// New description.
    description: Option<String>,
    /// Replaces the metadata.
    metadata: Option<Map<String, Value>>,
    /// running, completed, failed or interrupted.
    status: Option<String>,
    /// Why it failed.
    error: Option<String>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let example = json!({"experiment_id": "<experiment id>", "status": "completed"});
    let arguments: Arguments = args::parse_strict(NAME, arguments, example.clone())?;
    let id = arguments.experiment_id;
    let change = ExperimentChange {
        name: arguments.name,
        description: arguments.description,
        metadata: arguments.metadata,
        status: arguments.status.map(|status| status.to_lowercase()),
        error: arguments.error,
    };
    let status = change.status.as_deref();
    if status.is_some_and(|status| !STATUSES.contains(&status)) {
        return Err(ToolError::arguments(
            format!(
                "status must be one of {}; nothing was written",
                STATUSES.join(", ")
            ),
            "send one of these, or leave status out",
        )
        .example(NAME, example));
    }
    let fields: Vec<&str> = [
        ("name", change.name.is_some()),
        ("description", change.description.is_some()),
        ("metadata", change.metadata.is_some()),
        ("status", change.status.is_some()),
        ("error", change.error.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, sent)| sent.then_some(name))
    .collect();
    if fields.is_empty() {
        return Err(ToolError::arguments(
            "the call changes no field; nothing was written",
            "send at least one of name, description, metadata, status, error",
        )
        .example(NAME, example));
    }
    let written = context.client.update_experiment(&id, &change).await;
    written.map_err(|error| {
        let hint = "list_llmobs_experiments lists the experiments of a project";
        write_error(error, &id, hint)
    })?;
    let mut answer = JsonObject::default();
    answer.set("experiment_id", id);
    answer.set("updated_fields", fields);
    answer.set("status", "ok");
    write_object(answer, &Notes::default(), Budget::of_answer(None))
}
