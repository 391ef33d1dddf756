//! A request to the control plane, and helpers with which operations read it.

use bytes::Bytes;
use http::{StatusCode, header, request::Parts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::control::{Control, Object, ObjectFilter, ObjectKind};
use crate::cursor;
use crate::http::{ApiError, parse_json};

/// Default and largest number of objects on a page.
pub(super) const MAX_LIMIT: usize = 5_000;

/// A request as the operations see it.
pub(crate) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) content_type: String,
    pub(super) body: CallBody,
    pub(super) now_ms: i64,
    /// Ids to assign to new objects, for replayed requests.
    pub(super) recorded_ids: RecordedIds,
}

/// The body: JSON, or the bytes of another content type.
pub(crate) enum CallBody {
    Json(Value),
    Bytes(Bytes),
}

/// The generated ids in the response to a recorded request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordedIds {
    /// The id of the created object.
    pub(super) id: Option<String>,
    /// The canonical ids of the inserted records, in order.
    pub(super) canonical_ids: Vec<String>,
}

/// The response of an operation.
pub(crate) enum Reply {
    Json(Value),
    /// Serialized JSON.
    JsonBytes(Vec<u8>),
    Status(StatusCode, Value),
    Empty(StatusCode),
    Csv(Vec<u8>),
}

impl RecordedIds {
    /// Reads the recorded response: `{"id"}` or `{"canonical_ids"}`.
    pub(crate) fn from_response(response: &Value) -> Self {
        let ids = response.get("canonical_ids").and_then(Value::as_array);
        let texts = ids.into_iter().flatten().filter_map(Value::as_str);
        Self {
            id: response
                .get("id")
                .and_then(Value::as_str)
                .map(str::to_owned),
            canonical_ids: texts.map(str::to_owned).collect(),
        }
    }
}

impl Call {
    /// A recorded request.
    pub(crate) fn replayed(
        method: &str,
        path: &str,
        body: CallBody,
        at_ms: i64,
        recorded_ids: RecordedIds,
    ) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters: Vec::new(),
            query: Vec::new(),
            content_type: String::new(),
            body,
            now_ms: at_ms,
            recorded_ids,
        }
    }

    pub(super) fn from_request(
        parts: &Parts,
        body: Bytes,
        parameters: Vec<(String, String)>,
        now_ms: i64,
    ) -> Result<Self, ApiError> {
        let content_type = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = if body.is_empty() {
            CallBody::Json(Value::Null)
        } else if content_type.starts_with("multipart/") {
            CallBody::Bytes(body)
        } else {
            CallBody::Json(parse_json(&body)?)
        };
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            parameters,
            query: url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            content_type,
            body,
            now_ms,
            recorded_ids: RecordedIds::default(),
        })
    }

    /// A parameter of the path.
    pub(super) fn path_parameter(&self, name: &str) -> &str {
        let mut all = self.parameters.iter();
        all.find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The first value of a query key; an empty value counts as absent.
    pub(super) fn query_value(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter();
        all.find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All non-empty values of a query key.
    pub(super) fn query_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A boolean query value. Python writes `True` and `False`.
    pub(super) fn query_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.query_value(name) else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(ApiError::bad_request(format!(
                "`{name}` must be true or false"
            ))),
        }
    }

    /// An integer query value.
    pub(super) fn query_number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.query_value(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("`{name}` must be a whole number, for example 1"))
                })
            })
            .transpose()
    }

    /// The position in `page[cursor]`.
    pub(super) fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, ApiError> {
        let text = self.query_value("page[cursor]");
        text.map(|text| cursor::decode(text, &[&self.path]))
            .transpose()
    }

    /// The cursor of the page after a position.
    pub(super) fn cursor_after<T: Serialize>(&self, position: &T) -> Result<String, ApiError> {
        cursor::encode(position, &[&self.path])
    }

    /// The requested number of objects on a page.
    pub(super) fn limit(&self, default: usize) -> Result<usize, ApiError> {
        match self.query_number("page[limit]")? {
            None => Ok(default),
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "`page[limit]` must be a whole number from 1 to {MAX_LIMIT}"
                    ))
                }),
        }
    }

    /// `data.attributes` of the body. A body without `data` is the attributes.
    pub(super) fn attributes(&self) -> Result<&Map<String, Value>, ApiError> {
        let CallBody::Json(body) = &self.body else {
            return Err(ApiError::bad_request("the request body must be JSON"));
        };
        let attributes = match body.get("data") {
            Some(data) => data.get("attributes"),
            None => Some(body),
        };
        attributes.and_then(Value::as_object).ok_or_else(|| {
            ApiError::bad_request(
                "the body must be {\"data\":{\"type\":\"…\",\"attributes\":{…}}}, as documented for this path",
            )
        })
    }

    /// The time of the request, as the API writes timestamps.
    pub(super) fn now(&self) -> String {
        format_timestamp(self.now_ms)
    }

    /// The id of a new object: the recorded one, or a generated one.
    pub(super) fn new_id(&self) -> String {
        let recorded = self.recorded_ids.id.clone();
        recorded.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }
}

