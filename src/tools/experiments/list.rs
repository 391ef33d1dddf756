//! `list_llmobs_experiments`: the experiments of a project or dataset.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objects::set_experiment;
use crate::render::{Budget, candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, UpstreamPosition, upstream_page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::ExperimentFilter;
use llmobs_core::model::Experiment;

const NAME: &str = "list_llmobs_experiments";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;
const MAX_FIELD_CHARS: usize = 400;
const MAX_TIME_CHARS: usize = 100;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "List experiments",
    description: "List LLM experiments of a project or dataset, newest first: id, run name, status, \
        dataset and version, config. Needs project_id or dataset_id (see list_llmobs_projects).",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: Option<String>,
    /// Dataset UUID.
    dataset_id: Option<String>,
    /// Name that the experiment was created with; its runs share it.
    experiment_name: Option<String>,
    /// Only re-runs of this experiment.
    parent_experiment_id: Option<String>,
    /// Rows. Default 20, at most 200.
    limit: Option<usize>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let filter = ExperimentFilter {
        project_id: arguments.project_id,
        dataset_id: arguments.dataset_id,
        ids: Vec::new(),
        experiment: arguments.experiment_name,
        parent_experiment_id: arguments.parent_experiment_id,
    };
    if filter == ExperimentFilter::default() {
        return Err(ToolError::arguments(
            "list_llmobs_experiments needs project_id or dataset_id",
            "list_llmobs_projects lists project ids",
        )
        .example("list_llmobs_projects", json!({})));
    }
    let project_id = filter.project_id.as_ref().map(|id| candidate(id));
    let example = json!({"project_id": project_id});
    let list = ListRequest::new(NAME, [format!("{filter:?}")], example);
    let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT);
    let cursor = arguments.cursor.as_deref();
    let position = UpstreamPosition::read(&list, cursor, limit.clamp(1, MAX_LIMIT))?;
    let upstream_token = position.upstream_token.as_deref();
    let page = context
        .client
        .experiments(&filter, position.page_size, upstream_token)
        .await?;
    let mut notes = Notes::default();
    notes.add_reduced_limit(limit, MAX_LIMIT);
    if page.rows.is_empty() && upstream_token.is_none() {
        notes.add("no experiment matches all of these filters; check the ids, or remove a filter");
    }
    let rows = page.rows.iter().map(row).collect();
    upstream_page(
        &list,
        &position,
        "experiments",
        rows,
        page.next_cursor,
        notes,
    )
    .write(Budget::of_answer(arguments.max_tokens))
}

fn row(experiment: &Experiment) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("id", experiment.id.as_str());
    set_experiment(&mut row, experiment);
    for key in ["config", "error", "description"] {
        if let Some(value) = row.0.get_mut(key) {
            *value = squeeze(value, MAX_FIELD_CHARS).0;
        }
    }
    let updated_at = experiment.updated_at.as_ref();
    row.set_unless_empty(
        "updated_at",
        updated_at.map(|text| cut_middle(text, MAX_TIME_CHARS)),
    );
    row
}
