//! Projects, datasets and their records.

use http::Method;
use serde_json::{Map, Value, json};

use super::call::{ApiCall, JSON_API, Operation};
use super::client::Client;
use super::error::ClientError;
use super::experiments::{ListPage, PageQuery, read_list};
use super::fields::{remove_integer, remove_map, remove_nonempty_text, text_list};
use super::retry::OperationClass;
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

/// Not idempotent, because records are appended.
static ADD_RECORDS: Operation = Operation {
    name: "addition of dataset records",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/{project_id}/datasets/{dataset_id}/batch_update",
    media: JSON_API,
};

/// A query for the list of projects or datasets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The id.
    pub id: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// Rows per page, 1 to 5,000.
    pub limit: usize,
    /// The page token of the previous page.
    pub cursor: Option<String>,
}

impl ListQuery {
    fn apply(&self, mut call: ApiCall) -> ApiCall {
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
        .apply(call)
    }
}

/// A query for the records of a dataset. All given conditions apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// The version of the dataset; by default the current one.
    pub version: Option<usize>,
    /// Tags that a record must all have, `key:value`.
    pub tags: Vec<String>,
    /// Rows per page, 1 to 5,000.
    pub limit: usize,
    /// The page token of the previous page.
    pub cursor: Option<String>,
}

/// A record to add.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewRecord {
    /// The input of the task.
    pub input: Value,
    /// The expected output.
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    pub metadata: Option<Map<String, Value>>,
    /// Tags, `key:value`.
    pub tags: Vec<String>,
}

impl Client {
    /// One page of projects, newest first.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn projects(&self, list: &ListQuery) -> Result<ListPage<Project>, ClientError> {
        let response = self.execute(list.apply(ApiCall::new(&PROJECTS))).await?;
        read_list(self, &PROJECTS, response, |id, mut row| Project {
            id,
            name: remove_nonempty_text(&mut row, "name").unwrap_or_default(),
            description: remove_nonempty_text(&mut row, "description"),
            created_at: remove_nonempty_text(&mut row, "created_at"),
            updated_at: remove_nonempty_text(&mut row, "updated_at"),
        })
    }

    /// One page of a project's datasets.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn datasets(
        &self,
        project_id: &str,
        list: &ListQuery,
    ) -> Result<ListPage<Dataset>, ClientError> {
        let call = list.apply(ApiCall::with_ids(&DATASETS, &[project_id])?);
        let response = self.execute(call).await?;
        read_list(self, &DATASETS, response, |id, mut row| Dataset {
            id,
            name: remove_nonempty_text(&mut row, "name").unwrap_or_default(),
            description: remove_nonempty_text(&mut row, "description"),
            current_version: remove_integer(&mut row, "current_version"),
            created_at: remove_nonempty_text(&mut row, "created_at"),
            updated_at: remove_nonempty_text(&mut row, "updated_at"),
        })
    }

    /// One page of a dataset's records.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
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
        .apply(call);
        if let Some(version) = filter.version {
            call = call.query("filter[version]", version.to_string());
        }
        for tag in &filter.tags {
            call = call.query("filter[tags]", tag);
        }
        let response = self.execute(call).await?;
        read_list(self, &RECORDS, response, record)
    }

    /// Adds records to a dataset. Returns the added records as far as the upstream reports them.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
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
        let response = self.execute(call).await?;
        Ok(read_list(self, &ADD_RECORDS, response, record)?.rows)
    }
}

fn record(id: String, mut row: Map<String, Value>) -> DatasetRecord {
    let mut remove_any = |key: &str| row.remove(key).filter(|value| !value.is_null());
    let (input, expected_output) = (remove_any("input"), remove_any("expected_output"));
    DatasetRecord {
        id,
        canonical_id: remove_nonempty_text(&mut row, "canonical_id"),
        version: remove_integer(&mut row, "version"),
        input,
        expected_output,
        metadata: remove_map(&mut row, "metadata"),
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
