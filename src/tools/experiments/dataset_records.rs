//! `get_llmobs_dataset_records`: the records of a dataset, and the shape they have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::not_found;
use super::paged::{Paged, Place, Row};
use super::{Keys, NAME_FULL};
use crate::render::{candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Count, Flag, Ids, Tags, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::RecordFilter;
use llmobs_core::model::DatasetRecord;

const NAME: &str = "get_llmobs_dataset_records";
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 500;
/// Characters of JSON that one field of a row keeps.
const MAX_FIELD: usize = 1_000;
/// Pages looked through for records by id, and rows on each.
const MAX_PAGES: usize = 20;
const SEARCH_PAGE: usize = 500;
const MAX_KEYS: usize = 40;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Dataset records",
    description: "Read records of an LLM observability dataset: input, expected_output, metadata, \
        tags, with a schema_summary of their shape. Filter by tags (all must hold), record_ids or \
        canonical_id; next_cursor goes on. Long fields are cut and named in cut_fields; \
        get_llmobs_full_dataset_records gives them whole.",
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
    /// Rows. Default 10, at most 500.
    limit: Option<Count>,
    /// Only these records.
    record_ids: Option<Ids>,
    /// Only records with all these tags.
    tags: Option<Tags>,
    /// Only this record, in whatever version.
    canonical_id: Option<Text>,
    /// Version; the current one by default.
    dataset_version: Option<Count>,
    /// Whether to add schema_summary. Default true.
    compute_schema: Option<Flag>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (project_id, dataset_id) = (&arguments.project_id.0, &arguments.dataset_id.0);
    let ids = arguments.record_ids.as_ref().map(|ids| ids.0.as_slice());
    let canonical = arguments.canonical_id.as_ref().map(|id| id.0.as_str());
    let narrowed = ids.is_some() || canonical.is_some();
    let limit = arguments
        .limit
        .map_or(DEFAULT_LIMIT, |count| count.0)
        .clamp(1, MAX_LIMIT);
    let tags: Vec<String> = arguments
        .tags
        .iter()
        .flat_map(|tags| &tags.0)
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    let version = arguments.dataset_version.map(|count| count.0);
    let question = format!("{project_id} {dataset_id} {ids:?} {canonical:?} {tags:?} {version:?}");
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let page_size = if narrowed { SEARCH_PAGE } else { limit };
    let mut place = Place::read(
        NAME,
        cursor,
        &[&question],
        page_size,
        || json!({"project_id": candidate(project_id), "dataset_id": candidate(dataset_id)}),
    )?;

    let mut notes = Notes::default();
    let mut rows: Vec<Row> = Vec::new();
    let mut shapes: Vec<DatasetRecord> = Vec::new();
    for page_number in 1.. {
        let filter = RecordFilter {
            version,
            tags: tags.clone(),
            limit: place.l,
            cursor: place.u.clone(),
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
        let (total, next) = (page.rows.len(), page.next_cursor);
        for (at, record) in page.rows.into_iter().enumerate().skip(place.s) {
            let wanted = ids.is_none_or(|ids| ids.contains(&record.id))
                && canonical.is_none_or(|id| record.canonical_id.as_deref() == Some(id));
            // Servers that do not know the tag filter give everything.
            let tagged = tags.iter().all(|tag| record.tags.contains(tag));
            if wanted && tagged && rows.len() < limit {
                rows.push(Row {
                    key: String::new(),
                    value: row(&record),
                    next_cursor: place.behind(at, total, next.as_deref()),
                });
                shapes.push(record);
            }
        }
        let all_found = ids.is_some_and(|ids| rows.len() == ids.len());
        if all_found && let Some(last) = rows.last_mut() {
            last.next_cursor = None;
        }
        if all_found || rows.len() >= limit {
            break;
        }
        let Some(next) = next else {
            // Nothing after the last that matched.
            if let Some(last) = rows.last_mut() {
                last.next_cursor = None;
            }
            break;
        };
        if page_number >= MAX_PAGES {
            notes.add(format!(
                "not all records were looked through: the first {} pages of {} only",
                MAX_PAGES, place.l
            ));
            break;
        }
        place = Place {
            u: Some(next),
            s: 0,
            ..place
        };
    }
    if rows.is_empty() && cursor.is_none() {
        notes.add(if narrowed || !tags.is_empty() {
            "no record of the dataset matches all filters; drop one to see what there is"
        } else {
            "the dataset has no records in this version"
        });
    }
    missing(ids, &shapes, &mut notes);
    let mut answer = Paged::list(Keys::default(), "records", rows, notes);
    if arguments.compute_schema.is_none_or(|flag| flag.0) && !shapes.is_empty() {
        answer
            .tail
            .insert("schema_summary".to_owned(), schema(&shapes));
    }
    answer.fit(arguments.max_tokens)
}

fn missing(ids: Option<&[String]>, found: &[DatasetRecord], notes: &mut Notes) {
    let missing = ids
        .into_iter()
        .flatten()
        .filter(|id| !found.iter().any(|record| record.id == **id))
        .count();
    if missing > 0 && !found.is_empty() {
        notes.add(format!(
            "{missing} of the record_ids are not in the dataset"
        ));
    }
}

fn row(record: &DatasetRecord) -> Value {
    let mut keys = Keys::default();
    keys.put("id", record.id.as_str());
    keys.some("canonical_id", record.canonical_id.clone());
    keys.some("version", record.version);
    let mut cut_fields = Vec::new();
    let metadata = (!record.metadata.is_empty()).then(|| Value::Object(record.metadata.clone()));
    for (name, value) in [
        ("input", record.input.as_ref()),
        ("expected_output", record.expected_output.as_ref()),
        ("metadata", metadata.as_ref()),
    ] {
        if let Some(value) = value {
            let (value, cut) = squeeze(value, MAX_FIELD);
            keys.put(name, value);
            if cut {
                cut_fields.push(name);
            }
        }
    }
    let tags: Vec<String> = record
        .tags
        .iter()
        .take(40)
        .map(|tag| cut_middle(tag, 200))
        .collect();
    keys.some("tags", tags);
    if !cut_fields.is_empty() {
        keys.put("cut_fields", cut_fields);
        keys.put("read_whole_with", NAME_FULL);
    }
    keys.into()
}

/// The shape of the records read: types and keys of each field, and in how many records.
fn schema(records: &[DatasetRecord]) -> Value {
    let mut keys = Keys::default();
    keys.put("records_read", records.len());
    keys.put(
        "input",
        shape(records.iter().map(|record| record.input.as_ref())),
    );
    keys.put(
        "expected_output",
        shape(records.iter().map(|record| record.expected_output.as_ref())),
    );
    let metadata: Vec<Value> = records
        .iter()
        .map(|record| Value::Object(record.metadata.clone()))
        .collect();
    keys.put("metadata", shape(metadata.iter().map(Some)));
    keys.into()
}

fn shape<'a>(values: impl Iterator<Item = Option<&'a Value>>) -> Value {
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    let mut fields: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for value in values {
        let Some(value) = value else {
            *types.entry("absent").or_default() += 1;
            continue;
        };
        *types.entry(type_of(value)).or_default() += 1;
        for (key, value) in value.as_object().into_iter().flatten() {
            let field = fields.entry(key).or_default();
            *field.entry(type_of(value)).or_default() += 1;
        }
    }
    let shown: Map<String, Value> = fields
        .iter()
        .take(MAX_KEYS)
        .map(|(key, types)| (cut_middle(key, 120), json!(types)))
        .collect();
    let mut keys = Keys::default();
    keys.put("types", json!(types));
    keys.some("fields", shown);
    keys.some("other_fields", fields.len().saturating_sub(MAX_KEYS));
    keys.into()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
