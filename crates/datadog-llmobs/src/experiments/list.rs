//! Lists of the control plane: `{data: [{id, attributes}], meta: {after}}`.

use serde_json::{Map, Value};

use super::{LIST, wire};
use crate::call::{ApiCall, ApiResponse, Operation};
use crate::client::Client;
use crate::error::ClientError;
use crate::fields::remove_nonempty_text;
use crate::pager;
use llmobs_core::model::Experiment;

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListPage<T> {
    /// The rows, in the order of the upstream.
    pub rows: Vec<T>,
    /// The token of the next page; `None` on the last page.
    pub next_cursor: Option<String>,
}

/// A filter of experiments. All given conditions apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExperimentFilter {
    /// The id of the project.
    pub project_id: Option<String>,
    /// The id of the dataset.
    pub dataset_id: Option<String>,
    /// The ids of the experiments.
    pub ids: Vec<String>,
    /// The name that was requested at creation.
    pub experiment: Option<String>,
    /// Only experiments that repeat the experiment with this id.
    pub parent_experiment_id: Option<String>,
}

/// The query parameters of one page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageQuery<'a> {
    pub(crate) limit: usize,
    pub(crate) cursor: Option<&'a str>,
}

impl PageQuery<'_> {
    pub(crate) fn apply(self, call: ApiCall) -> ApiCall {
        let call = call.query("page[limit]", self.limit.to_string());
        match self.cursor {
            Some(cursor) => call.query("page[cursor]", cursor),
            None => call,
        }
    }
}

impl Client {
    /// One page of experiments, newest first. `limit` is 1 to 5,000.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn experiments(
        &self,
        filter: &ExperimentFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<ListPage<Experiment>, ClientError> {
        let mut call = PageQuery { limit, cursor }.apply(ApiCall::new(&LIST));
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
        let response = self.execute(call).await?;
        read_list(self, &LIST, response, wire::experiment)
    }
}

/// Reads a list; rows without an id are skipped.
pub(crate) fn read_list<T>(
    client: &Client,
    operation: &'static Operation,
    mut response: ApiResponse,
    read: impl Fn(String, Map<String, Value>) -> T,
) -> Result<ListPage<T>, ClientError> {
    let next_cursor = pager::next_cursor(&response.value);
    match response.value.get_mut("data").map(Value::take) {
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
            response.status,
            "JSON without the list (`data`)".to_owned(),
        )),
    }
}

/// Reads the single resource of a response.
pub(crate) fn read_one<T>(
    client: &Client,
    operation: &'static Operation,
    mut response: ApiResponse,
    read: impl Fn(String, Map<String, Value>) -> T,
) -> Result<T, ClientError> {
    let data = response.value.get_mut("data").map(Value::take);
    data.and_then(|data| resource(data, &read)).ok_or_else(|| {
        client.unreadable(
            operation,
            response.status,
            "JSON without an id (`data.id`)".to_owned(),
        )
    })
}

fn resource<T>(row: Value, read: &impl Fn(String, Map<String, Value>) -> T) -> Option<T> {
    let Value::Object(mut row) = row else {
        return None;
    };
    let id = remove_nonempty_text(&mut row, "id")?;
    // In the documented model of a record, the fields are beside its id.
    let attributes = match row.remove("attributes") {
        Some(Value::Object(attributes)) => attributes,
        _ => row,
    };
    Some(read(id, attributes))
}
