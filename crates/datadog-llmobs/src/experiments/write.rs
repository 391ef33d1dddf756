//! Creating and changing experiments, and appending events to them.

use serde_json::{Map, Value};

use super::list::read_one;
use super::{CREATE, PUSH, UPDATE, wire};
use crate::call::ApiCall;
use crate::client::Client;
use crate::error::ClientError;
use llmobs_core::model::Experiment;

/// An experiment to create.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewExperiment {
    /// The name. The upstream derives a unique run name from it.
    pub name: String,
    /// The id of its project.
    pub project_id: String,
    /// The id of its dataset.
    pub dataset_id: Option<String>,
    /// The version of that dataset.
    pub dataset_version: Option<i64>,
    /// The description.
    pub description: Option<String>,
    /// Parameters of the task.
    pub config: Option<Map<String, Value>>,
    /// Free-form metadata.
    pub metadata: Option<Map<String, Value>>,
    /// How often each record runs.
    pub run_count: Option<i64>,
}

/// New values of fields of an experiment. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentChange {
    /// The run name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// Free-form metadata, which replaces the previous metadata.
    pub metadata: Option<Map<String, Value>>,
    /// `running`, `completed`, `failed` or `interrupted`.
    pub status: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Client {
    /// Creates an experiment.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn create_experiment(&self, new: &NewExperiment) -> Result<Experiment, ClientError> {
        let mut attributes = Map::new();
        put(&mut attributes, "name", Some(&new.name));
        put(&mut attributes, "project_id", Some(&new.project_id));
        put(&mut attributes, "dataset_id", new.dataset_id.as_ref());
        put(&mut attributes, "dataset_version", new.dataset_version);
        put(&mut attributes, "description", new.description.as_ref());
        put(&mut attributes, "config", new.config.clone());
        put(&mut attributes, "metadata", new.metadata.clone());
        put(&mut attributes, "run_count", new.run_count);
        put(&mut attributes, "ensure_unique", Some(true));
        let call = ApiCall::new(&CREATE).body(resource("experiments", attributes));
        let response = self.execute(call).await?;
        read_one(self, &CREATE, response, wire::experiment)
    }

    /// Changes an experiment.
    ///
    /// # Errors
    /// [`ClientError::ExperimentNotFound`], and the errors of [`Client::execute`].
    pub async fn update_experiment(
        &self,
        id: &str,
        change: &ExperimentChange,
    ) -> Result<(), ClientError> {
        let mut attributes = Map::new();
        put(&mut attributes, "name", change.name.as_ref());
        put(&mut attributes, "description", change.description.as_ref());
        put(&mut attributes, "metadata", change.metadata.clone());
        put(&mut attributes, "status", change.status.as_ref());
        put(&mut attributes, "error", change.error.as_ref());
        let call = ApiCall::with_ids(&UPDATE, &[id])?
            .body(resource("experiments", attributes))
            .may_be_empty();
        self.write_experiment(id, call).await
    }

    /// Appends metrics to an experiment, each a JSON object of the API. `tags` apply to all of them.
    ///
    /// # Errors
    /// [`ClientError::ExperimentNotFound`], and the errors of [`Client::execute`].
    pub async fn push_metrics(
        &self,
        id: &str,
        metrics: Vec<Value>,
        tags: &[String],
    ) -> Result<(), ClientError> {
        let mut attributes = Map::new();
        put(&mut attributes, "metrics", Some(metrics));
        if !tags.is_empty() {
            put(&mut attributes, "tags", Some(tags));
        }
        let call = ApiCall::with_ids(&PUSH, &[id])?
            .body(resource("events", attributes))
            .may_be_empty();
        self.write_experiment(id, call).await
    }

    /// Sends a write, and removes the experiment from the cache whether it succeeds or not.
    async fn write_experiment(&self, id: &str, call: ApiCall) -> Result<(), ClientError> {
        let result = self.execute(call).await;
        self.hub
            .caches
            .invalidate_experiment(self.fingerprint, id)
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(ClientError::Status(response)) if response.status == 404 => {
                Err(ClientError::ExperimentNotFound(id.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        let value = serde_json::to_value(value).unwrap_or_default();
        map.insert(key.to_owned(), value);
    }
}

fn resource(kind: &str, attributes: Map<String, Value>) -> Value {
    let attributes = Value::Object(attributes);
    let data = [("type", Value::from(kind)), ("attributes", attributes)];
    let data: Map<String, Value> = data
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect();
    Value::Object(Map::from_iter([("data".to_owned(), Value::Object(data))]))
}
