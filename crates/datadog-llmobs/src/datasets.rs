//! Projects, datasets and their records.

use http::Method;
use serde_json::{Map, Value, json};

use super::call::{ApiCall, JSON_API, Operation};
use super::client::Client;
use super::error::ClientError;
use super::experiments::wire::{take_text, whole};
use super::experiments::{ListPage, PageQuery, read_list};
use super::retry::OperationClass;
use super::spans::wire::{take_map, text_list};
use llmobs_core::model::{Dataset, DatasetRecord, Project};

pub(super) static PROJECTS: Operation = Operation {
    name: "project list",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v1/projects",
    media: JSON_API,
};

pub(super) static DATASETS: Operation = Operation {
    name: "dataset list",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v1/{project_id}/datasets",
    media: JSON_API,
};

pub(super) static RECORDS: Operation = Operation {
    name: "dataset records",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v1/{project_id}/datasets/{dataset_id}/records",
    media: JSON_API,
};

/// Records that are new each time: twice is two of each.
static ADD_RECORDS: Operation = Operation {
    name: "addition of dataset records",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/{project_id}/datasets/{dataset_id}/batch_update",
    media: JSON_API,
};

/// Which rows of the list of projects or of datasets are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The one with this id.
    pub id: Option<String>,
    /// The one of this name.
    pub name: Option<String>,
    /// Rows per page, 1 to 5,000.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

impl ListQuery {
    fn of(&self, mut call: ApiCall) -> ApiCall {
        for (key, value) in [("filter[id]", &self.id), ("filter[name]", &self.name)] {
            if let Some(value) = value {
                call = call.query(key, value);
            }
        }
        let cursor = self.cursor.as_deref();
        PageQuery {
            limit: self.limit,
            cursor,
        }
        .of(call)
    }
}

/// Which records are wanted; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// As of this version of the dataset; the current one when none is named.
    pub version: Option<usize>,
    /// With all these tags, `key:value`.
    pub tags: Vec<String>,
    /// Rows per page, 1 to 5,000.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// A record to be added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewRecord {
    /// What goes into the task.
    pub input: Value,
    /// What should come out.
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    pub metadata: Option<Map<String, Value>>,
    /// Tags, `key:value`.
    pub tags: Vec<String>,
}

impl Client {
    /// One page of projects, the newest first.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn projects(&self, list: &ListQuery) -> Result<ListPage<Project>, ClientError> {
        let answer = self.execute(list.of(ApiCall::new(&PROJECTS))).await?;
        read_list(self, &PROJECTS, answer, |id, mut row| Project {
            id,
            name: take_text(&mut row, "name").unwrap_or_default(),
            description: take_text(&mut row, "description"),
            created_at: take_text(&mut row, "created_at"),
            updated_at: take_text(&mut row, "updated_at"),
        })
    }

    /// One page of a project's datasets.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn datasets(
        &self,
        project_id: &str,
        list: &ListQuery,
    ) -> Result<ListPage<Dataset>, ClientError> {
        let call = list.of(ApiCall::with_ids(&DATASETS, &[project_id])?);
        let answer = self.execute(call).await?;
        read_list(self, &DATASETS, answer, |id, mut row| Dataset {
            id,
            name: take_text(&mut row, "name").unwrap_or_default(),
            description: take_text(&mut row, "description"),
            current_version: whole(&mut row, "current_version"),
            created_at: take_text(&mut row, "created_at"),
            updated_at: take_text(&mut row, "updated_at"),
        })
    }

    /// One page of a dataset's records.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn dataset_records(
        &self,
        project_id: &str,
        dataset_id: &str,
        filter: &RecordFilter,
    ) -> Result<ListPage<DatasetRecord>, ClientError> {
        let call = ApiCall::with_ids(&RECORDS, &[project_id, dataset_id])?;
        let cursor = filter.cursor.as_deref();
        let mut call = PageQuery {
            limit: filter.limit,
            cursor,
        }
        .of(call);
        if let Some(version) = filter.version {
            call = call.query("filter[version]", version.to_string());
        }
        for tag in &filter.tags {
            call = call.query("filter[tags]", tag);
        }
        let answer = self.execute(call).await?;
        read_list(self, &RECORDS, answer, record)
    }

    /// Adds records to a dataset; gives back what was added, as far as the upstream says it.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn add_dataset_records(
        &self,
        project_id: &str,
        dataset_id: &str,
        records: &[NewRecord],
        create_new_version: bool,
    ) -> Result<Vec<DatasetRecord>, ClientError> {
        let rows: Vec<Value> = records.iter().map(new_record).collect();
        let body = json!({"data": {"type": "datasets", "id": dataset_id, "attributes": {
            "insert_records": rows, "update_records": [], "delete_records": [],
            "deduplicate": true, "create_new_version": create_new_version}}});
        let call = ApiCall::with_ids(&ADD_RECORDS, &[project_id, dataset_id])?.body(body);
        let answer = self.execute(call).await?;
        Ok(read_list(self, &ADD_RECORDS, answer, record)?.rows)
    }
}

fn record(id: String, mut row: Map<String, Value>) -> DatasetRecord {
    let mut any = |key: &str| row.remove(key).filter(|value| !value.is_null());
    let (input, expected_output) = (any("input"), any("expected_output"));
    DatasetRecord {
        id,
        canonical_id: take_text(&mut row, "canonical_id"),
        version: whole(&mut row, "version"),
        input,
        expected_output,
        metadata: take_map(&mut row, "metadata"),
        tags: text_list(row.remove("tags")),
    }
}

fn new_record(record: &NewRecord) -> Value {
    let mut row = Map::from_iter([("input".to_owned(), record.input.clone())]);
    if let Some(expected) = &record.expected_output {
        row.insert("expected_output".to_owned(), expected.clone());
    }
    if let Some(metadata) = &record.metadata {
        row.insert("metadata".to_owned(), Value::Object(metadata.clone()));
    }
    row.insert("tags".to_owned(), json!(record.tags));
    Value::Object(row)
}
