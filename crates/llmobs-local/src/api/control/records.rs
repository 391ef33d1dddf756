//! Records of datasets, and changes to them.
//!
//! A change creates a new version of the dataset, or alters the current one on request. Older
//! versions stay readable in both cases. A record has the same id in all versions, and the same
//! `canonical_id` also in copies of the dataset.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::call::{
    Call, Reply, dataset_of, ids_to_delete, not_found, optional, optional_flag, optional_object,
    text_list,
};
use crate::Backend;
use crate::control::{Change, ControlStore, Object, Record, RecordFilter};
use crate::http::ApiError;

/// Default number of records on a page.
const DEFAULT_LIMIT: usize = 1_000;

/// The changes of a request.
#[derive(Debug, Default)]
pub(super) struct RecordChanges {
    pub(super) insert: Vec<Map<String, Value>>,
    pub(super) update: Vec<Map<String, Value>>,
    pub(super) delete: Vec<String>,
    /// Whether to skip records whose content the dataset contains already.
    pub(super) deduplicate: bool,
    /// Whether to create a new version or to alter the current one.
    pub(super) new_version: bool,
    /// Added to each inserted record.
    pub(super) tags: Vec<String>,
}

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let dataset = dataset_of(&backend.control, call)?;
    let position: Option<(i64, i64)> = call.cursor()?;
    // Without a requested version, all pages show the version of the first page.
    let version = match position {
        Some((version, _)) => version,
        None => requested_version(call, &dataset, "filter[version]")?,
    };
    let limit = call.limit(DEFAULT_LIMIT)?;
    let records = backend.control.store.records(&RecordFilter {
        dataset: dataset.id,
        version,
        tags: call
            .query_values("filter[tags]")
            .map(str::to_owned)
            .collect(),
        ids: call.query_values("filter[id]").map(str::to_owned).collect(),
        after: position.map(|(_, position)| position),
        limit: limit.saturating_add(1),
    })?;
    let mut data = Vec::new();
    let mut bytes = 0;
    for record in records.iter().take(limit) {
        let item = item(record);
        bytes += item.to_string().len();
        // A page has at least one record, of any size.
        if !data.is_empty() && bytes > backend.options.page_bytes {
            break;
        }
        data.push(item);
    }
    let last = data.len().checked_sub(1).and_then(|at| records.get(at));
    let after = last.filter(|_| records.len() > data.len());
    let after = match after {
        Some(record) => call.cursor_after(&(version, record.position))?,
        None => String::new(),
    };
    Ok(Reply::Json(json!({"data": data, "meta": {"after": after}})))
}

pub(super) fn insert(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = RecordChanges {
        insert: objects(attributes, "records")?,
        deduplicate: optional_flag(attributes, "deduplicate", true)?,
        new_version: optional_flag(attributes, "create_new_version", true)?,
        tags: text_list(attributes, "tags")?,
        ..RecordChanges::default()
    };
    apply_and_respond(backend, call, &changes)
}

pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = RecordChanges {
        update: objects(attributes, "records")?,
        new_version: optional_flag(attributes, "create_new_version", true)?,
        ..RecordChanges::default()
    };
    apply_and_respond(backend, call, &changes)
}

pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let changes = RecordChanges {
        delete: ids_to_delete(call, "record_ids")?,
        new_version: optional_flag(call.attributes()?, "create_new_version", true)?,
        ..RecordChanges::default()
    };
    apply_and_respond(backend, call, &changes)
}

pub(super) fn batch_update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = RecordChanges {
        insert: objects(attributes, "insert_records")?,
        update: objects(attributes, "update_records")?,
        delete: text_list(attributes, "delete_records")?,
        deduplicate: optional_flag(attributes, "deduplicate", true)?,
        new_version: optional_flag(attributes, "create_new_version", true)?,
        tags: text_list(attributes, "tags")?,
    };
    apply_and_respond(backend, call, &changes)
}

pub(super) fn apply_and_respond(
    backend: &Backend,
    call: &Call,
    changes: &RecordChanges,
) -> Result<Reply, ApiError> {
    let records = apply(backend, call, changes)?;
    let data = records.iter().map(|record| {
        // The SDK reads id and attributes, the generated client reads `records`.
        let mut item = item(record);
        let own = item.clone();
        if let Some(map) = item.as_object_mut() {
            map.insert("records".to_owned(), json!([own]));
        }
        item
    });
    Ok(Reply::Json(json!({"data": data.collect::<Vec<_>>()})))
}

