//! `list_llmobs_experiments`: the experiments of a project or over a dataset.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::{Paged, Place};
use crate::render::{candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::ExperimentFilter;
use llmobs_core::model::Experiment;

const NAME: &str = "list_llmobs_experiments";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;
const MAX_CONFIG: usize = 400;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "List experiments",
    description: "List LLM experiments of a project or over a dataset, the newest first: id, run \
        name, status, dataset and version, config. Give project_id or dataset_id \
        (list_llmobs_projects has them).",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: Option<Text>,
    /// Dataset UUID.
    dataset_id: Option<Text>,
    /// Name as asked for when it was made; runs share it.
    experiment_name: Option<Text>,
    /// Only re-runs of this experiment.
    parent_experiment_id: Option<Text>,
    /// Rows. Default 20, at most 200.
    limit: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let text = |value: &Option<Text>| value.as_ref().map(|text| text.0.clone());
    let filter = ExperimentFilter {
        project_id: text(&arguments.project_id),
        dataset_id: text(&arguments.dataset_id),
        ids: Vec::new(),
        experiment: text(&arguments.experiment_name),
        parent_experiment_id: text(&arguments.parent_experiment_id),
    };
    if filter == ExperimentFilter::default() {
        return Err(ToolError::arguments(
            "list_llmobs_experiments needs project_id or dataset_id",
            "list_llmobs_projects gives project ids",
        )
        .example("list_llmobs_projects", json!({})));
    }
    let mark = format!("{filter:?}");
    let limit = arguments.limit.map_or(DEFAULT_LIMIT, |count| count.0);
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let place = Place::read(
        NAME,
        cursor,
        &[&mark],
        limit.clamp(1, MAX_LIMIT),
        || json!({"project_id": arguments.project_id.as_ref().map(|id| candidate(&id.0))}),
    )?;
    let page = context
        .client
        .experiments(&filter, place.l, place.u.as_deref())
        .await?;
    let mut notes = Notes::default();
    if limit > MAX_LIMIT {
        notes.add(format!(
            "limit was brought down to {MAX_LIMIT}; next_cursor leads to the rest"
        ));
    }
    if page.rows.is_empty() && place.u.is_none() {
        notes.add("no experiment matches all of these filters; check the ids, or drop one");
    }
    let values = page.rows.iter().map(row).collect();
    let rows = place.rows(values, page.next_cursor.as_deref());
    Paged::list(Keys::default(), "experiments", rows, notes).fit(arguments.max_tokens)
}

fn row(experiment: &Experiment) -> Value {
    let mut keys = Keys::default();
    keys.put("id", experiment.id.as_str());
    super::summary::describe(&mut keys, experiment);
    for key in ["config", "error", "description"] {
        if let Some(value) = keys.0.get_mut(key) {
            *value = squeeze(value, MAX_CONFIG).0;
        }
    }
    keys.some(
        "updated_at",
        experiment
            .updated_at
            .as_ref()
            .map(|text| cut_middle(text, 100)),
    );
    keys.into()
}
