//! Records of datasets, and the one way in which they change.
//!
//! A change makes a new version of the dataset, or alters the current one when asked to. Older
//! versions stay readable either way. A record keeps its id over its versions, and its
//! `canonical_id` over copies of the dataset too.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::call::{
    Call, Reply, dataset_of, flag, ids_to_delete, not_found, optional, optional_object, texts,
};
use crate::Backend;
use crate::control::{Change, ControlStore, Object, Record, RecordFilter};
use crate::http::ApiError;

/// Records on a page unless asked otherwise.
const PAGE: usize = 1_000;

/// What a request changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) insert: Vec<Map<String, Value>>,
    pub(super) update: Vec<Map<String, Value>>,
    pub(super) delete: Vec<String>,
    /// Records whose content the dataset holds already are left out.
    pub(super) deduplicate: bool,
    /// Makes a new version; else the current one is altered.
    pub(super) new_version: bool,
    /// Put on each inserted record.
    pub(super) tags: Vec<String>,
}

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let dataset = dataset_of(&backend.control, call)?;
    let position: Option<(i64, i64)> = call.cursor()?;
    // Without a version asked for, all pages are of the version that the first one showed.
    let version = match position {
        Some((version, _)) => version,
        None => asked_version(call, &dataset, "filter[version]")?,
    };
    let limit = call.limit(PAGE)?;
    let found = backend.control.store.records(&RecordFilter {
        dataset: dataset.id,
        version,
        tags: call.asked_all("filter[tags]").map(str::to_owned).collect(),
        ids: call.asked_all("filter[id]").map(str::to_owned).collect(),
        after: position.map(|(_, position)| position),
        limit: limit.saturating_add(1),
    })?;
    let mut data = Vec::new();
    let mut bytes = 0;
    for record in found.iter().take(limit) {
        let item = item(record);
        bytes += item.to_string().len();
        // A single record is answered whatever its size: there is no smaller page.
        if !data.is_empty() && bytes > backend.options.page_bytes {
            break;
        }
        data.push(item);
    }
    let last = data.len().checked_sub(1).and_then(|at| found.get(at));
    let after = last.filter(|_| found.len() > data.len());
    let after = match after {
        Some(record) => call.cursor_after(&(version, record.position))?,
        None => String::new(),
    };
    Ok(Reply::Json(json!({"data": data, "meta": {"after": after}})))
}

pub(super) fn insert(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = Changes {
        insert: objects(attributes, "records")?,
        deduplicate: flag(attributes, "deduplicate", true)?,
        new_version: flag(attributes, "create_new_version", true)?,
        tags: texts(attributes, "tags")?,
        ..Changes::default()
    };
    changed(backend, call, &changes)
}

pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = Changes {
        update: objects(attributes, "records")?,
        new_version: flag(attributes, "create_new_version", true)?,
        ..Changes::default()
    };
    changed(backend, call, &changes)
}

pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let changes = Changes {
        delete: ids_to_delete(call, "record_ids")?,
        new_version: flag(call.attributes()?, "create_new_version", true)?,
        ..Changes::default()
    };
    changed(backend, call, &changes)
}

pub(super) fn batch_update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let changes = Changes {
        insert: objects(attributes, "insert_records")?,
        update: objects(attributes, "update_records")?,
        delete: texts(attributes, "delete_records")?,
        deduplicate: flag(attributes, "deduplicate", true)?,
        new_version: flag(attributes, "create_new_version", true)?,
        tags: texts(attributes, "tags")?,
    };
    changed(backend, call, &changes)
}

pub(super) fn changed(
    backend: &Backend,
    call: &Call,
    changes: &Changes,
) -> Result<Reply, ApiError> {
    let records = change(backend, call, changes)?;
    let data = records.iter().map(|record| {
        // The SDK reads id and attributes, the generated client `records`.
        let mut item = item(record);
        let own = item.clone();
        if let Some(map) = item.as_object_mut() {
            map.insert("records".to_owned(), json!([own]));
        }
        item
    });
    Ok(Reply::Json(json!({"data": data.collect::<Vec<_>>()})))
}

/// Changes the dataset that the path names, and returns the records inserted and updated.
pub(super) fn change(
    backend: &Backend,
    call: &Call,
    changes: &Changes,
) -> Result<Vec<Record>, ApiError> {
    backend.control.change(|store| {
        let mut dataset = dataset_of(&backend.control, call)?;
        let current = dataset.number("current_version");
        let mut edit = Edit {
            version: current + i64::from(changes.new_version),
            place: dataset.number("next_place"),
            now: call.now(),
            canonical_ids: call.given.canonical_ids.clone().into_iter(),
            live: HashMap::new(),
            digests: HashSet::new(),
            rows: Vec::new(),
            touched: HashSet::new(),
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
        let (version, place, live) = (edit.version, edit.place, edit.live);
        let (mut rows, touched) = (edit.rows, edit.touched);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        dataset.set("current_version", version);
        dataset.set("next_place", place);
        dataset.set("updated_at", call.now());
        rows.push(Change::PutObject(dataset));
        store.apply(rows)?;
        let mut changed: Vec<Record> = live
            .into_values()
            .filter(|record| touched.contains(&record.id))
            .collect();
        changed.sort_by_key(|record| record.position);
        Ok(changed)
    })
}

/// A change in the making.
struct Edit<'a> {
    dataset: &'a str,
    /// The version that is written.
    version: i64,
    /// The place of the next new record.
    place: i64,
    now: String,
    canonical_ids: std::vec::IntoIter<String>,
    live: HashMap<String, Record>,
    digests: HashSet<String>,
    rows: Vec<Change>,
    /// Ids inserted or updated.
    touched: HashSet<String>,
}

