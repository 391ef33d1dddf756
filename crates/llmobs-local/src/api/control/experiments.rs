//! Experiments: one task on one dataset, in one or more runs.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::call::{
    Call, Reply, find_live, ids_to_delete, list_page, optional, optional_flag, optional_object,
    required,
};
use super::projects::soft_delete;
use super::records::check_version;
use crate::Backend;
use crate::control::{Change, ControlStore, Object, ObjectFilter, ObjectKind};
use crate::http::ApiError;
use llmobs_core::model::cost::estimated_total_cost;

const STATUSES: [&str; 4] = ["running", "completed", "failed", "interrupted"];

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let find = ObjectFilter {
        ids: call.query_values("filter[id]").map(str::to_owned).collect(),
        parent: call.query_value("filter[project_id]").map(str::to_owned),
        name: call.query_value("filter[name]").map(str::to_owned),
        deleted: Some(call.query_flag("filter[is_deleted]")?.unwrap_or(false)),
        ..ObjectFilter::all(ObjectKind::Experiment)
    };
    let metadata = call
        .query_value("filter[metadata]")
        .map(serde_json::from_str::<Value>)
        .transpose()
        .map_err(|_| {
            ApiError::bad_request(
                "`filter[metadata]` must be JSON, for example {\"tags\":[\"branch:main\"]}",
            )
        })?;
    let parents: Vec<&str> = call.query_values("filter[parent_experiment_id]").collect();
    let equals = |object: &Object, key: &str, expected: Option<&str>| {
        expected.is_none_or(|expected| object.text(key) == expected)
    };
    let keep = |object: &Object| {
        equals(object, "dataset_id", call.query_value("filter[dataset_id]"))
            && equals(object, "experiment", call.query_value("filter[experiment]"))
            && (parents.is_empty() || parents.contains(&object.text("parent_experiment_id")))
            && metadata.as_ref().is_none_or(|expected| {
                let actual = object.body.get("metadata").unwrap_or(&Value::Null);
                contains(actual, expected)
            })
    };
    let user_data = call.query_flag("include[user_data]")?.unwrap_or(false);
    let names = call.query_flag("include[dataset_names]")?.unwrap_or(false);
    list_page(&backend.control, call, find, keep, |experiment| {
        let mut attributes = attributes_of(experiment);
        let store = backend.control.store.as_ref();
        attributes.insert("aggregate_data".to_owned(), aggregate(store, experiment)?);
        if user_data {
            attributes.insert("author".to_owned(), json!({"id": "local", "name": "local"}));
        }
        if names {
            let name = dataset_name(store, experiment.text("dataset_id"))?;
            attributes.insert("dataset_name".to_owned(), json!(name));
        }
        Ok(item(experiment, &attributes))
    })
}

/// Whether a value contains another: objects by key, lists by element, other values by equality.
fn contains(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| {
                let actual = actual.get(key);
                actual.is_some_and(|actual| contains(actual, expected))
            })
        }
        (Value::Array(actual), Value::Array(expected)) => expected
            .iter()
            .all(|expected| actual.iter().any(|actual| contains(actual, expected))),
        (actual, expected) => actual == expected,
    }
}

fn dataset_name(store: &dyn ControlStore, id: &str) -> Result<Option<String>, ApiError> {
    let datasets = store.find(&ObjectFilter {
        ids: vec![id.to_owned()],
        deleted: None,
        limit: 1,
        ..ObjectFilter::all(ObjectKind::Dataset)
    })?;
    Ok(datasets.into_iter().next().map(|dataset| dataset.name))
}

/// Totals of the spans of the experiment that have arrived.
fn aggregate(store: &dyn ControlStore, experiment: &Object) -> Result<Value, ApiError> {
    let totals = store.totals(&experiment.id)?;
    if totals.runs == 0 {
        return Ok(Value::Null);
    }
    Ok(json!({
        "total_spans": totals.runs,
        "total_errors": totals.failed_runs,
        "total_duration_ns": totals.duration_ns,
        "total_input_tokens": totals.input_tokens.round() as i64,
        "total_output_tokens": totals.output_tokens.round() as i64,
        "total_tokens": totals.total_tokens.round() as i64,
        "estimated_total_cost": estimated_total_cost(totals.cost_usd).round() as i64,
    }))
}

/// Creates an experiment. A timestamp makes the requested name unique.
pub(super) fn create(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let name = required(sent, "name")?;
    let project_id = required(sent, "project_id")?;
    let dataset_id = optional(sent, "dataset_id")?.unwrap_or_default();
    let parent = optional(sent, "parent_experiment_id")?;
    let version = optional_integer(sent, "dataset_version")?;
    let run_count = optional_integer(sent, "run_count")?.unwrap_or(1);
    let unique = optional_flag(sent, "ensure_unique", true)?;
    let description = optional(sent, "description")?.unwrap_or_default();
    let config = optional_object(sent, "config")?.unwrap_or_else(|| json!({}));
    let metadata = optional_object(sent, "metadata")?.unwrap_or_else(|| json!({}));
    let experiment = backend.control.change(|store| {
        let project = find_live(&backend.control, ObjectKind::Project, project_id)?;
        let version = version_of(backend, dataset_id, version)?;
        let id = call.new_id();
        let run_name = if unique {
            let mut ms = call.now_ms;
            while name_is_used(store, &project.id, &format!("{name}-{ms}"), &id)? {
                ms += 1;
            }
            format!("{name}-{ms}")
        } else if name_is_used(store, &project.id, name, &id)? {
            return Err(name_conflict());
        } else {
            name.to_owned()
        };
        let mut experiment = Object::new(ObjectKind::Experiment, id, &project.id, &run_name);
        for (key, value) in [
            ("experiment", json!(name)),
            ("dataset_id", json!(dataset_id)),
            ("dataset_version", json!(version)),
            ("description", json!(description)),
            ("config", config),
            ("metadata", metadata),
            ("run_count", json!(run_count)),
            ("parent_experiment_id", json!(parent)),
            ("created_at", json!(call.now())),
            ("updated_at", json!(call.now())),
        ] {
            experiment.set(key, value);
        }
        // Loading sample data again reuses the id and replaces the metrics.
        let forget = Change::RemoveMetrics {
            experiment: experiment.id.clone(),
        };
        store.apply(vec![forget, Change::PutObject(experiment.clone())])?;
        Ok(experiment)
    })?;
    let mut attributes = attributes_of(&experiment);
    // Like Datadog, although its documented model has this key.
    attributes.shift_remove("config");
    Ok(Reply::Json(json!({"data": item(&experiment, &attributes)})))
}

