//! Datasets: named, versioned lists of records.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::call::{
    Call, Reply, dataset_of, find_live, ids_to_delete, list_page, optional, optional_object,
    required,
};

use super::projects::soft_delete;
use super::record_csv;
use super::records::{check_version, records_of, requested_version};
use crate::Backend;
use crate::control::{Change, Object, ObjectFilter, ObjectKind, Record};
use crate::http::ApiError;

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let project = find_live(
        &backend.control,
        ObjectKind::Project,
        call.path_parameter("project_id"),
    )?;
    let find = ObjectFilter {
        parent: Some(project.id),
        ids: call.query_values("filter[id]").map(str::to_owned).collect(),
        name: call.query_value("filter[name]").map(str::to_owned),
        ..ObjectFilter::all(ObjectKind::Dataset)
    };
    list_page(
        &backend.control,
        call,
        find,
        |_| true,
        |dataset| Ok(item(dataset)),
    )
}

/// Creates a dataset, or returns an existing one of the same project and name unchanged.
pub(super) fn create(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let name = required(attributes, "name")?;
    let description = optional(attributes, "description")?.unwrap_or_default();
    let metadata = optional_object(attributes, "metadata")?;
    let dataset = backend.control.change(|store| {
        let project = find_live(
            &backend.control,
            ObjectKind::Project,
            call.path_parameter("project_id"),
        )?;
        if let Some(existing) = find_by_name(store, &project.id, name)? {
            return Ok::<_, ApiError>(existing);
        }
        let dataset = new_dataset(call, &project.id, name, description, metadata);
        store.apply(vec![Change::PutObject(dataset.clone())])?;
        Ok(dataset)
    })?;
    Ok(Reply::Json(json!({"data": item(&dataset)})))
}

fn find_by_name(
    store: &dyn crate::control::ControlStore,
    project: &str,
    name: &str,
) -> Result<Option<Object>, ApiError> {
    let found = store.find(&ObjectFilter {
        parent: Some(project.to_owned()),
        name: Some(name.to_owned()),
        limit: 1,
        ..ObjectFilter::all(ObjectKind::Dataset)
    })?;
    Ok(found.into_iter().next())
}

fn name_conflict() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "another dataset of this project has this name; choose a different name",
    )
}

fn new_dataset(
    call: &Call,
    project: &str,
    name: &str,
    description: &str,
    metadata: Option<Value>,
) -> Object {
    let mut dataset = Object::new(ObjectKind::Dataset, call.new_id(), project, name);
    dataset.set("description", description);
    dataset.set("metadata", metadata.unwrap_or(Value::Null));
    dataset.set("current_version", 0);
    dataset.set("next_place", 0);
    dataset.set("created_at", call.now());
    dataset.set("updated_at", call.now());
    dataset
}

pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let name = optional(attributes, "name")?;
    let description = optional(attributes, "description")?;
    let metadata = optional_object(attributes, "metadata")?;
    let dataset = backend.control.change(|store| {
        let mut dataset = dataset_of(&backend.control, call)?;
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            if find_by_name(store, &dataset.parent, name)?
                .is_some_and(|other| other.id != dataset.id)
            {
                return Err(name_conflict());
            }
            dataset.name = name.to_owned();
        }
        if let Some(description) = description {
            dataset.set("description", description);
        }
        if let Some(metadata) = metadata {
            dataset.set("metadata", metadata);
        }
        dataset.set("updated_at", call.now());
        store.apply(vec![Change::PutObject(dataset.clone())])?;
        Ok(dataset)
    })?;
    Ok(Reply::Json(json!({"data": item(&dataset)})))
}

/// Marks datasets as deleted, by id and optionally by project.
pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let ids = ids_to_delete(call, "dataset_ids")?;
    let project = call.path_parameter("project_id");
    for id in ids.iter().filter(|_| !project.is_empty()) {
        if find_live(&backend.control, ObjectKind::Dataset, id)?.parent != project {
            return Err(super::call::not_found("dataset"));
        }
    }
    let deleted = soft_delete(backend, call, ObjectKind::Dataset, &ids)?;
    Ok(Reply::Json(
        json!({"data": deleted.iter().map(item).collect::<Vec<_>>()}),
    ))
}

/// Copies the records of the current version into a new dataset, under new ids. Canonical ids stay
/// the same, so that experiments on both datasets can be compared record by record.
pub(super) fn clone(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let name = required(attributes, "name")?;
    let description = optional(attributes, "description")?;
    let copy = backend.control.change(|store| {
        let source = dataset_of(&backend.control, call)?;
        if find_by_name(store, &source.parent, name)?.is_some() {
            return Err(name_conflict());
        }
        let description = description.unwrap_or_else(|| source.text("description"));
        let metadata = source.body.get("metadata").cloned();
        let mut copy = new_dataset(call, &source.parent, name, description, metadata);
        let mut changes = Vec::new();
        for (position, record) in (0i64..).zip(records_of(store, &source, None)?) {
            let id = uuid::Uuid::new_v4().simple().to_string();
            changes.push(Change::PutRecord(Record {
                dataset: copy.id.clone(),
                id,
                since: 1,
                until: None,
                position,
                ..record
            }));
        }
        if !changes.is_empty() {
            copy.set("current_version", 1);
            copy.set(
                "next_place",
                i64::try_from(changes.len()).unwrap_or(i64::MAX),
            );
        }
        changes.push(Change::PutObject(copy.clone()));
        store.apply(changes)?;
        Ok(copy)
    })?;
    Ok(Reply::Json(json!({"data": item(&copy)})))
}

