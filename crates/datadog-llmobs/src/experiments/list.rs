//! Lists of the control plane: `{data: [{id, attributes}], meta: {after}}`.

use serde_json::{Map, Value};

use super::{LIST, wire};
use crate::call::{ApiCall, ApiResponse, Operation};
use crate::client::Client;
use crate::error::ClientError;
use crate::pager;
use llmobs_core::model::Experiment;

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListPage<T> {
    /// The rows, in the upstream's order.
    pub rows: Vec<T>,
    /// Where to go on; `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Which experiments are wanted; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExperimentFilter {
    /// Of this project.
    pub project_id: Option<String>,
    /// Over this dataset.
    pub dataset_id: Option<String>,
    /// These experiments.
    pub ids: Vec<String>,
    /// Of this name, as asked for when they were made.
    pub experiment: Option<String>,
    /// Re-runs of this experiment.
    pub parent_experiment_id: Option<String>,
}

/// How much of a list, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageQuery<'a> {
    pub(crate) limit: usize,
    pub(crate) cursor: Option<&'a str>,
}

impl PageQuery<'_> {
    pub(crate) fn of(self, call: ApiCall) -> ApiCall {
        let call = call.query("page[limit]", self.limit.to_string());
        match self.cursor {
            Some(cursor) => call.query("page[cursor]", cursor),
            None => call,
        }
    }
}

impl Client {
    /// One page of experiments, the newest first. `limit` is 1 to 5,000.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn experiments(
        &self,
        filter: &ExperimentFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<ListPage<Experiment>, ClientError> {
        let mut call = PageQuery { limit, cursor }.of(ApiCall::new(&LIST));
        for (key, value) in [
            ("filter[project_id]", &filter.project_id),
            ("filter[dataset_id]", &filter.dataset_id),
            ("filter[experiment]", &filter.experiment),
            ("filter[parent_experiment_id]", &filter.parent_experiment_id),
        ] {
            if let Some(value) = value {
                call = call.query(key, value);
            }
        }
        for id in &filter.ids {
            call = call.query("filter[id]", id);
        }
        let answer = self.execute(call).await?;
        read_list(self, &LIST, answer, wire::experiment)
    }
}

/// Reads a list; rows without an id are passed over.
pub(crate) fn read_list<T>(
    client: &Client,
    operation: &'static Operation,
    mut answer: ApiResponse,
    read: impl Fn(String, Map<String, Value>) -> T,
) -> Result<ListPage<T>, ClientError> {
    let next_cursor = next_cursor(&answer.value);
    match answer.value.get_mut("data").map(Value::take) {
        Some(Value::Array(rows)) => Ok(ListPage {
            rows: rows
                .into_iter()
                .filter_map(|row| resource(row, &read))
                .collect(),
            next_cursor,
        }),
        Some(Value::Null) => Ok(ListPage {
            rows: Vec::new(),
            next_cursor,
        }),
        _ => Err(client.unreadable(
            operation,
            answer.status,
            "JSON without the list (`data`)".to_owned(),
        )),
    }
}

/// Reads the one resource of an answer.
pub(crate) fn read_one<T>(
    client: &Client,
    operation: &'static Operation,
    mut answer: ApiResponse,
    read: impl Fn(String, Map<String, Value>) -> T,
) -> Result<T, ClientError> {
    let data = answer.value.get_mut("data").map(Value::take);
    data.and_then(|data| resource(data, &read)).ok_or_else(|| {
        client.unreadable(
            operation,
            answer.status,
            "JSON without an id (`data.id`)".to_owned(),
        )
    })
}

fn resource<T>(row: Value, read: &impl Fn(String, Map<String, Value>) -> T) -> Option<T> {
    let Value::Object(mut row) = row else {
        return None;
    };
    let id = wire::take_text(&mut row, "id")?;
    // The documented model puts a record's fields beside its id.
    let attributes = match row.remove("attributes") {
        Some(Value::Object(attributes)) => attributes,
        _ => row,
    };
    Some(read(id, attributes))
}

/// The next cursor: `meta.after` here, `meta.page.after` on other routes.
pub(super) fn next_cursor(body: &Value) -> Option<String> {
    body.pointer("/meta/after")
        .and_then(Value::as_str)
        .filter(|cursor| !cursor.is_empty())
        .map(str::to_owned)
        .or_else(|| pager::next_cursor(body))
}
