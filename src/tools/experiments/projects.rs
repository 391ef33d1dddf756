//! `list_llmobs_projects` and `get_llmobs_project`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objects::MAX_NAME_CHARS;
use crate::render::{Budget, candidate, cut_middle};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, UpstreamPosition, upstream_page, write_object};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::ListQuery;
use llmobs_core::analysis::candidates::rank;
use llmobs_core::model::Project;

const LIST: &str = "list_llmobs_projects";
const GET: &str = "get_llmobs_project";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
const MAX_TEXT_CHARS: usize = 500;

pub(super) const LIST_TOOL: Tool = Tool {
    name: LIST,
    title: "List projects",
    description: "List LLM observability projects, newest first, with their ids: projects contain \
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
    project_name: Option<String>,
    /// Project UUID.
    project_id: Option<String>,
    /// Rows. Default 50, at most 1000.
    limit: Option<usize>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct GetArguments {
    /// Project UUID.
    project_id: Option<String>,
    /// Exact name.
    project_name: Option<String>,
}

async fn list(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: ListArguments = args::parse(LIST, arguments)?;
    let (id, name) = (arguments.project_id, arguments.project_name);
    let request = [format!("{id:?}"), format!("{name:?}")];
    let list = ListRequest::new(LIST, request, json!({}));
    let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let position = UpstreamPosition::read(&list, arguments.cursor.as_deref(), limit)?;
    let filter = ListQuery {
        id,
        name,
        limit: position.page_size,
        cursor: position.upstream_token.clone(),
    };
    let page = context.client.projects(&filter).await?;
    let mut notes = Notes::default();
    if page.rows.is_empty() && filter.cursor.is_none() {
        notes.add(if filter.id.is_some() || filter.name.is_some() {
            "no project matches; names are exact: call again without filters to see all projects"
        } else {
            "there are no projects yet: the SDK creates one with an experiment or dataset"
        });
    }
    let rows = page.rows.iter().map(row).collect();
    upstream_page(&list, &position, "projects", rows, page.next_cursor, notes)
        .write(Budget::of_answer(arguments.max_tokens))
}

async fn get(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: GetArguments = args::parse(GET, arguments)?;
    let (id, name) = (arguments.project_id, arguments.project_name);
    if id.is_none() && name.is_none() {
        return Err(ToolError::arguments(
            "get_llmobs_project needs project_id or project_name",
            "list_llmobs_projects lists both",
        )
        .example(LIST, json!({})));
    }
    let filter = ListQuery {
        id: id.clone(),
        name: name.clone(),
        limit: 10,
        cursor: None,
    };
    let page = context.client.projects(&filter).await?;
    let project = page.rows.iter().find(|project| {
        id.as_ref().is_none_or(|id| *id == project.id)
            && name.as_ref().is_none_or(|name| *name == project.name)
    });
    match project {
        Some(project) => write_object(row(project), &Notes::default(), Budget::of_answer(None)),
        None => Err(not_found(context, &name.or(id).unwrap_or_default()).await),
    }
}

/// The error for an unknown project, with the names of existing projects.
async fn not_found(context: &ToolContext, id_or_name: &str) -> ToolError {
    let all = ListQuery {
        limit: 200,
        ..ListQuery::default()
    };
    // The list only improves the hint: if it fails, the error is the same without it.
    let rows = match context.client.projects(&all).await {
        Ok(page) => page.rows,
        Err(_) => Vec::new(),
    };
    let names = rows.iter().map(|project| project.name.as_str());
    ToolError::new(
        Some(404),
        format!("project not found: {}", candidate(id_or_name)),
        "names are exact; `candidates` lists existing names, nearest first",
    )
    .example(LIST, json!({}))
    .candidates(rank(id_or_name, names))
}

fn row(project: &Project) -> JsonObject {
    let text = |text: &Option<String>| text.as_ref().map(|text| cut_middle(text, MAX_TEXT_CHARS));
    let mut row = JsonObject::default();
    row.set("id", project.id.as_str());
    row.set("name", cut_middle(&project.name, MAX_NAME_CHARS));
    row.set_unless_empty("description", text(&project.description));
    row.set_unless_empty("created_at", text(&project.created_at));
    row.set_unless_empty("updated_at", text(&project.updated_at));
    row
}
