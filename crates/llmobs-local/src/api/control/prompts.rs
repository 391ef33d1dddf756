//! The prompt registry: prompts, versions and labels.
//!
//! On the unstable path, which the SDK uses, objects are flat; on v2 they are JSON:API resources.
//! A label belongs to at most one version of a prompt.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::call::{
    Call, Reply, find_live, not_found, optional, optional_object, required, text_list,
};
use crate::Backend;
use crate::control::{Change, Control, ControlStore, Object, ObjectFilter, ObjectKind};
use crate::http::ApiError;

const PROMPT_TYPE: &str = "prompt-templates";
const VERSION_TYPE: &str = "prompt-template-versions";

pub(super) fn list(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let prompts = backend.control.store.find(&ObjectFilter {
        ids: call
            .query_values("filter[prompt_id]")
            .map(str::to_owned)
            .collect(),
        ..ObjectFilter::all(ObjectKind::Prompt)
    })?;
    let items = prompts.iter().map(prompt_item).collect();
    Ok(Reply::Json(list_response(call, PROMPT_TYPE, items)))
}

pub(super) fn create(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let id = required(sent, "prompt_id")?;
    let title = optional(sent, "title")?.unwrap_or_default();
    let description = optional(sent, "description")?.unwrap_or_default();
    let prompt = backend.control.change(|store| {
        let existing = store.find(&ObjectFilter {
            ids: vec![id.to_owned()],
            deleted: None,
            ..ObjectFilter::all(ObjectKind::Prompt)
        })?;
        let existing = existing.into_iter().next();
        if existing.as_ref().is_some_and(|prompt| !prompt.deleted) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "a prompt with this `prompt_id` exists; add a version to it, or choose a different id",
            ));
        }
        let mut prompt = Object::new(ObjectKind::Prompt, id.to_owned(), "", id);
        prompt.set("uuid", call.new_id());
        prompt.set("title", title);
        prompt.set("description", description);
        prompt.set("created_at", call.now());
        // Hides the versions of a deleted prompt with the same id.
        let first = existing.map_or(1, |prompt| prompt.number("num_versions") + 1);
        prompt.set("first_version", first);
        prompt.set("num_versions", first - 1);
        let mut changes = Vec::new();
        add_version(store, call, &mut prompt, sent, &mut changes)?;
        changes.push(Change::PutObject(prompt.clone()));
        store.apply(changes)?;
        Ok(prompt)
    })?;
    Ok(Reply::Json(single_response(
        call,
        PROMPT_TYPE,
        prompt_item(&prompt),
    )))
}

pub(super) fn update(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let texts = ["title", "description"].map(|key| optional(sent, key).map(|text| (key, text)));
    let texts = texts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let prompt = backend.control.change(|store| {
        let mut prompt = prompt_of(&backend.control, call)?;
        for (key, text) in texts {
            if let Some(text) = text {
                prompt.set(key, text);
            }
        }
        store.apply(vec![Change::PutObject(prompt.clone())])?;
        Ok::<_, ApiError>(prompt)
    })?;
    Ok(Reply::Json(single_response(
        call,
        PROMPT_TYPE,
        prompt_item(&prompt),
    )))
}

pub(super) fn delete(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let id = call.path_parameter("prompt_id").to_owned();
    let deleted = super::projects::soft_delete(backend, call, ObjectKind::Prompt, &[id])?;
    let prompt = deleted.first().ok_or_else(|| not_found("prompt"))?;
    let item = json!({
        "id": prompt.text("uuid"),
        "prompt_id": prompt.id,
        "deleted_at": prompt.text("deleted_at"),
    });
    Ok(Reply::Json(single_response(call, PROMPT_TYPE, item)))
}

/// The version with a label, by default the newest version.
pub(super) fn get(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let prompt = prompt_of(&backend.control, call)?;
    let version = match call.query_value("label") {
        None => version_of(&backend.control, &prompt, prompt.number("num_versions"))?,
        Some(label) => version_with_label(&backend.control, &prompt, label)?
            .ok_or_else(|| not_found("version of the prompt with this label"))?,
    };
    Ok(Reply::Json(single_response(
        call,
        PROMPT_TYPE,
        resolved_item(&prompt, &version, call.query_value("label")),
    )))
}

/// The version for an environment: the first whose `env_ids` or labels contain it, then the one
/// labelled `production`, then the newest.
pub(super) fn resolve(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let prompt = prompt_of(&backend.control, call)?;
    let environment = optional(call.attributes()?, "env")?.unwrap_or_default();
    let versions = versions_of(&backend.control, &prompt)?;
    let is_for_environment = |version: &&Object| {
        ["env_ids", "labels"]
            .iter()
            .any(|key| words(version, key).any(|word| word == environment))
    };
    let by_environment = versions.iter().find(is_for_environment);
    let version = match by_environment {
        Some(version) => version.clone(),
        None => match version_with_label(&backend.control, &prompt, "production")? {
            Some(version) => version,
            None => version_of(&backend.control, &prompt, prompt.number("num_versions"))?,
        },
    };
    Ok(Reply::Json(single_response(
        call,
        PROMPT_TYPE,
        resolved_item(&prompt, &version, None),
    )))
}

