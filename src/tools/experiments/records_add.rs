//! `add_llmobs_dataset_records`: shows what would be added, and adds it once confirmed.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::datasets::not_found;
use super::paged::Single;
use crate::render::{candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Flag, Objects, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{ListQuery, NewRecord};
use llmobs_core::analysis::candidates::closest;

const NAME: &str = "add_llmobs_dataset_records";
const MOST_RECORDS: usize = 1_000;
const FIELDS: [&str; 4] = ["input", "expected_output", "metadata", "tags"];
const SHOWN: usize = 3;
const MAX_SHOWN: usize = 600;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Add dataset records",
    description: "Add records to an LLM observability dataset. Without confirmed: true nothing is \
        written and the answer is a preview; show it to the user, then send the same call with \
        confirmed: true. A record holds input, and optionally expected_output, metadata, tags.",
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
    /// Dataset UUID.
    dataset_id: Text,
    /// {input, expected_output, metadata, tags: ["key:value"]} each.
    records: Objects,
    /// true writes; default is a preview.
    confirmed: Option<Flag>,
    /// Whether the dataset gets a new version. Default true.
    create_new_version: Option<Flag>,
}

fn example() -> Value {
    json!({"project_id": "<project id>", "dataset_id": "<dataset id>",
        "records": [{"input": {"question": "Capital of Peru?"}, "expected_output": "Lima", "tags": ["region:latam"]}]})
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse_strict(NAME, arguments, example())?;
    let (project_id, dataset_id) = (&arguments.project_id.0, &arguments.dataset_id.0);
    let records = read(&arguments.records.0)?;
    let new_version = arguments.create_new_version.is_none_or(|flag| flag.0);
    let list = ListQuery {
        id: Some(dataset_id.clone()),
        limit: 1,
        ..ListQuery::default()
    };
    let page = match context.client.datasets(project_id, &list).await {
        Ok(page) => page,
        Err(error) => return Err(not_found(context, error, project_id, None).await),
    };
    let Some(dataset) = page.rows.iter().find(|row| row.id == *dataset_id) else {
        return Err(ToolError::new(
            Some(404),
            format!(
                "dataset not found: {} in this project; nothing was written",
                candidate(dataset_id)
            ),
            "list_llmobs_datasets shows the datasets of a project",
        )
        .example(
            super::datasets::NAME,
            json!({"project_id": candidate(project_id)}),
        ));
    };
    let mut keys = Keys::default();
    let mut notes = Notes::default();
    if arguments.confirmed.is_some_and(|flag| flag.0) {
        let added = context
            .client
            .add_dataset_records(project_id, dataset_id, &records, new_version)
            .await?;
        keys.put("inserted", added.len());
        keys.put("project_id", project_id.as_str());
        keys.put("dataset_id", dataset_id.as_str());
        let ids: Vec<&str> = added.iter().map(|record| record.id.as_str()).collect();
        keys.put("record_ids", ids);
        if added.len() < records.len() {
            notes.add(format!(
                "{} of {} records were not inserted: records equal to those of the dataset are added once",
                records.len() - added.len(),
                records.len()
            ));
        }
        return Single::fit(keys, &notes, None);
    }
    keys.put("confirmed", false);
    keys.put("planned_record_count", records.len());
    keys.put("project_id", project_id.as_str());
    keys.put("dataset_id", dataset_id.as_str());
    keys.put("dataset_name", cut_middle(&dataset.name, 200));
    keys.put("current_version", dataset.current_version);
    keys.put("create_new_version", new_version);
    let tags: BTreeSet<&String> = records.iter().flat_map(|record| &record.tags).collect();
    keys.put("tag_union", json!(tags));
    let shown: Vec<Value> = arguments
        .records
        .0
        .iter()
        .take(SHOWN)
        .map(|record| squeeze(&Value::Object(record.clone()), MAX_SHOWN).0)
        .collect();
    keys.put("first_records", shown);
    notes.add("nothing was written: send the same call with confirmed: true to add the records");
    Single::fit(keys, &notes, None)
}

fn read(rows: &[Map<String, Value>]) -> Result<Vec<NewRecord>, ToolError> {
    let refuse = |at: usize, what: String| {
        ToolError::arguments(
            format!("records[{at}] {what}; nothing was written"),
            "a record holds input, expected_output, metadata (an object) and tags (a list of key:value)",
        )
        .example(NAME, example())
    };
    if rows.len() > MOST_RECORDS {
        return Err(refuse(
            MOST_RECORDS,
            format!("is one more than {MOST_RECORDS} at a time"),
        ));
    }
    rows.iter()
        .enumerate()
        .map(|(at, row)| {
            if let Some(key) = row.keys().find(|key| !FIELDS.contains(&key.as_str())) {
                let meant = closest(key, FIELDS).map_or(String::new(), |meant| {
                    format!("; `{meant}` was probably meant")
                });
                return Err(refuse(
                    at,
                    format!("has the unknown key `{}`{meant}", candidate(key)),
                ));
            }
            let given = |key: &str| row.get(key).filter(|value| !value.is_null()).cloned();
            let metadata = match given("metadata") {
                None => None,
                Some(Value::Object(map)) => Some(map),
                Some(_) => return Err(refuse(at, "has metadata that is no object".to_owned())),
            };
            let tags = tags(given("tags"))
                .ok_or_else(|| refuse(at, "has tags that are not key:value texts".to_owned()))?;
            if given("input").is_none() && given("expected_output").is_none() && metadata.is_none()
            {
                return Err(refuse(at, "is empty".to_owned()));
            }
            Ok(NewRecord {
                input: given("input").unwrap_or_default(),
                expected_output: given("expected_output"),
                metadata,
                tags,
            })
        })
        .collect()
}

/// Tags as a list of `key:value`, or as an object.
fn tags(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| {
                item.as_str()
                    .filter(|tag| tag.contains(':'))
                    .map(str::to_owned)
            })
            .collect(),
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) => Some(format!("{key}:{text}")),
                Value::Number(number) => Some(format!("{key}:{number}")),
                Value::Bool(flag) => Some(format!("{key}:{flag}")),
                _ => None,
            })
            .collect(),
        Some(_) => None,
    }
}