/// Changes the dataset in the path, and returns the inserted and updated records.
fn apply(backend: &Backend, call: &Call, changes: &RecordChanges) -> Result<Vec<Record>, ApiError> {
    backend.control.change(|store| {
        let mut dataset = dataset_of(&backend.control, call)?;
        let current = dataset.number("current_version");
        let mut edit = DatasetEdit {
            version: current + i64::from(changes.new_version),
            next_position: dataset.number("next_place"),
            now: call.now(),
            canonical_ids: call.recorded_ids.canonical_ids.clone().into_iter(),
            live: HashMap::new(),
            digests: HashSet::new(),
            rows: Vec::new(),
            changed: HashSet::new(),
            dataset: &dataset.id,
        };
        for record in records_of(store, &dataset, None)? {
            edit.digests.insert(record.digest.clone());
            edit.live.insert(record.id.clone(), record);
        }
        for record in &changes.insert {
            edit.insert(record, changes)?;
        }
        for record in &changes.update {
            edit.update(record)?;
        }
        for id in &changes.delete {
            edit.delete(id);
        }
        let (version, next_position, live) = (edit.version, edit.next_position, edit.live);
        let (mut rows, changed) = (edit.rows, edit.changed);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        dataset.set("current_version", version);
        dataset.set("next_place", next_position);
        dataset.set("updated_at", call.now());
        rows.push(Change::PutObject(dataset));
        store.apply(rows)?;
        let mut records: Vec<Record> = live
            .into_values()
            .filter(|record| changed.contains(&record.id))
            .collect();
        records.sort_by_key(|record| record.position);
        Ok(records)
    })
}

/// A change of a dataset before it is written.
struct DatasetEdit<'a> {
    dataset: &'a str,
    /// The version to write.
    version: i64,
    /// The position of the next new record.
    next_position: i64,
    now: String,
    canonical_ids: std::vec::IntoIter<String>,
    live: HashMap<String, Record>,
    digests: HashSet<String>,
    rows: Vec<Change>,
    /// Ids of inserted and updated records.
    changed: HashSet<String>,
}

impl DatasetEdit<'_> {
    fn insert(
        &mut self,
        sent: &Map<String, Value>,
        changes: &RecordChanges,
    ) -> Result<(), ApiError> {
        let id = optional(sent, "id")?.filter(|id| !id.is_empty());
        let mut body = Map::new();
        let input = sent.get("input").ok_or_else(|| {
            ApiError::bad_request(
                "`input` is required in each record, for example {\"input\":{\"question\":\"…\"}}",
            )
        })?;
        body.insert("input".to_owned(), input.clone());
        let expected = sent.get("expected_output").cloned().unwrap_or(Value::Null);
        body.insert("expected_output".to_owned(), expected);
        let metadata = optional_object(sent, "metadata")?.unwrap_or_else(|| json!({}));
        body.insert("metadata".to_owned(), metadata);
        let mut tags = text_list(sent, "tags")?;
        tags.extend(changes.tags.iter().cloned());
        let tags = apply_tag_operations(unique(tags), sent)?;
        let digest = digest_of(&body);
        let existing = id.and_then(|id| self.live.get(id));
        let (id, position, created_at, canonical_id) = match existing {
            // The same record sent again, for example after a lost response.
            Some(existing) if existing.digest == digest && existing.tags == tags => return Ok(()),
            Some(existing) => (
                existing.id.clone(),
                existing.position,
                existing.body.get("created_at").cloned(),
                existing.body.get("canonical_id").cloned(),
            ),
            None if changes.deduplicate && self.digests.contains(&digest) => return Ok(()),
            None => {
                self.next_position += 1;
                let new = || uuid::Uuid::new_v4().simple().to_string();
                let id = id.map_or_else(new, str::to_owned);
                (id, self.next_position - 1, None, None)
            }
        };
        let canonical_id = canonical_id.unwrap_or_else(|| {
            let recorded = self.canonical_ids.next();
            json!(recorded.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()))
        });
        body.insert("canonical_id".to_owned(), canonical_id);
        body.insert(
            "created_at".to_owned(),
            created_at.unwrap_or_else(|| json!(self.now)),
        );
        body.insert("updated_at".to_owned(), json!(self.now));
        self.put(Record {
            dataset: self.dataset.to_owned(),
            id,
            since: self.version,
            until: None,
            position,
            digest,
            tags,
            body,
        });
        Ok(())
    }

    /// Null keeps the value of a field; an empty text clears the expected output.
    fn update(&mut self, sent: &Map<String, Value>) -> Result<(), ApiError> {
        let id = super::call::required(sent, "id")?;
        let existing = self.live.get(id).ok_or_else(|| not_found("record"))?;
        let mut record = existing.clone();
        if let Some(input) = sent.get("input").filter(|value| !value.is_null()) {
            record.body.insert("input".to_owned(), input.clone());
        }
        if let Some(expected) = sent.get("expected_output").filter(|value| !value.is_null()) {
            let expected = if expected.as_str() == Some("") {
                Value::Null
            } else {
                expected.clone()
            };
            record.body.insert("expected_output".to_owned(), expected);
        }
        if let Some(metadata) = optional_object(sent, "metadata")? {
            record.body.insert("metadata".to_owned(), metadata);
        }
        record.tags = apply_tag_operations(record.tags, sent)?;
        record.digest = digest_of(&record.body);
        record.since = self.version;
        record.body.insert("updated_at".to_owned(), json!(self.now));
        self.put(record);
        Ok(())
    }

    /// Deletes a record. An unknown id is not an error.
    fn delete(&mut self, id: &str) {
        if let Some(record) = self.live.remove(id) {
            self.digests.remove(&record.digest);
            self.changed.remove(id);
            self.end(&record);
        }
    }

    fn put(&mut self, record: Record) {
        if let Some(old) = self.live.insert(record.id.clone(), record.clone()) {
            self.digests.remove(&old.digest);
            self.end(&old);
        }
        self.digests.insert(record.digest.clone());
        self.changed.insert(record.id.clone());
        self.rows.push(Change::PutRecord(record));
    }

    /// Ends the current version of a record. Older versions of the dataset still contain it.
    fn end(&mut self, record: &Record) {
        let row = if record.since == self.version {
            Change::RemoveRecord {
                dataset: record.dataset.clone(),
                id: record.id.clone(),
                since: record.since,
            }
        } else {
            let until = Some(self.version);
            Change::PutRecord(Record {
                until,
                ..record.clone()
            })
        };
        self.rows.push(row);
    }
}