pub(super) fn versions(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let prompt = prompt_of(&backend.control, call)?;
    let versions = versions_of(&backend.control, &prompt)?;
    let items = versions
        .iter()
        .map(|version| version_item(&prompt, version));
    Ok(Reply::Json(list_response(
        call,
        VERSION_TYPE,
        items.collect(),
    )))
}

pub(super) fn version(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let prompt = prompt_of(&backend.control, call)?;
    let version = version_of(&backend.control, &prompt, number_of(call)?)?;
    Ok(Reply::Json(single_response(
        call,
        VERSION_TYPE,
        version_item(&prompt, &version),
    )))
}

pub(super) fn create_version(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let (prompt, version) = backend.control.change(|store| {
        let mut prompt = prompt_of(&backend.control, call)?;
        let mut changes = Vec::new();
        let version = add_version(store, call, &mut prompt, sent, &mut changes)?;
        changes.push(Change::PutObject(prompt.clone()));
        store.apply(changes)?;
        Ok::<_, ApiError>((prompt, version))
    })?;
    Ok(Reply::Json(single_response(
        call,
        VERSION_TYPE,
        version_item(&prompt, &version),
    )))
}

pub(super) fn update_version(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let number = number_of(call)?;
    let (prompt, version) = backend.control.change(|store| {
        let prompt = prompt_of(&backend.control, call)?;
        let mut version = version_of(&backend.control, &prompt, number)?;
        if let Some(description) = optional(sent, "description")? {
            version.set("description", description);
        }
        let mut changes = Vec::new();
        for key in ["labels", "env_ids"] {
            if sent.get(key).is_some_and(|value| !value.is_null()) {
                let words = text_list(sent, key)?;
                remove_from_other_versions(store, &version, key, &words, &mut changes)?;
                version.set(key, json!(words));
            }
        }
        changes.push(Change::PutObject(version.clone()));
        store.apply(changes)?;
        Ok::<_, ApiError>((prompt, version))
    })?;
    Ok(Reply::Json(single_response(
        call,
        VERSION_TYPE,
        version_item(&prompt, &version),
    )))
}

fn prompt_of(control: &Control, call: &Call) -> Result<Object, ApiError> {
    find_live(
        control,
        ObjectKind::Prompt,
        call.path_parameter("prompt_id"),
    )
}

fn number_of(call: &Call) -> Result<i64, ApiError> {
    call.path_parameter("version").parse().map_err(|_| {
        ApiError::bad_request("the version in the path must be a number, for example 1")
    })
}

/// The versions of a prompt, newest first.
fn versions_of(control: &Control, prompt: &Object) -> Result<Vec<Object>, ApiError> {
    let first = prompt.number("first_version");
    let mut versions = all_versions(control.store.as_ref(), &prompt.id)?;
    versions.retain(|version| version.number("version") >= first);
    Ok(versions)
}

fn all_versions(store: &dyn ControlStore, prompt: &str) -> Result<Vec<Object>, ApiError> {
    Ok(store.find(&ObjectFilter {
        parent: Some(prompt.to_owned()),
        ..ObjectFilter::all(ObjectKind::PromptVersion)
    })?)
}

fn version_of(control: &Control, prompt: &Object, number: i64) -> Result<Object, ApiError> {
    let versions = versions_of(control, prompt)?;
    let mut versions = versions.into_iter();
    versions
        .find(|version| version.number("version") == number)
        .ok_or_else(|| not_found("version of the prompt"))
}

fn version_with_label(
    control: &Control,
    prompt: &Object,
    label: &str,
) -> Result<Option<Object>, ApiError> {
    let versions = versions_of(control, prompt)?;
    Ok(versions
        .into_iter()
        .find(|version| words(version, "labels").any(|word| word == label)))
}