/// RFC 3339 with nanoseconds.
fn format_timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|timestamp| format!("{timestamp:.9}"))
        .unwrap_or_default()
}

/// A required, non-blank text.
pub(super) fn required<'a>(
    attributes: &'a Map<String, Value>,
    key: &str,
) -> Result<&'a str, ApiError> {
    optional(attributes, key)?
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| ApiError::bad_request(format!("`{key}` is required and must not be empty")))
}

/// A text that may be absent or null.
pub(super) fn optional<'a>(
    attributes: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, ApiError> {
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::bad_request(format!("`{key}` must be text"))),
    }
}

/// An object that may be absent or null.
pub(super) fn optional_object(
    attributes: &Map<String, Value>,
    key: &str,
) -> Result<Option<Value>, ApiError> {
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(_)) => Ok(Some(value.clone())),
        Some(_) => Err(ApiError::bad_request(format!("`{key}` must be an object"))),
    }
}

/// A boolean that may be absent or null.
pub(super) fn optional_flag(
    attributes: &Map<String, Value>,
    key: &str,
    default: bool,
) -> Result<bool, ApiError> {
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::bad_request(format!(
            "`{key}` must be true or false"
        ))),
    }
}

/// A list of texts; absent is empty.
pub(super) fn text_list(
    attributes: &Map<String, Value>,
    key: &str,
) -> Result<Vec<String>, ApiError> {
    let invalid = || ApiError::bad_request(format!("`{key}` must be a list of texts"));
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(invalid))
            .collect(),
        Some(_) => Err(invalid()),
    }
}

/// The ids of a delete request; at least one.
pub(super) fn ids_to_delete(call: &Call, key: &str) -> Result<Vec<String>, ApiError> {
    let ids = text_list(call.attributes()?, key)?;
    if ids.is_empty() {
        return Err(ApiError::bad_request(format!(
            "`{key}` is required: a list with at least one id"
        )));
    }
    Ok(ids)
}

pub(super) fn not_found(what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("{what} not found"))
}

/// Finds an object that is not deleted.
pub(super) fn find_live(control: &Control, kind: ObjectKind, id: &str) -> Result<Object, ApiError> {
    let what = match kind {
        ObjectKind::Project => "project",
        ObjectKind::Dataset => "dataset",
        ObjectKind::Experiment => "experiment",
        ObjectKind::Prompt | ObjectKind::PromptVersion => "prompt",
        ObjectKind::Evaluator => "evaluator",
    };
    let found = control.store.find(&ObjectFilter {
        ids: vec![id.to_owned()],
        limit: 1,
        ..ObjectFilter::all(kind)
    })?;
    found.into_iter().next().ok_or_else(|| not_found(what))
}

/// The dataset in the path. If the path also has a project, the dataset must belong to it.
pub(super) fn dataset_of(control: &Control, call: &Call) -> Result<Object, ApiError> {
    let dataset = find_live(
        control,
        ObjectKind::Dataset,
        call.path_parameter("dataset_id"),
    )?;
    let project = call.path_parameter("project_id");
    if !project.is_empty() && project != dataset.parent {
        return Err(not_found("dataset"));
    }
    Ok(dataset)
}

/// A page of objects, newest first: those that match `find` and `keep`, with a page token.
pub(super) fn list_page(
    control: &Control,
    call: &Call,
    mut find: ObjectFilter,
    keep: impl Fn(&Object) -> bool,
    to_item: impl Fn(&Object) -> Result<Value, ApiError>,
) -> Result<Reply, ApiError> {
    let limit = call.limit(MAX_LIMIT)?;
    find.before = call.cursor()?;
    let mut objects: Vec<Object> = control
        .store
        .find(&find)?
        .into_iter()
        .filter(|object| keep(object))
        .take(limit.saturating_add(1))
        .collect();
    let more = objects.len() > limit;
    objects.truncate(limit);
    let after = objects.last().filter(|_| more);
    let after = match after {
        Some(object) => call.cursor_after(&object.seq)?,
        None => String::new(),
    };
    let data = objects.iter().map(to_item).collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::Json(json!({"data": data, "meta": {"after": after}})))
}
