//! `get_llmobs_full_dataset_records`: up to three records, complete as far as the budget allows.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::not_found;
use crate::render::{Budget, candidate};
use crate::tools::answer::Notes;
use crate::tools::args::{self, IdList};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::RecordFilter;
use llmobs_core::model::DatasetRecord;

const NAME: &str = "get_llmobs_full_dataset_records";
const MAX_RECORDS: usize = 3;
/// Pages of the upstream that one call reads.
const MAX_PAGES: usize = 40;
const PAGE_SIZE: usize = 500;
const MAX_CANDIDATES: usize = 10;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Full dataset records",
    description: "Up to three complete records of an LLM observability dataset: input, \
        expected_output, metadata, tags, uncut up to max_tokens (at most 20000).",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: String,
    /// Dataset UUID.
    dataset_id: String,
    /// One to three record ids.
    record_ids: IdList,
    /// Version; the current one by default.
    dataset_version: Option<usize>,
    /// Size of the answer in tokens. Default 20000.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let ids = arguments.record_ids.as_slice();
    if ids.len() > MAX_RECORDS {
        return Err(ToolError::arguments(
            format!(
                "{} record_ids exceed the maximum of {MAX_RECORDS}",
                ids.len()
            ),
            "read three records per call; get_llmobs_dataset_records shows many at once, shortened",
        )
        .example(NAME, arguments.example(ids.iter().take(MAX_RECORDS))));
    }
    let records = find_records(context, &arguments).await?;
    let mut notes = Notes::default();
    let missing = ids.len() - records.len();
    if missing > 0 {
        notes.add(format!(
            "{missing} of the record_ids are not in the dataset"
        ));
    }
    let rows: Vec<JsonObject> = records.iter().map(row).collect();
    let mut answer = JsonObject::default();
    answer.set("records", json!(rows));
    let max_tokens = arguments.max_tokens.unwrap_or(Budget::MAX_TOKENS);
    write_object(answer, &notes, Budget::of_answer(Some(max_tokens)))
}

impl Arguments {
    fn example<'a>(&self, record_ids: impl Iterator<Item = &'a String>) -> Value {
        json!({"project_id": candidate(&self.project_id),
            "dataset_id": candidate(&self.dataset_id),
            "record_ids": record_ids.collect::<Vec<_>>()})
    }
}

/// Reads pages of the upstream until all records are found.
async fn find_records(
    context: &ToolContext,
    arguments: &Arguments,
) -> Result<Vec<DatasetRecord>, ToolError> {
    let (project_id, dataset_id) = (&arguments.project_id, &arguments.dataset_id);
    let ids = arguments.record_ids.as_slice();
    let mut found: Vec<DatasetRecord> = Vec::new();
    let mut existing_ids: Vec<String> = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let filter = RecordFilter {
            version: arguments.dataset_version,
            tags: Vec::new(),
            limit: PAGE_SIZE,
            cursor,
        };
        let page = context
            .client
            .dataset_records(project_id, dataset_id, &filter);
        let page = match page.await {
            Ok(page) => page,
            Err(error) => {
                return Err(not_found(context, error, project_id, Some(dataset_id)).await);
            }
        };
        for record in page.rows {
            if existing_ids.len() < MAX_CANDIDATES {
                existing_ids.push(record.id.clone());
            }
            if ids.contains(&record.id) {
                found.push(record);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() || found.len() == ids.len() {
            break;
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let error = ToolError::new(
        Some(404),
        "record not found: none of these record_ids is in the dataset",
        "get_llmobs_dataset_records lists the records; `candidates` lists some of their ids",
    );
    let error = if existing_ids.is_empty() {
        error.example("list_llmobs_projects", json!({}))
    } else {
        error.example(NAME, arguments.example(existing_ids.iter().take(1)))
    };
    Err(error.candidates(existing_ids))
}

fn row(record: &DatasetRecord) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("id", record.id.as_str());
    row.set_unless_empty("canonical_id", record.canonical_id.clone());
    row.set_unless_empty("version", record.version);
    row.set("input", record.input.clone());
    row.set("expected_output", record.expected_output.clone());
    row.set("metadata", record.metadata.clone());
    row.set("tags", record.tags.clone());
    row
}
