//! `create_llmobs_experiment`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objects::{MAX_CONFIG_CHARS, set_experiment};
use crate::render::{Budget, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::NewExperiment;

const NAME: &str = "create_llmobs_experiment";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Create experiment",
    description: "Create an LLM experiment in a project and return its id and unique run name. Then \
        submit metrics with submit_llmobs_experiment_events and set its status with \
        update_llmobs_experiment. It does not run the task: the SDK does.",
    toolset: "llmobs",
    access: Access::Write {
        destructive: false,
        idempotent: false,
    },
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: String,
    /// Name; the upstream makes it unique.
    experiment_name: String,
    /// Dataset UUID.
    dataset_id: Option<String>,
    /// Version of the dataset.
    dataset_version: Option<usize>,
    /// What the experiment is about.
    description: Option<String>,
    /// Parameters of the task.
    config: Option<Map<String, Value>>,
    /// Free-form metadata.
    metadata: Option<Map<String, Value>>,
    /// Runs per record.
    run_count: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let example = json!({"project_id": "<project id>", "experiment_name": "capitals-baseline"});
    let arguments: Arguments = args::parse_strict(NAME, arguments, example.clone())?;
    let count = |count: Option<usize>| count.and_then(|count| i64::try_from(count).ok());
    let new = NewExperiment {
        name: arguments.experiment_name,
        project_id: arguments.project_id,
        dataset_id: arguments.dataset_id,
        dataset_version: count(arguments.dataset_version),
        description: arguments.description,
        config: arguments.config,
        metadata: arguments.metadata,
        run_count: count(arguments.run_count),
    };
    if new.name.is_empty() || new.project_id.is_empty() {
        return Err(ToolError::arguments(
            "project_id and experiment_name must not be empty; nothing was written",
            "list_llmobs_projects lists project ids",
        )
        .example(NAME, example));
    }
    let created = context.client.create_experiment(&new).await?;
    let mut answer = JsonObject::default();
    answer.set("experiment_id", created.id.as_str());
    set_experiment(&mut answer, &created);
    // The answer of a Datadog site does not contain the config.
    if let (None, Some(config)) = (answer.0.get("config"), new.config) {
        let config = squeeze(&Value::Object(config), MAX_CONFIG_CHARS).0;
        answer.set_unless_empty("config", config);
    }
    write_object(answer, &Notes::default(), Budget::of_answer(None))
}
