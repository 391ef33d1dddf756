//! `list_llmobs_datasets`, and what the other dataset tools say of a dataset that is not there.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::{Paged, Place};
use crate::render::{candidate, cut_middle};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{ClientError, ListQuery};
use llmobs_core::model::Dataset;

pub(super) const NAME: &str = "list_llmobs_datasets";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "List datasets",
    description: "List the datasets of an LLM observability project with id, name and current \
        version. Read their records with get_llmobs_dataset_records.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: Text,
    /// Exact name.
    dataset_name: Option<Text>,
    /// Dataset UUID.
    dataset_id: Option<Text>,
    /// Rows. Default 50, at most 1000.
    limit: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let project_id = &arguments.project_id.0;
    let text = |value: &Option<Text>| value.as_ref().map(|text| text.0.clone());
    let (id, name) = (text(&arguments.dataset_id), text(&arguments.dataset_name));
    let question = format!("{project_id} {id:?} {name:?}");
    let limit = arguments.limit.map_or(DEFAULT_LIMIT, |count| count.0);
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let place = Place::read(
        NAME,
        cursor,
        &[&question],
        limit.clamp(1, MAX_LIMIT),
        || json!({"project_id": candidate(project_id)}),
    )?;
    let list = ListQuery {
        id,
        name,
        limit: place.l,
        cursor: place.u.clone(),
    };
    let page = match context.client.datasets(project_id, &list).await {
        Ok(page) => page,
        Err(error) => return Err(not_found(context, error, project_id, None).await),
    };
    let mut notes = Notes::default();
    if page.rows.is_empty() && list.cursor.is_none() {
        notes.add(if list.id.is_some() || list.name.is_some() {
            "no dataset of this project matches; names are exact: call again without filters"
        } else {
            "this project has no datasets; list_llmobs_projects shows the other projects"
        });
    }
    let values = page.rows.iter().map(row).collect();
    let rows = place.rows(values, page.next_cursor.as_deref());
    Paged::list(Keys::default(), "datasets", rows, notes).fit(arguments.max_tokens)
}

fn row(dataset: &Dataset) -> Value {
    let mut keys = Keys::default();
    keys.put("id", dataset.id.as_str());
    keys.put("name", cut_middle(&dataset.name, 200));
    let text = |value: &Option<String>| value.as_ref().map(|text| cut_middle(text, 500));
    keys.some("description", text(&dataset.description));
    keys.put("current_version", dataset.current_version);
    keys.some("created_at", text(&dataset.created_at));
    keys.some("updated_at", text(&dataset.updated_at));
    keys.into()
}

/// Explains a 404 of a dataset, or of its project; other errors stay as they are.
pub(super) async fn not_found(
    context: &ToolContext,
    error: ClientError,
    project_id: &str,
    dataset_id: Option<&str>,
) -> ToolError {
    if error.status() != Some(404) || error.outcome_unknown() {
        return error.into();
    }
    let (error, list) = match dataset_id {
        None => (
            format!("project not found: {}", candidate(project_id)),
            None,
        ),
        Some(id) => {
            let list = ListQuery {
                limit: 10,
                ..ListQuery::default()
            };
            // Only a hint hangs on it.
            let page = context.client.datasets(project_id, &list).await.ok();
            (
                format!("dataset not found: {} in this project", candidate(id)),
                page,
            )
        }
    };
    let rows = list.map(|page| page.rows).unwrap_or_default();
    if rows.is_empty() {
        return ToolError::new(
            Some(404),
            error,
            "check project_id: a dataset is found only in its own project",
        )
        .example("list_llmobs_projects", json!({}));
    }
    ToolError::new(
        Some(404),
        error,
        "`candidates` holds datasets of this project; a dataset is found only in its own project",
    )
    .example(NAME, json!({"project_id": candidate(project_id)}))
    .candidates(rows.iter().map(|dataset| dataset.id.as_str()))
}
