//! `list_llmobs_projects` and `get_llmobs_project`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::{Paged, Place, Single};
use crate::render::{candidate, cut_middle};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::ListQuery;
use llmobs_core::analysis::candidates::rank;
use llmobs_core::model::Project;

const LIST: &str = "list_llmobs_projects";
const GET: &str = "get_llmobs_project";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;

pub(super) const LIST_TOOL: Tool = Tool {
    name: LIST,
    title: "List projects",
    description: "List LLM observability projects, the newest first, with their ids: projects hold \
        datasets and experiments. Filter by exact name or id.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<ListArguments>,
    run: |context, arguments| Box::pin(list(context, arguments)),
};

pub(super) const GET_TOOL: Tool = Tool {
    name: GET,
    title: "Get project",
    description: "One LLM observability project by project_id or exact project_name: id, name, \
        description, dates.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<GetArguments>,
    run: |context, arguments| Box::pin(get(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct ListArguments {
    /// Exact name.
    project_name: Option<Text>,
    /// Project UUID.
    project_id: Option<Text>,
    /// Rows. Default 50, at most 1000.
    limit: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

#[derive(Deserialize, JsonSchema)]
struct GetArguments {
    /// Project UUID.
    project_id: Option<Text>,
    /// Exact name.
    project_name: Option<Text>,
}

async fn list(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: ListArguments = args::parse(LIST, arguments)?;
    let text = |value: &Option<Text>| value.as_ref().map(|text| text.0.clone());
    let (id, name) = (text(&arguments.project_id), text(&arguments.project_name));
    let question = format!("{id:?} {name:?}");
    let limit = arguments.limit.map_or(DEFAULT_LIMIT, |count| count.0);
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let place = Place::read(
        LIST,
        cursor,
        &[&question],
        limit.clamp(1, MAX_LIMIT),
        || json!({}),
    )?;
    let list = ListQuery {
        id,
        name,
        limit: place.l,
        cursor: place.u.clone(),
    };
    let page = context.client.projects(&list).await?;
    let mut notes = Notes::default();
    if page.rows.is_empty() && list.cursor.is_none() {
        notes.add(if list.id.is_some() || list.name.is_some() {
            "no project matches; names are exact: call again without filters to see all"
        } else {
            "there are no projects yet: the SDK makes one when an experiment or dataset is made"
        });
    }
    let values = page
        .rows
        .iter()
        .map(|project| row(project).into())
        .collect();
    let rows = place.rows(values, page.next_cursor.as_deref());
    Paged::list(Keys::default(), "projects", rows, notes).fit(arguments.max_tokens)
}

async fn get(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: GetArguments = args::parse(GET, arguments)?;
    let text = |value: &Option<Text>| value.as_ref().map(|text| text.0.clone());
    let (id, name) = (text(&arguments.project_id), text(&arguments.project_name));
    if id.is_none() && name.is_none() {
        return Err(ToolError::arguments(
            "get_llmobs_project needs project_id or project_name",
            "list_llmobs_projects shows both",
        )
        .example(LIST, json!({})));
    }
    let list = ListQuery {
        id: id.clone(),
        name: name.clone(),
        limit: 10,
        cursor: None,
    };
    let page = context.client.projects(&list).await?;
    let found = page.rows.iter().find(|project| {
        id.as_ref().is_none_or(|id| *id == project.id)
            && name.as_ref().is_none_or(|name| *name == project.name)
    });
    match found {
        Some(project) => Single::fit(row(project), &Notes::default(), None),
        None => Err(not_found(context, &name.or(id).unwrap_or_default()).await),
    }
}

/// The refusal of a project that is not there, with those that are.
async fn not_found(context: &ToolContext, asked: &str) -> ToolError {
    let all = ListQuery {
        limit: 200,
        ..ListQuery::default()
    };
    // Only a hint hangs on it.
    let rows = match context.client.projects(&all).await {
        Ok(page) => page.rows,
        Err(_) => Vec::new(),
    };
    ToolError::new(
        Some(404),
        format!("project not found: {}", candidate(asked)),
        "names are exact; `candidates` holds names that exist, the nearest first",
    )
    .example(LIST, json!({}))
    .candidates(rank(
        asked,
        rows.iter().map(|project| project.name.as_str()),
    ))
}

fn row(project: &Project) -> Keys {
    let mut keys = Keys::default();
    keys.put("id", project.id.as_str());
    keys.put("name", cut_middle(&project.name, 200));
    let text = |value: &Option<String>| value.as_ref().map(|text| cut_middle(text, 500));
    keys.some("description", text(&project.description));
    keys.some("created_at", text(&project.created_at));
    keys.some("updated_at", text(&project.updated_at));
    keys
}
