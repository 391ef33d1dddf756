//! `update_llmobs_experiment`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::Single;
use crate::render::candidate;
use crate::tools::answer::Notes;
use crate::tools::args::{self, Object, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{ClientError, ExperimentChange};

const NAME: &str = "update_llmobs_experiment";
const STATUSES: [&str; 4] = ["running", "completed", "failed", "interrupted"];

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Update experiment",
    description: "Change an LLM experiment: status (running, completed, failed, interrupted), \
        error, name, description, metadata. metadata replaces all of the old one. What is left out \
        stays as it is.",
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
    experiment_id: Text,
    /// New run name.
    name: Option<Text>,
    /// New description.
    description: Option<Text>,
    /// Replaces the metadata.
    metadata: Option<Object>,
    /// running, completed, failed or interrupted.
    status: Option<Text>,
    /// Why it failed.
    error: Option<Text>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let example = json!({"experiment_id": "<experiment id>", "status": "completed"});
    let arguments: Arguments = args::parse_strict(NAME, arguments, example.clone())?;
    let id = arguments.experiment_id.0;
    let text = |value: Option<Text>| value.map(|text| text.0);
    let change = ExperimentChange {
        name: text(arguments.name),
        description: text(arguments.description),
        metadata: arguments.metadata.map(|object| object.0),
        status: text(arguments.status).map(|status| status.to_lowercase()),
        error: text(arguments.error),
    };
    let wrong_status = |status: &String| !STATUSES.contains(&status.as_str());
    if change.status.as_ref().is_some_and(wrong_status) {
        return Err(ToolError::arguments(
            "status is not one that an experiment can have; nothing was written",
            format!("it is one of {}", STATUSES.join(", ")),
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
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    if fields.is_empty() {
        return Err(ToolError::arguments(
            "no field to change was sent; nothing was written",
            "send at least one of name, description, metadata, status, error",
        )
        .example(NAME, example));
    }
    match context.client.update_experiment(&id, &change).await {
        Ok(()) => {}
        Err(ClientError::ExperimentNotFound(_)) => {
            return Err(ToolError::new(
                Some(404),
                format!(
                    "experiment not found: {}; nothing was written",
                    candidate(&id)
                ),
                "list_llmobs_experiments gives the ids of a project's experiments",
            )
            .example("list_llmobs_projects", json!({})));
        }
        Err(error) => return Err(error.into()),
    }
    let mut keys = Keys::default();
    keys.put("experiment_id", id);
    keys.put("updated_fields", fields);
    keys.put("status", "ok");
    Single::fit(keys, &Notes::default(), None)
}