/// Creates a new version with the records of an older one.
pub(super) fn restore(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let version = call
        .attributes()?
        .get("dataset_version")
        .and_then(Value::as_i64)
        .ok_or_else(|| {
            ApiError::bad_request("`dataset_version` is required: the number of the version to restore, for example 1")
        })?;
    let dataset = backend.control.change(|store| {
        let mut dataset = dataset_of(&backend.control, call)?;
        check_version(&dataset, version)?;
        let current = records_of(store, &dataset, None)?;
        let restored = records_of(store, &dataset, Some(version))?;
        let next = dataset.number("current_version") + 1;
        let mut changes = Vec::new();
        for record in current {
            let until = Some(next);
            changes.push(Change::PutRecord(Record { until, ..record }));
        }
        for record in restored {
            changes.push(Change::PutRecord(Record {
                since: next,
                until: None,
                ..record
            }));
        }
        dataset.set("current_version", next);
        dataset.set("updated_at", call.now());
        changes.push(Change::PutObject(dataset.clone()));
        store.apply(changes)?;
        Ok::<_, ApiError>(dataset)
    })?;
    Ok(Reply::Json(json!({"data": item(&dataset)})))
}

/// All versions, newest first, with the time of the latest experiment on each.
pub(super) fn versions(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let dataset = dataset_of(&backend.control, call)?;
    let experiments = backend.control.store.find(&ObjectFilter {
        parent: Some(dataset.parent.clone()),
        deleted: None,
        ..ObjectFilter::all(ObjectKind::Experiment)
    })?;
    let last_used = |version: i64| {
        let mut users = experiments.iter().filter(|experiment| {
            experiment.text("dataset_id") == dataset.id
                && experiment.number("dataset_version") == version
        });
        users.next().map(|experiment| experiment.text("created_at"))
    };
    let data: Vec<Value> = (0..=dataset.number("current_version"))
        .rev()
        .map(|version| {
            json!({
                "id": format!("{}:{version}", dataset.id),
                "type": "dataset_version",
                "attributes": {
                    "version_number": version,
                    "dataset_id": dataset.id,
                    "last_used": last_used(version),
                },
            })
        })
        .collect();
    Ok(Reply::Json(json!({"data": data})))
}

/// The records as CSV, with the columns of an upload.
pub(super) fn export(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    if call
        .query_value("format")
        .is_some_and(|format| format != "csv")
    {
        return Err(ApiError::bad_request("`format` must be csv"));
    }
    let dataset = dataset_of(&backend.control, call)?;
    let version = requested_version(call, &dataset, "version")?;
    let mut rows = vec![record_csv::COLUMNS.map(str::to_owned).to_vec()];
    for record in records_of(backend.control.store.as_ref(), &dataset, Some(version))? {
        let cell = |key: &str| {
            record
                .body
                .get(key)
                .map_or_else(String::new, Value::to_string)
        };
        rows.push(vec![
            record.id.clone(),
            cell("input"),
            cell("expected_output"),
            cell("metadata"),
            json!(record.tags).to_string(),
        ]);
    }
    let csv = record_csv::write(&rows).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the records cannot be written as CSV ({error}); please report it"),
        )
    })?;
    Ok(Reply::Csv(csv))
}

fn item(dataset: &Object) -> Value {
    let mut attributes = Map::new();
    attributes.insert("name".to_owned(), json!(dataset.name));
    attributes.insert("project_id".to_owned(), json!(dataset.parent));
    for key in [
        "description",
        "metadata",
        "current_version",
        "created_at",
        "updated_at",
    ] {
        let value = dataset.body.get(key).cloned().unwrap_or(Value::Null);
        attributes.insert(key.to_owned(), value);
    }
    json!({"id": dataset.id, "type": "datasets", "attributes": attributes})
}

#[cfg(test)]
mod tests {
    use super::super::records::digest_of;
    use super::*;

    #[test]
    fn digest_ignores_key_order() {
        let of = |value: Value| digest_of(value.as_object().unwrap());
        let one = of(json!({"input": {"a": 1, "b": [1, 2]}, "expected_output": "x"}));
        assert_eq!(
            one,
            of(json!({"expected_output": "x", "input": {"b": [1, 2], "a": 1}}))
        );
        assert_ne!(
            one,
            of(json!({"expected_output": "x", "input": {"b": [2, 1], "a": 1}}))
        );
    }
}
