//! `add_llmobs_dataset_records`: shows the records to add, and adds them with `confirmed: true`.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::{self, not_found};
use super::objects::MAX_NAME_CHARS;
use crate::render::{Budget, candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args::{self, ObjectList};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{ListQuery, NewRecord};
use llmobs_core::model::Dataset;

const NAME: &str = "add_llmobs_dataset_records";
const MAX_RECORDS: usize = 1_000;
const RECORD_KEYS: [&str; 4] = ["input", "expected_output", "metadata", "tags"];
/// Records that the preview shows.
const MAX_PREVIEW_RECORDS: usize = 3;
const MAX_PREVIEW_CHARS: usize = 600;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Add dataset records",
    description: "Add records to an LLM observability dataset. Without confirmed: true nothing is \
        written and the answer is a preview; show it to the user, then send the same call with \
        confirmed: true. A record has input, and optionally expected_output, metadata, tags.",
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
    /// Dataset UUID.
    dataset_id: String,
    /// {input, expected_output, metadata, tags: ["key:value"]} each.
    records: ObjectList,
    /// true writes; default is a preview.
    confirmed: Option<bool>,
    /// Whether the dataset gets a new version. Default true.
    create_new_version: Option<bool>,
}

fn example() -> Value {
    json!({"project_id": "<project id>", "dataset_id": "<dataset id>",
        "records": [{"input": {"question": "Capital of Peru?"}, "expected_output": "Lima", "tags": ["region:latam"]}]})
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse_strict(NAME, arguments, example())?;
    let records = read_records(&arguments.records)?;
    let dataset = find_dataset(context, &arguments).await?;
    if !arguments.confirmed.unwrap_or(false) {
        return preview(&arguments, &records, &dataset);
    }
    let (project_id, dataset_id) = (&arguments.project_id, &arguments.dataset_id);
    let new_version = arguments.create_new_version.unwrap_or(true);
    let added = context
        .client
        .add_dataset_records(project_id, dataset_id, &records, new_version)
        .await?;
    let ids: Vec<&str> = added.iter().map(|record| record.id.as_str()).collect();
    let mut answer = JsonObject::default();
    answer.set("inserted", added.len());
    answer.set("project_id", project_id.as_str());
    answer.set("dataset_id", dataset_id.as_str());
    answer.set("record_ids", ids);
    let mut notes = Notes::default();
    if added.len() < records.len() {
        notes.add(format!(
            "{} of {} records were not inserted, because the dataset has equal records",
            records.len() - added.len(),
            records.len()
        ));
    }
    write_object(answer, &notes, Budget::of_answer(None))
}

async fn find_dataset(context: &ToolContext, arguments: &Arguments) -> Result<Dataset, ToolError> {
    let (project_id, dataset_id) = (&arguments.project_id, &arguments.dataset_id);
    let filter = ListQuery {
        id: Some(dataset_id.clone()),
        limit: 1,
        ..ListQuery::default()
    };
    let page = match context.client.datasets(project_id, &filter).await {
        Ok(page) => page,
        Err(error) => return Err(not_found(context, error, project_id, None).await),
    };
    let dataset = page.rows.into_iter().find(|row| row.id == *dataset_id);
    dataset.ok_or_else(|| {
        let id = candidate(dataset_id);
        ToolError::new(
            Some(404),
            format!("dataset not found: {id} in this project; nothing was written"),
            "list_llmobs_datasets lists the datasets of a project",
        )
        .example(datasets::NAME, json!({"project_id": candidate(project_id)}))
    })
}

fn preview(
    arguments: &Arguments,
    records: &[NewRecord],
    dataset: &Dataset,
) -> Result<String, ToolError> {
    let tags: BTreeSet<&String> = records.iter().flat_map(|record| &record.tags).collect();
    let first_records = arguments.records.iter().take(MAX_PREVIEW_RECORDS);
    let first_records: Vec<Value> = first_records
        .map(|record| squeeze(&Value::Object(record.clone()), MAX_PREVIEW_CHARS).0)
        .collect();
    let mut answer = JsonObject::default();
    answer.set("confirmed", false);
    answer.set("planned_record_count", records.len());
    answer.set("project_id", arguments.project_id.as_str());
    answer.set("dataset_id", arguments.dataset_id.as_str());
    answer.set("dataset_name", cut_middle(&dataset.name, MAX_NAME_CHARS));
    answer.set("current_version", dataset.current_version);
    answer.set(
        "create_new_version",
        arguments.create_new_version.unwrap_or(true),
    );
    answer.set("tag_union", json!(tags));
    answer.set("first_records", first_records);
    let mut notes = Notes::default();
    notes.add("nothing was written: send the same call with confirmed: true to add the records");
    write_object(answer, &notes, Budget::of_answer(None))
}

fn read_records(rows: &[Map<String, Value>]) -> Result<Vec<NewRecord>, ToolError> {
    let error = |error: String| {
        ToolError::arguments(
            format!("{error}; nothing was written"),
            "a record has input, expected_output, metadata (an object) and tags (a list of key:value)",
        )
        .example(NAME, example())
    };
    if rows.len() > MAX_RECORDS {
        return Err(error(format!(
            "more than {MAX_RECORDS} records in one call"
        )));
    }
    rows.iter()
        .enumerate()
        .map(|(index, row)| {
            read_record(row).map_err(|problem| error(format!("records[{index}] {problem}")))
        })
        .collect()
}

/// A record, or the problem with it.
fn read_record(row: &Map<String, Value>) -> Result<NewRecord, String> {
    if let Some(problem) = args::unknown_key(row, &RECORD_KEYS) {
        return Err(problem);
    }
    let field = |key: &str| row.get(key).filter(|value| !value.is_null()).cloned();
    let metadata = match field("metadata") {
        None => None,
        Some(Value::Object(map)) => Some(map),
        Some(_) => return Err("has metadata that is not an object".to_owned()),
    };
    let tags = read_tags(field("tags")).ok_or("has tags that are not key:value texts")?;
    let (input, expected_output) = (field("input"), field("expected_output"));
    if input.is_none() && expected_output.is_none() && metadata.is_none() {
        return Err("is empty".to_owned());
    }
    Ok(NewRecord {
        input: input.unwrap_or_default(),
        expected_output,
        metadata,
        tags,
    })
}

/// Tags from a list of `key:value` or from an object.
fn read_tags(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| {
                let tag = item.as_str()?;
                tag.contains(':').then(|| tag.to_owned())
            })
            .collect(),
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) => Some(format!("{key}:{text}")),
                Value::Number(_) | Value::Bool(_) => Some(format!("{key}:{value}")),
                _ => None,
            })
            .collect(),
        Some(_) => None,
    }
}
