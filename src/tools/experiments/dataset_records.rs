//! `get_llmobs_dataset_records`: the records of a dataset and their schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::not_found;
use super::objects::MAX_NAME_CHARS;
use crate::render::{Budget, candidate, cut_middle, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args::{self, IdList, Tags};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page, UpstreamPosition};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::RecordFilter;
use llmobs_core::model::DatasetRecord;

const NAME: &str = "get_llmobs_dataset_records";
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 500;
/// Characters of JSON of one field of a row.
const MAX_FIELD_CHARS: usize = 1_000;
const MAX_TAGS: usize = 40;
/// Pages of the upstream that one call reads.
const MAX_PAGES: usize = 20;
/// Rows of a page of the upstream when records are looked up by id.
const LOOKUP_PAGE_SIZE: usize = 500;
/// Keys of a field in the schema.
const MAX_KEYS: usize = 40;
const MAX_KEY_CHARS: usize = 120;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Dataset records",
    description: "Read records of an LLM observability dataset: input, expected_output, metadata, \
        tags, with a schema_summary of their fields. Filter by tags (all must match), record_ids \
        or canonical_id; next_cursor continues. Long fields are cut and listed in cut_fields; \
        get_llmobs_full_dataset_records returns them complete.",
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
    /// Rows. Default 10, at most 500.
    limit: Option<usize>,
    /// Only these records.
    record_ids: Option<IdList>,
    /// Only records with all these tags.
    tags: Option<Tags>,
    /// Only this record, in any version.
    canonical_id: Option<String>,
    /// Version; the current one by default.
    dataset_version: Option<usize>,
    /// Whether to add schema_summary. Default true.
    compute_schema: Option<bool>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

/// A record and the position after it, if more records follow.
struct FoundRecord {
    record: DatasetRecord,
    next: Option<UpstreamPosition>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let list = arguments.list_request();
    let mut notes = Notes::default();
    let found = find_records(context, &arguments, &list, &mut notes).await?;
    if found.is_empty() && arguments.cursor.is_none() {
        notes.add(if arguments.has_id_filter() || arguments.tags.is_some() {
            "no record of the dataset matches all filters; remove a filter to see more records"
        } else {
            "the dataset has no records in this version"
        });
    }
    note_missing_ids(arguments.record_ids.as_deref(), &found, &mut notes);
    let mut tail = JsonObject::default();
    if arguments.compute_schema.unwrap_or(true) && !found.is_empty() {
        tail.set("schema_summary", schema_summary(&found));
    }
    let rows: Vec<JsonObject> = found.iter().map(|found| row(&found.record)).collect();
    Page::list(JsonObject::default(), "records", rows)
        .next_cursor(|count| list.token(found.get(count.checked_sub(1)?)?.next.as_ref()?))
        .tail(tail)
        .notes(notes)
        .write(Budget::of_answer(arguments.max_tokens))
}

impl Arguments {
    fn list_request(&self) -> ListRequest {
        let (project_id, dataset_id) = (&self.project_id, &self.dataset_id);
        let filters = format!(
            "{:?} {:?} {:?} {:?}",
            self.record_ids, self.canonical_id, self.tags, self.dataset_version
        );
        let example =
            json!({"project_id": candidate(project_id), "dataset_id": candidate(dataset_id)});
        ListRequest::new(NAME, [project_id, dataset_id, &filters], example)
    }

    /// Whether every requested record is found.
    fn has_all(&self, found: &[FoundRecord]) -> bool {
        let ids = self.record_ids.as_deref();
        ids.is_some_and(|ids| found.len() == ids.len())
    }

    fn page_size(&self, limit: usize) -> usize {
        if self.has_id_filter() {
            LOOKUP_PAGE_SIZE
        } else {
            limit
        }
    }

    fn has_id_filter(&self) -> bool {
        self.record_ids.is_some() || self.canonical_id.is_some()
    }

    /// Whether a record matches the filters. Tags are checked here too, because some servers ignore
    /// the tag filter.
    fn matches(&self, record: &DatasetRecord, tags: &[String]) -> bool {
        let ids = self.record_ids.as_deref();
        let canonical_id = self.canonical_id.as_ref();
        ids.is_none_or(|ids| ids.contains(&record.id))
            && canonical_id.is_none_or(|id| record.canonical_id.as_ref() == Some(id))
            && tags.iter().all(|tag| record.tags.contains(tag))
    }
}

