//! `create_llmobs_experiment`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::Single;
use super::summary::describe;
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Object, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::NewExperiment;

const NAME: &str = "create_llmobs_experiment";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Create experiment",
    description: "Create an LLM experiment in a project: gives its id and unique run name. Then \
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
    project_id: Text,
    /// Name; the upstream makes it unique.
    experiment_name: Text,
    /// Dataset UUID.
    dataset_id: Option<Text>,
    /// Version of the dataset.
    dataset_version: Option<Count>,
    /// What it is about.
    description: Option<Text>,
    /// Parameters of the task.
    config: Option<Object>,
    /// Free-form metadata.
    metadata: Option<Object>,
    /// Runs per record.
    run_count: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let example = json!({"project_id": "<project id>", "experiment_name": "capitals-baseline"});
    let arguments: Arguments = args::parse_strict(NAME, arguments, example.clone())?;
    let text = |value: Option<Text>| value.map(|text| text.0);
    let count = |value: Option<Count>| value.and_then(|count| i64::try_from(count.0).ok());
    let new = NewExperiment {
        name: arguments.experiment_name.0,
        project_id: arguments.project_id.0,
        dataset_id: text(arguments.dataset_id),
        dataset_version: count(arguments.dataset_version),
        description: text(arguments.description),
        config: arguments.config.map(|object| object.0),
        metadata: arguments.metadata.map(|object| object.0),
        run_count: count(arguments.run_count),
    };
    if new.name.is_empty() || new.project_id.is_empty() {
        return Err(ToolError::arguments(
            "project_id and experiment_name may not be empty; nothing was written",
            "list_llmobs_projects gives project ids",
        )
        .example(NAME, example));
    }
    let made = context.client.create_experiment(&new).await?;
    let mut keys = Keys::default();
    keys.put("experiment_id", made.id.as_str());
    describe(&mut keys, &made);
    // Datadog's answer leaves out the config that it was sent.
    if let (None, Some(config)) = (keys.0.get("config"), new.config) {
        keys.some(
            "config",
            crate::render::squeeze(&Value::Object(config), 1_200).0,
        );
    }
    Single::fit(keys, &Notes::default(), None)
}