fn unique(tags: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    tags.into_iter()
        .filter(|tag| seen.insert(tag.clone()))
        .collect()
}

/// Applies the tag operations of a record: `remove`, then `add`, then `set`, which replaces all tags.
fn apply_tag_operations(
    mut tags: Vec<String>,
    sent: &Map<String, Value>,
) -> Result<Vec<String>, ApiError> {
    let Some(operations) = optional_object(sent, "tag_operations")? else {
        return Ok(tags);
    };
    let empty = Map::new();
    let operations = operations.as_object().unwrap_or(&empty);
    let removed = text_list(operations, "remove")?;
    tags.retain(|tag| !removed.contains(tag));
    tags.extend(text_list(operations, "add")?);
    if operations.get("set").is_some_and(|set| !set.is_null()) {
        tags = text_list(operations, "set")?;
    }
    Ok(unique(tags))
}

/// All records of a version, by default of the current one.
pub(super) fn records_of(
    store: &dyn ControlStore,
    dataset: &Object,
    version: Option<i64>,
) -> Result<Vec<Record>, ApiError> {
    Ok(store.records(&RecordFilter {
        dataset: dataset.id.clone(),
        version: version.unwrap_or_else(|| dataset.number("current_version")),
        tags: Vec::new(),
        ids: Vec::new(),
        after: None,
        limit: usize::MAX,
    })?)
}

/// The version that a query key names, by default the current one.
pub(super) fn requested_version(call: &Call, dataset: &Object, key: &str) -> Result<i64, ApiError> {
    match call.query_number(key)? {
        None => Ok(dataset.number("current_version")),
        Some(version) => check_version(dataset, version).map(|()| version),
    }
}

pub(super) fn check_version(dataset: &Object, version: i64) -> Result<(), ApiError> {
    if (0..=dataset.number("current_version")).contains(&version) {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "invalid version: version is greater than the current version or negative",
    ))
}

/// The objects of a list; absent is empty.
fn objects(
    attributes: &Map<String, Value>,
    key: &str,
) -> Result<Vec<Map<String, Value>>, ApiError> {
    let refused = || ApiError::bad_request(format!("`{key}` must be a list of records"));
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_object().cloned().ok_or_else(refused))
            .collect(),
        Some(_) => Err(refused()),
    }
}

/// Digest of the content of a record: input, expected output and metadata.
pub(super) fn digest_of(body: &Map<String, Value>) -> String {
    fn feed(hash: &mut Sha256, value: &Value) {
        match value {
            Value::Array(items) => {
                hash.update(b"[");
                for item in items {
                    feed(hash, item);
                    hash.update(b",");
                }
                hash.update(b"]");
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                hash.update(b"{");
                for (key, value) in entries {
                    hash.update(Value::String(key.clone()).to_string());
                    hash.update(b":");
                    feed(hash, value);
                    hash.update(b",");
                }
                hash.update(b"}");
            }
            other => hash.update(other.to_string()),
        }
    }
    let mut hash = Sha256::new();
    for key in ["input", "expected_output", "metadata"] {
        feed(&mut hash, body.get(key).unwrap_or(&Value::Null));
        hash.update(b";");
    }
    hex::encode(hash.finalize())
}

/// A record in two formats: under `attributes` for the SDK, and beside them as documented. Like
/// Datadog, omits empty tags and metadata from the attributes.
fn item(record: &Record) -> Value {
    let mut attributes = Map::new();
    let mut item = Map::new();
    item.insert("id".to_owned(), json!(record.id));
    item.insert("type".to_owned(), json!("datasets"));
    for (key, value) in &record.body {
        item.insert(key.clone(), value.clone());
        let empty = value.is_null() || (key == "metadata" && *value == json!({}));
        if !empty || key == "input" {
            attributes.insert(key.clone(), value.clone());
        }
    }
    for map in [&mut attributes, &mut item] {
        map.insert("dataset_id".to_owned(), json!(record.dataset));
        map.insert("version".to_owned(), json!(record.since));
        if !record.tags.is_empty() {
            map.insert("tags".to_owned(), json!(record.tags));
        }
    }
    item.insert("attributes".to_owned(), Value::Object(attributes));
    Value::Object(item)
}