/// Reads pages of the upstream until enough records match.
async fn find_records(
    context: &ToolContext,
    arguments: &Arguments,
    list: &ListRequest,
    notes: &mut Notes,
) -> Result<Vec<FoundRecord>, ToolError> {
    let (project_id, dataset_id) = (&arguments.project_id, &arguments.dataset_id);
    let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let page_size = arguments.page_size(limit);
    let tags = arguments.tags.as_ref().map(Tags::texts).unwrap_or_default();
    let mut position = UpstreamPosition::read(list, arguments.cursor.as_deref(), page_size)?;
    let mut found: Vec<FoundRecord> = Vec::new();
    for page_number in 1.. {
        let filter = RecordFilter {
            version: arguments.dataset_version,
            tags: tags.clone(),
            limit: position.page_size,
            cursor: position.upstream_token.clone(),
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
        let total = page.rows.len();
        let next = position.next_page(list, page.next_cursor, notes);
        for (index, record) in page.rows.into_iter().enumerate().skip(position.shown) {
            if found.len() < limit && arguments.matches(&record, &tags) {
                let next = position.after(index + 1, total, next.as_ref());
                found.push(FoundRecord { record, next });
            }
        }
        let all_found = arguments.has_all(&found);
        let enough = found.len() >= limit;
        if all_found || (next.is_none() && !enough) {
            // No record after the last one matches.
            if let Some(last) = found.last_mut() {
                last.next = None;
            }
        }
        let Some(next) = next.filter(|_| !all_found && !enough) else {
            break;
        };
        if page_number >= MAX_PAGES {
            notes.add(format!(
                "only the first {MAX_PAGES} pages of {} records were read",
                position.page_size
            ));
            break;
        }
        position = next;
    }
    Ok(found)
}

fn note_missing_ids(ids: Option<&Vec<String>>, found: &[FoundRecord], notes: &mut Notes) {
    let is_missing = |id: &&String| !found.iter().any(|found| found.record.id == **id);
    let missing = ids.into_iter().flatten().filter(is_missing).count();
    if missing > 0 && !found.is_empty() {
        notes.add(format!(
            "{missing} of the record_ids are not in the dataset"
        ));
    }
}

fn row(record: &DatasetRecord) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("id", record.id.as_str());
    row.set_unless_empty("canonical_id", record.canonical_id.clone());
    row.set_unless_empty("version", record.version);
    let mut cut_fields = Vec::new();
    let metadata = (!record.metadata.is_empty()).then(|| Value::Object(record.metadata.clone()));
    for (name, value) in [
        ("input", record.input.as_ref()),
        ("expected_output", record.expected_output.as_ref()),
        ("metadata", metadata.as_ref()),
    ] {
        if let Some(value) = value {
            let (value, cut) = squeeze(value, MAX_FIELD_CHARS);
            row.set(name, value);
            if cut {
                cut_fields.push(name);
            }
        }
    }
    let tags = record.tags.iter().take(MAX_TAGS);
    let tags: Vec<String> = tags.map(|tag| cut_middle(tag, MAX_NAME_CHARS)).collect();
    row.set_unless_empty("tags", tags);
    if !cut_fields.is_empty() {
        row.set("cut_fields", cut_fields);
        row.set("read_whole_with", "get_llmobs_full_dataset_records");
    }
    row
}

/// The types and keys of each field, with the number of records that have them.
fn schema_summary(found: &[FoundRecord]) -> JsonObject {
    let records = || found.iter().map(|found| &found.record);
    let metadata: Vec<Value> = records()
        .map(|record| Value::Object(record.metadata.clone()))
        .collect();
    let mut summary = JsonObject::default();
    summary.set("records_read", found.len());
    summary.set(
        "input",
        field_schema(records().map(|record| record.input.as_ref())),
    );
    let expected_output = records().map(|record| record.expected_output.as_ref());
    summary.set("expected_output", field_schema(expected_output));
    summary.set("metadata", field_schema(metadata.iter().map(Some)));
    summary
}

fn field_schema<'a>(values: impl Iterator<Item = Option<&'a Value>>) -> JsonObject {
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    let mut fields: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for value in values {
        let Some(value) = value else {
            *types.entry("absent").or_default() += 1;
            continue;
        };
        *types.entry(type_name(value)).or_default() += 1;
        for (key, value) in value.as_object().into_iter().flatten() {
            let field = fields.entry(key).or_default();
            *field.entry(type_name(value)).or_default() += 1;
        }
    }
    let shown: Map<String, Value> = fields
        .iter()
        .take(MAX_KEYS)
        .map(|(key, types)| (cut_middle(key, MAX_KEY_CHARS), json!(types)))
        .collect();
    let mut schema = JsonObject::default();
    schema.set("types", json!(types));
    schema.set_unless_empty("fields", shown);
    schema.set_unless_empty("other_fields", fields.len().saturating_sub(MAX_KEYS));
    schema
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