fn words<'a>(version: &'a Object, key: &str) -> impl Iterator<Item = &'a str> {
    let list = version.body.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn add_version(
    store: &dyn ControlStore,
    call: &Call,
    prompt: &mut Object,
    sent: &Map<String, Value>,
    changes: &mut Vec<Change>,
) -> Result<Object, ApiError> {
    let template = sent
        .get("template")
        .filter(|template| template.is_string() || template.is_array() || template.is_object())
        .ok_or_else(|| {
            ApiError::bad_request(
                "`template` is required: text, or messages like [{\"role\":\"system\",\"content\":\"…\"}]",
            )
        })?;
    let number = prompt.number("num_versions") + 1;
    prompt.set("num_versions", number);
    prompt.set("last_version_created_at", call.now());
    let id = uuid::Uuid::new_v4().to_string();
    let mut version = Object::new(ObjectKind::PromptVersion, id, &prompt.id, "");
    version.set("version", number);
    version.set("template", template.clone());
    version.set("created_at", call.now());
    for key in ["description", "user_version"] {
        version.set(key, optional(sent, key)?.unwrap_or_default());
    }
    let config = optional_object(sent, "config")?;
    version.set("config", config.unwrap_or_else(|| json!({})));
    for key in ["labels", "env_ids"] {
        let words = text_list(sent, key)?;
        remove_from_other_versions(store, &version, key, &words, changes)?;
        version.set(key, json!(words));
    }
    changes.push(Change::PutObject(version.clone()));
    Ok(version)
}

/// Removes labels or environments from the other versions of the prompt.
fn remove_from_other_versions(
    store: &dyn ControlStore,
    to: &Object,
    key: &str,
    moved: &[String],
    changes: &mut Vec<Change>,
) -> Result<(), ApiError> {
    if moved.is_empty() {
        return Ok(());
    }
    for mut other in all_versions(store, &to.parent)? {
        // The version as an earlier change of this request left it.
        let changed = changes.iter().rev().find_map(|change| match change {
            Change::PutObject(object) if object.id == other.id => Some(object.clone()),
            _ => None,
        });
        other = changed.unwrap_or(other);
        let left: Vec<&str> = words(&other, key)
            .filter(|word| !moved.iter().any(|moved| moved == word))
            .collect();
        if other.id != to.id && left.len() < words(&other, key).count() {
            let left = json!(left);
            other.set(key, left);
            changes.push(Change::PutObject(other));
        }
    }
    Ok(())
}

fn prompt_item(prompt: &Object) -> Value {
    json!({
        "id": prompt.text("uuid"),
        "prompt_id": prompt.id,
        "title": prompt.text("title"),
        "description": prompt.text("description"),
        "source": "registry",
        "created_from": "registry",
        "in_registry": true,
        "num_versions": prompt.number("num_versions") - prompt.number("first_version") + 1,
        "created_at": prompt.text("created_at"),
        "last_version_created_at": prompt.text("last_version_created_at"),
    })
}

fn version_item(prompt: &Object, version: &Object) -> Value {
    let mut item = version.body.clone();
    item.insert("id".to_owned(), json!(version.id));
    item.insert("prompt_id".to_owned(), json!(prompt.id));
    item.insert("prompt_uuid".to_owned(), json!(prompt.text("uuid")));
    item.insert(
        "version_created_at".to_owned(),
        json!(version.text("created_at")),
    );
    Value::Object(item)
}

/// A version in the format for applications.
fn resolved_item(prompt: &Object, version: &Object, label: Option<&str>) -> Value {
    let mut item = Map::new();
    let user_version = version.text("user_version");
    let shown = if user_version.is_empty() {
        version.number("version").to_string()
    } else {
        user_version.to_owned()
    };
    let template = version.body.get("template").cloned().unwrap_or(Value::Null);
    let key = if template.is_array() {
        "chat_template"
    } else {
        "template"
    };
    item.insert("id".to_owned(), json!(prompt.text("uuid")));
    item.insert("prompt_id".to_owned(), json!(prompt.id));
    item.insert("prompt_uuid".to_owned(), json!(prompt.text("uuid")));
    item.insert("prompt_version_uuid".to_owned(), json!(version.id));
    item.insert("version".to_owned(), json!(shown));
    item.insert(key.to_owned(), template);
    for key in ["labels", "config"] {
        item.insert(
            key.to_owned(),
            version.body.get(key).cloned().unwrap_or(Value::Null),
        );
    }
    if let Some(label) = label {
        item.insert("label".to_owned(), json!(label));
    }
    Value::Object(item)
}

fn single_response(call: &Call, kind: &str, item: Value) -> Value {
    if is_flat(call) {
        return item;
    }
    json!({"data": resource(kind, item)})
}

fn list_response(call: &Call, kind: &str, items: Vec<Value>) -> Value {
    if is_flat(call) {
        return Value::Array(items);
    }
    let items: Vec<Value> = items.into_iter().map(|item| resource(kind, item)).collect();
    json!({"data": items})
}

fn is_flat(call: &Call) -> bool {
    call.path.contains("/api/unstable/")
}

fn resource(kind: &str, mut item: Value) -> Value {
    let id = item.as_object_mut().and_then(|map| map.shift_remove("id"));
    json!({"id": id, "type": kind, "attributes": item})
}