/// Validates the dataset version of an experiment; the default is the current version.
fn version_of(backend: &Backend, dataset: &str, requested: Option<i64>) -> Result<i64, ApiError> {
    if dataset.is_empty() {
        return Ok(requested.unwrap_or(0));
    }
    let dataset = find_live(&backend.control, ObjectKind::Dataset, dataset)?;
    match requested {
        None => Ok(dataset.number("current_version")),
        Some(version) => check_version(&dataset, version).map(|()| version),
    }
}

fn optional_integer(sent: &Map<String, Value>, key: &str) -> Result<Option<i64>, ApiError> {
    match sent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("`{key}` must be a whole number"))),
    }
}

/// Whether another experiment of the project has the run name.
fn name_is_used(
    store: &dyn ControlStore,
    project: &str,
    run_name: &str,
    id: &str,
) -> Result<bool, ApiError> {
    let experiments = store.find(&ObjectFilter {
        parent: Some(project.to_owned()),
        name: Some(run_name.to_owned()),
        ..ObjectFilter::all(ObjectKind::Experiment)
    })?;
    Ok(experiments.iter().any(|other| other.id != id))
}

fn name_conflict() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "another experiment of this project has this name; choose a different name, or set `ensure_unique` to true",
    )
}

/// Changes the sent fields. Like Datadog, responds with 200 and an empty body.
pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let name = optional(sent, "name")?;
    let status = optional(sent, "status")?;
    if let Some(status) = status
        && !STATUSES.contains(&status)
    {
        return Err(ApiError::bad_request(format!(
            "`status` must be one of {}",
            STATUSES.join(", ")
        )));
    }
    let texts = [
        ("status", status),
        ("error", optional(sent, "error")?),
        ("description", optional(sent, "description")?),
        ("dataset_id", optional(sent, "dataset_id")?),
    ];
    let metadata = optional_object(sent, "metadata")?;
    backend.control.change(|store| {
        let mut experiment = find_live(
            &backend.control,
            ObjectKind::Experiment,
            call.path_parameter("experiment_id"),
        )?;
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            if name_is_used(store, &experiment.parent, name, &experiment.id)? {
                return Err(name_conflict());
            }
            experiment.name = name.to_owned();
        }
        for (key, text) in texts {
            if let Some(text) = text {
                experiment.set(key, text);
            }
        }
        if let Some(metadata) = metadata {
            experiment.set("metadata", metadata);
        }
        experiment.set("updated_at", call.now());
        Ok::<_, ApiError>(store.apply(vec![Change::PutObject(experiment)])?)
    })?;
    Ok(Reply::Empty(StatusCode::OK))
}

pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let ids = ids_to_delete(call, "experiment_ids")?;
    let deleted = soft_delete(backend, call, ObjectKind::Experiment, &ids)?;
    let items = deleted
        .iter()
        .map(|object| item(object, &attributes_of(object)));
    Ok(Reply::Json(json!({"data": items.collect::<Vec<_>>()})))
}

fn attributes_of(experiment: &Object) -> Map<String, Value> {
    let mut attributes = Map::new();
    attributes.insert("name".to_owned(), json!(experiment.name));
    attributes.insert("project_id".to_owned(), json!(experiment.parent));
    attributes.extend(experiment.body.clone());
    attributes
        .entry("deleted_at".to_owned())
        .or_insert(Value::Null);
    attributes
}

fn item(experiment: &Object, attributes: &Map<String, Value>) -> Value {
    json!({"id": experiment.id, "type": "experiments", "attributes": attributes})
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!({"tags": ["branch:main"]}), true)]
    #[case(json!({"tags": ["branch:main", "team:geo"]}), true)]
    #[case(json!({"tags": ["branch:dev"]}), false)]
    #[case(json!({"ci": {"commit": "abc"}}), true)]
    #[case(json!({"ci": {"commit": "abc", "pr": 2}}), false)]
    #[case(json!({}), true)]
    #[case(json!({"tags": "branch:main"}), false)]
    fn metadata_filter_matches_contained_values(#[case] filter: Value, #[case] expected: bool) {
        let metadata =
            json!({"tags": ["team:geo", "branch:main"], "ci": {"commit": "abc", "pr": 1}});
        assert_eq!(contains(&metadata, &filter), expected);
    }
}
