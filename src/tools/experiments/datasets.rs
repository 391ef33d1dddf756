//! `list_llmobs_datasets`, and the error of every dataset tool for an unknown dataset.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objects::MAX_NAME_CHARS;
use crate::render::{Budget, candidate, cut_middle};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, UpstreamPosition, upstream_page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{ClientError, ListQuery};
use llmobs_core::model::Dataset;

pub(super) const NAME: &str = "list_llmobs_datasets";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
const MAX_TEXT_CHARS: usize = 500;

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
    project_id: String,
    /// Exact name.
    dataset_name: Option<String>,
    /// Dataset UUID.
    dataset_id: Option<String>,
    /// Rows. Default 50, at most 1000.
    limit: Option<usize>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let project_id = arguments.project_id.as_str();
    let (id, name) = (arguments.dataset_id, arguments.dataset_name);
    let request = [
        project_id.to_owned(),
        format!("{id:?}"),
        format!("{name:?}"),
    ];
    let example = json!({"project_id": candidate(project_id)});
    let list = ListRequest::new(NAME, request, example);
    let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let position = UpstreamPosition::read(&list, arguments.cursor.as_deref(), limit)?;
    let filter = ListQuery {
        id,
        name,
        limit: position.page_size,
        cursor: position.upstream_token.clone(),
    };
    let page = match context.client.datasets(project_id, &filter).await {
        Ok(page) => page,
        Err(error) => return Err(not_found(context, error, project_id, None).await),
    };
    let mut notes = Notes::default();
    if page.rows.is_empty() && filter.cursor.is_none() {
        notes.add(if filter.id.is_some() || filter.name.is_some() {
            "no dataset of this project matches; names are exact: call again without filters"
        } else {
            "this project has no datasets; list_llmobs_projects lists the other projects"
        });
    }
    let rows = page.rows.iter().map(row).collect();
    upstream_page(&list, &position, "datasets", rows, page.next_cursor, notes)
        .write(Budget::of_answer(arguments.max_tokens))
}

fn row(dataset: &Dataset) -> JsonObject {
    let text = |text: &Option<String>| text.as_ref().map(|text| cut_middle(text, MAX_TEXT_CHARS));
    let mut row = JsonObject::default();
    row.set("id", dataset.id.as_str());
    row.set("name", cut_middle(&dataset.name, MAX_NAME_CHARS));
    row.set_unless_empty("description", text(&dataset.description));
    row.set("current_version", dataset.current_version);
    row.set_unless_empty("created_at", text(&dataset.created_at));
    row.set_unless_empty("updated_at", text(&dataset.updated_at));
    row
}

/// Explains a 404 for a dataset or its project. Other errors are unchanged.
pub(super) async fn not_found(
    context: &ToolContext,
    error: ClientError,
    project_id: &str,
    dataset_id: Option<&str>,
) -> ToolError {
    if error.status() != Some(404) || error.outcome_unknown() {
        return error.into();
    }
    let Some(dataset_id) = dataset_id else {
        return wrong_project(format!("project not found: {}", candidate(project_id)));
    };
    let error = format!(
        "dataset not found: {} in this project",
        candidate(dataset_id)
    );
    let filter = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    // The list only improves the hint: if it fails, the error is the same without it.
    let rows = match context.client.datasets(project_id, &filter).await {
        Ok(page) => page.rows,
        Err(_) => Vec::new(),
    };
    if rows.is_empty() {
        return wrong_project(error);
    }
    ToolError::new(
        Some(404),
        error,
        "`candidates` lists datasets of this project; a dataset belongs to one project only",
    )
    .example(NAME, json!({"project_id": candidate(project_id)}))
    .candidates(rows.iter().map(|dataset| dataset.id.as_str()))
}

fn wrong_project(error: String) -> ToolError {
    ToolError::new(
        Some(404),
        error,
        "check project_id: a dataset belongs to one project only",
    )
    .example("list_llmobs_projects", json!({}))
}
