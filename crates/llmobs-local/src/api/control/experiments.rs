//! Experiments: one task over one dataset, in one or more runs.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::call::{
    Call, Reply, flag, ids_to_delete, live, optional, optional_object, page_of, required,
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
        ids: call.asked_all("filter[id]").map(str::to_owned).collect(),
        parent: call.asked("filter[project_id]").map(str::to_owned),
        name: call.asked("filter[name]").map(str::to_owned),
        deleted: Some(call.asked_flag("filter[is_deleted]")?.unwrap_or(false)),
        ..ObjectFilter::all(ObjectKind::Experiment)
    };
    let metadata = call
        .asked("filter[metadata]")
        .map(serde_json::from_str::<Value>)
        .transpose()
        .map_err(|_| {
            ApiError::bad_request(
                "`filter[metadata]` must be JSON, for example {\"tags\":[\"branch:main\"]}",
            )
        })?;
    let parents: Vec<&str> = call.asked_all("filter[parent_experiment_id]").collect();
    let is = |object: &Object, key: &str, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| object.text(key) == wanted)
    };
    let keep = |object: &Object| {
        is(object, "dataset_id", call.asked("filter[dataset_id]"))
            && is(object, "experiment", call.asked("filter[experiment]"))
            && (parents.is_empty() || parents.contains(&object.text("parent_experiment_id")))
            && metadata.as_ref().is_none_or(|wanted| {
                let found = object.body.get("metadata").unwrap_or(&Value::Null);
                contains(found, wanted)
            })
    };
    let user_data = call.asked_flag("include[user_data]")?.unwrap_or(false);
    let names = call.asked_flag("include[dataset_names]")?.unwrap_or(false);
    page_of(&backend.control, call, find, keep, |experiment| {
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

/// Whether a value holds another one: objects by key, lists by element, the rest by equality.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let found = found.get(key);
            found.is_some_and(|found| contains(found, wanted))
        }),
        (Value::Array(found), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| found.iter().any(|found| contains(found, wanted))),
        (found, wanted) => found == wanted,
    }
}

fn dataset_name(store: &dyn ControlStore, id: &str) -> Result<Option<String>, ApiError> {
    let found = store.find(&ObjectFilter {
        ids: vec![id.to_owned()],
        deleted: None,
        limit: 1,
        ..ObjectFilter::all(ObjectKind::Dataset)
    })?;
    Ok(found.into_iter().next().map(|dataset| dataset.name))
}

/// Sums over the experiment's spans, as far as they have come.
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

/// Creates an experiment. Its run name is the name asked for and the moment, so that it is unique.
pub(super) fn create(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let name = required(sent, "name")?;
    let project_id = required(sent, "project_id")?;
    let dataset_id = optional(sent, "dataset_id")?.unwrap_or_default();
    let parent = optional(sent, "parent_experiment_id")?;
    let version = whole(sent, "dataset_version")?;
    let run_count = whole(sent, "run_count")?.unwrap_or(1);
    let unique = flag(sent, "ensure_unique", true)?;
    let description = optional(sent, "description")?.unwrap_or_default();
    let config = optional_object(sent, "config")?.unwrap_or_else(|| json!({}));
    let metadata = optional_object(sent, "metadata")?.unwrap_or_else(|| json!({}));
    let experiment = backend.control.change(|store| {
        let project = live(&backend.control, ObjectKind::Project, project_id)?;
        let version = version_of(backend, dataset_id, version)?;
        let id = call.new_id();
        let run_name = if unique {
            let mut ms = call.now_ms;
            while taken(store, &project.id, &format!("{name}-{ms}"), &id)? {
                ms += 1;
            }
            format!("{name}-{ms}")
        } else if taken(store, &project.id, name, &id)? {
            return Err(conflict());
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
        // Sample data is loaded again under the same id, and starts afresh.
        let forget = Change::RemoveMetrics {
            experiment: experiment.id.clone(),
        };
        store.apply(vec![forget, Change::PutObject(experiment.clone())])?;
        Ok(experiment)
    })?;
    let mut attributes = attributes_of(&experiment);
    // As Datadog does, against its own model.
    attributes.shift_remove("config");
    Ok(Reply::Json(json!({"data": item(&experiment, &attributes)})))
}

/// The version of the dataset that the experiment is on, checked.
fn version_of(backend: &Backend, dataset: &str, asked: Option<i64>) -> Result<i64, ApiError> {
    if dataset.is_empty() {
        return Ok(asked.unwrap_or(0));
    }
    let dataset = live(&backend.control, ObjectKind::Dataset, dataset)?;
    match asked {
        None => Ok(dataset.number("current_version")),
        Some(version) => check_version(&dataset, version).map(|()| version),
    }
}

fn whole(sent: &Map<String, Value>, key: &str) -> Result<Option<i64>, ApiError> {
    match sent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("`{key}` must be a whole number"))),
    }
}

/// Whether another experiment of the project has the run name.
fn taken(
    store: &dyn ControlStore,
    project: &str,
    run_name: &str,
    id: &str,
) -> Result<bool, ApiError> {
    let found = store.find(&ObjectFilter {
        parent: Some(project.to_owned()),
        name: Some(run_name.to_owned()),
        ..ObjectFilter::all(ObjectKind::Experiment)
    })?;
    Ok(found.iter().any(|other| other.id != id))
}

fn conflict() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "another experiment of this project has this name already; choose another one, or leave `ensure_unique` true",
    )
}

/// Changes what is sent, and answers 200 with an empty body, as Datadog does.
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
        let mut experiment = live(
            &backend.control,
            ObjectKind::Experiment,
            call.parameter("experiment_id"),
        )?;
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            if taken(store, &experiment.parent, name, &experiment.id)? {
                return Err(conflict());
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
    let gone = soft_delete(backend, call, ObjectKind::Experiment, &ids)?;
    let items = gone
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
    fn metadata_is_found_by_containment(#[case] wanted: Value, #[case] found: bool) {
        let metadata =
            json!({"tags": ["team:geo", "branch:main"], "ci": {"commit": "abc", "pr": 1}});
        assert_eq!(contains(&metadata, &wanted), found);
    }
}
