//! `get_llmobs_full_dataset_records`: up to three records, untrimmed as far as the answer bears.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::not_found;
use super::{Keys, NAME_FULL as NAME};
use crate::render::{Budget, candidate};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Ids, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::RecordFilter;
use llmobs_core::model::DatasetRecord;

use super::paged::Single;

const MOST_RECORDS: usize = 3;
const MAX_PAGES: usize = 40;
const PAGE: usize = 500;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Full dataset records",
    description: "Up to three records of an LLM observability dataset in full: input, \
        expected_output, metadata, tags, untrimmed up to max_tokens (at most 20000).",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Project UUID.
    project_id: Text,
    /// Dataset UUID.
    dataset_id: Text,
    /// One to three record ids.
    record_ids: Ids,
    /// Version; the current one by default.
    dataset_version: Option<Count>,
    /// Size of the answer in tokens. Default 20000.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (project_id, dataset_id) = (&arguments.project_id.0, &arguments.dataset_id.0);
    let ids = &arguments.record_ids.0;
    let example = |ids: &[&str]| json!({"project_id": candidate(project_id), "dataset_id": candidate(dataset_id), "record_ids": ids});
    if ids.len() > MOST_RECORDS {
        let first: Vec<&str> = ids.iter().take(MOST_RECORDS).map(String::as_str).collect();
        return Err(ToolError::arguments(
            format!(
                "{} record_ids were asked for, and {MOST_RECORDS} is the most",
                ids.len()
            ),
            "ask for three at a time; get_llmobs_dataset_records shows many at once, cut",
        )
        .example(NAME, example(&first)));
    }
    let mut found: Vec<DatasetRecord> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let filter = RecordFilter {
            version: arguments.dataset_version.map(|count| count.0),
            tags: Vec::new(),
            limit: PAGE,
            cursor,
        };
        let page = match context
            .client
            .dataset_records(project_id, dataset_id, &filter)
            .await
        {
            Ok(page) => page,
            Err(error) => {
                return Err(not_found(context, error, project_id, Some(dataset_id)).await);
            }
        };
        for record in page.rows {
            if seen.len() < 10 {
                seen.push(record.id.clone());
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
    if found.is_empty() {
        let error = ToolError::new(
            Some(404),
            "record not found: none of these record_ids is in the dataset",
            "get_llmobs_dataset_records shows the ids there are; some are in `candidates`",
        );
        let first: Vec<&str> = seen.iter().take(1).map(String::as_str).collect();
        return Err(if first.is_empty() {
            error.example("list_llmobs_projects", json!({}))
        } else {
            error.example(NAME, example(&first))
        }
        .candidates(seen));
    }
    let mut notes = Notes::default();
    let missing = ids.len() - found.len();
    if missing > 0 {
        notes.add(format!(
            "{missing} of the record_ids are not in the dataset"
        ));
    }
    let mut keys = Keys::default();
    keys.put("records", found.iter().map(row).collect::<Vec<_>>());
    let most = Count(Budget::MAX_TOKENS);
    Single::fit(keys, &notes, Some(arguments.max_tokens.unwrap_or(most)))
}

fn row(record: &DatasetRecord) -> Value {
    let mut keys = Keys::default();
    keys.put("id", record.id.as_str());
    keys.some("canonical_id", record.canonical_id.clone());
    keys.some("version", record.version);
    keys.put("input", record.input.clone());
    keys.put("expected_output", record.expected_output.clone());
    keys.put("metadata", record.metadata.clone());
    keys.put("tags", record.tags.clone());
    keys.into()
}
