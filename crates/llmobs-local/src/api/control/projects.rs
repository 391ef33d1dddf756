//! Projects, which contain datasets and experiments.

use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Call, Reply, find_live, ids_to_delete, list_page, optional, required};
use crate::Backend;
use crate::control::{Change, Object, ObjectFilter, ObjectKind};
use crate::http::ApiError;

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let find = ObjectFilter {
        ids: call.query_values("filter[id]").map(str::to_owned).collect(),
        name: call.query_value("filter[name]").map(str::to_owned),
        ..ObjectFilter::all(ObjectKind::Project)
    };
    list_page(
        &backend.control,
        call,
        find,
        |_| true,
        |project| Ok(item(project)),
    )
}

/// Creates a project, or returns an existing one of the same name unchanged.
pub(super) fn create(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let name = required(attributes, "name")?;
    let description = optional(attributes, "description")?.unwrap_or_default();
    let project = backend.control.change(|store| {
        let existing = store.find(&ObjectFilter {
            name: Some(name.to_owned()),
            limit: 1,
            ..ObjectFilter::all(ObjectKind::Project)
        })?;
        if let Some(existing) = existing.into_iter().next() {
            return Ok::<_, ApiError>(existing);
        }
        let mut project = Object::new(ObjectKind::Project, call.new_id(), "", name);
        project.set("description", description);
        project.set("created_at", call.now());
        project.set("updated_at", call.now());
        store.apply(vec![Change::PutObject(project.clone())])?;
        Ok(project)
    })?;
    Ok(Reply::Json(json!({"data": item(&project)})))
}

pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let attributes = call.attributes()?;
    let name = optional(attributes, "name")?;
    let description = optional(attributes, "description")?;
    let project = backend.control.change(|store| {
        let mut project = find_live(
            &backend.control,
            ObjectKind::Project,
            call.path_parameter("project_id"),
        )?;
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            let same_name = store.find(&ObjectFilter {
                name: Some(name.to_owned()),
                ..ObjectFilter::all(ObjectKind::Project)
            })?;
            if same_name.iter().any(|other| other.id != project.id) {
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "another project has this name; choose a different name",
                ));
            }
            project.name = name.to_owned();
        }
        if let Some(description) = description {
            project.set("description", description);
        }
        project.set("updated_at", call.now());
        store.apply(vec![Change::PutObject(project.clone())])?;
        Ok(project)
    })?;
    Ok(Reply::Json(json!({"data": item(&project)})))
}

pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let ids = ids_to_delete(call, "project_ids")?;
    let deleted = soft_delete(backend, call, ObjectKind::Project, &ids)?;
    Ok(Reply::Json(
        json!({"data": deleted.iter().map(item).collect::<Vec<_>>()}),
    ))
}

/// Marks objects as deleted. An unknown id fails the request, which then changes nothing.
pub(super) fn soft_delete(
    backend: &Backend,
    call: &Call,
    kind: ObjectKind,
    ids: &[String],
) -> Result<Vec<Object>, ApiError> {
    backend.control.change(|store| {
        let mut deleted = Vec::new();
        for id in ids {
            let mut object = find_live(&backend.control, kind, id)?;
            object.deleted = true;
            object.set("deleted_at", call.now());
            object.set("updated_at", call.now());
            deleted.push(object);
        }
        store.apply(deleted.iter().cloned().map(Change::PutObject).collect())?;
        Ok(deleted)
    })
}

fn item(project: &Object) -> Value {
    json!({
        "id": project.id,
        "type": "projects",
        "attributes": {
            "name": project.name,
            "description": project.text("description"),
            "created_at": project.text("created_at"),
            "updated_at": project.text("updated_at"),
        },
    })
}