impl Edit<'_> {
    fn insert(&mut self, sent: &Map<String, Value>, changes: &Changes) -> Result<(), ApiError> {
        let id = optional(sent, "id")?.filter(|id| !id.is_empty());
        let mut body = Map::new();
        let input = sent.get("input").ok_or_else(|| {
            ApiError::bad_request(
                "each record needs `input`, for example {\"input\":{\"question\":\"…\"}}",
            )
        })?;
        body.insert("input".to_owned(), input.clone());
        let expected = sent.get("expected_output").cloned().unwrap_or(Value::Null);
        body.insert("expected_output".to_owned(), expected);
        let metadata = optional_object(sent, "metadata")?.unwrap_or_else(|| json!({}));
        body.insert("metadata".to_owned(), metadata);
        let mut tags = texts(sent, "tags")?;
        tags.extend(changes.tags.iter().cloned());
        let tags = operated(unique(tags), sent)?;
        let digest = digest_of(&body);
        let known = id.and_then(|id| self.live.get(id));
        let (id, place, created_at, canonical_id) = match known {
            // The same record sent again, as after a lost answer.
            Some(known) if known.digest == digest && known.tags == tags => return Ok(()),
            Some(known) => (
                known.id.clone(),
                known.position,
                known.body.get("created_at").cloned(),
                known.body.get("canonical_id").cloned(),
            ),
            None if changes.deduplicate && self.digests.contains(&digest) => return Ok(()),
            None => {
                self.place += 1;
                let new = || uuid::Uuid::new_v4().simple().to_string();
                let id = id.map_or_else(new, str::to_owned);
                (id, self.place - 1, None, None)
            }
        };
        let canonical_id = canonical_id.unwrap_or_else(|| {
            let given = self.canonical_ids.next();
            json!(given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()))
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
            position: place,
            digest,
            tags,
            body,
        });
        Ok(())
    }

    /// Null leaves a field as it is; an empty text erases the expected output.
    fn update(&mut self, sent: &Map<String, Value>) -> Result<(), ApiError> {
        let id = super::call::required(sent, "id")?;
        let known = self.live.get(id).ok_or_else(|| not_found("record"))?;
        let mut record = known.clone();
        if let Some(input) = sent.get("input").filter(|value| !value.is_null()) {
            record.body.insert("input".to_owned(), input.clone());
        }
        if let Some(expected) = sent.get("expected_output").filter(|value| !value.is_null()) {
            let erased = expected.as_str() == Some("");
            let expected = if erased {
                Value::Null
            } else {
                expected.clone()
            };
            record.body.insert("expected_output".to_owned(), expected);
        }
        if let Some(metadata) = optional_object(sent, "metadata")? {
            record.body.insert("metadata".to_owned(), metadata);
        }
        record.tags = operated(record.tags, sent)?;
        record.digest = digest_of(&record.body);
        record.since = self.version;
        record.body.insert("updated_at".to_owned(), json!(self.now));
        self.put(record);
        Ok(())
    }

    /// An unknown id is no error: what shall be gone is gone.
    fn delete(&mut self, id: &str) {
        if let Some(record) = self.live.remove(id) {
            self.digests.remove(&record.digest);
            self.touched.remove(id);
            self.end(&record);
        }
    }

    fn put(&mut self, record: Record) {
        if let Some(old) = self.live.insert(record.id.clone(), record.clone()) {
            self.digests.remove(&old.digest);
            self.end(&old);
        }
        self.digests.insert(record.digest.clone());
        self.touched.insert(record.id.clone());
        self.rows.push(Change::PutRecord(record));
    }

    /// Ends a version of a record: it stays in older versions of the dataset, if it was in any.
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

/// Tags after the operations sent: remove, then add, then `set` as what they shall be.
fn operated(mut tags: Vec<String>, sent: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let Some(operations) = optional_object(sent, "tag_operations")? else {
        return Ok(tags);
    };
    let empty = Map::new();
    let operations = operations.as_object().unwrap_or(&empty);
    let removed = texts(operations, "remove")?;
    tags.retain(|tag| !removed.contains(tag));
    tags.extend(texts(operations, "add")?);
    if operations.get("set").is_some_and(|set| !set.is_null()) {
        tags = texts(operations, "set")?;
    }
    Ok(unique(tags))
}

/// All records of a version, the current one unless named.
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

/// The version that a query key names, the current one if none.
pub(super) fn asked_version(call: &Call, dataset: &Object, key: &str) -> Result<i64, ApiError> {
    match call.asked_number(key)? {
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

/// Digest of what makes a record another one: input, expected output and metadata.
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
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record as the SDK reads it (`attributes`) and as the reference documents it (beside them).
/// Empty tags and metadata are left out of the attributes, as Datadog does.
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
