//! One request to the control plane, and what the operations need to read from it.

use bytes::Bytes;
use http::{StatusCode, header, request::Parts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::control::{Control, Object, ObjectFilter, ObjectKind};
use crate::cursor;
use crate::http::{ApiError, parse_json};

/// Rows on a page unless asked otherwise, and at most.
pub(super) const MAX_PAGE: usize = 5_000;

/// A request as the operations see it.
pub(crate) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) content_type: String,
    pub(super) body: Body,
    pub(super) now_ms: i64,
    /// For replayed requests.
    pub(super) given: Given,
}

/// The body: JSON, or the bytes of another content type.
pub(crate) enum Body {
    Json(Value),
    Bytes(Bytes),
}

/// What a replayed request was answered, where the answer is the backend's choice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// The id of what it created.
    pub(super) id: Option<String>,
    /// The canonical ids of the records that it inserted, in order.
    pub(super) canonical_ids: Vec<String>,
}

/// What an operation answers.
pub(crate) enum Reply {
    Json(Value),
    /// JSON that is written already.
    Written(Vec<u8>),
    Status(StatusCode, Value),
    Empty(StatusCode),
    Csv(String),
}

impl Given {
    /// Reads what was recorded: `{"id"}` or `{"canonical_ids"}`.
    pub(crate) fn of_answer(answer: &Value) -> Self {
        let ids = answer.get("canonical_ids").and_then(Value::as_array);
        let texts = ids.into_iter().flatten().filter_map(Value::as_str);
        Self {
            id: answer.get("id").and_then(Value::as_str).map(str::to_owned),
            canonical_ids: texts.map(str::to_owned).collect(),
        }
    }
}

impl Call {
    /// A recorded request.
    pub(crate) fn replayed(method: &str, path: &str, body: Body, at_ms: i64, given: Given) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters: Vec::new(),
            query: Vec::new(),
            content_type: String::new(),
            body,
            now_ms: at_ms,
            given,
        }
    }

    pub(super) fn of_request(
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
            Body::Json(Value::Null)
        } else if content_type.starts_with("multipart/") {
            Body::Bytes(body)
        } else {
            Body::Json(parse_json(&body)?)
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
            given: Given::default(),
        })
    }

    /// A part of the path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        let mut all = self.parameters.iter();
        all.find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The first value of a query key; an empty one counts as absent.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter();
        all.find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All non-empty values of a query key.
    pub(super) fn asked_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A yes or no in the query; Python writes them with a capital.
    pub(super) fn asked_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.asked(name) else {
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

    /// A whole number in the query.
    pub(super) fn asked_number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.asked(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("`{name}` must be a whole number, for example 1"))
                })
            })
            .transpose()
    }

    /// Rows asked for on a page.
    pub(super) fn limit(&self, default: usize) -> Result<usize, ApiError> {
        match self.asked_number("page[limit]")? {
            None => Ok(default),
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=MAX_PAGE).contains(limit))
                .ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "`page[limit]` must be a whole number from 1 to {MAX_PAGE}"
                    ))
                }),
        }
    }

    /// The position in `page[cursor]`.
    pub(super) fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, ApiError> {
        let text = self.asked("page[cursor]");
        text.map(|text| cursor::decode(text, &[&self.path]))
            .transpose()
    }

    /// The cursor of the page after a position.
    pub(super) fn cursor_after<T: Serialize>(&self, position: &T) -> Result<String, ApiError> {
        cursor::encode(position, &[&self.path])
    }

    /// `data.attributes` of the body; a flat body is taken as the attributes themselves.
    pub(super) fn attributes(&self) -> Result<&Map<String, Value>, ApiError> {
        let Body::Json(body) = &self.body else {
            return Err(ApiError::bad_request("the request body must be JSON"));
        };
        let attributes = match body.get("data") {
            Some(data) => data.get("attributes"),
            None => Some(body),
        };
        attributes.and_then(Value::as_object).ok_or_else(|| {
            ApiError::bad_request(
                "the body must be {\"data\":{\"type\":\"…\",\"attributes\":{…}}}, as the documentation of this path shows",
            )
        })
    }

    /// The moment of the request as the API writes moments.
    pub(super) fn now(&self) -> String {
        moment(self.now_ms)
    }

    /// The id that a new object gets.
    pub(super) fn new_id(&self) -> String {
        let given = self.given.id.clone();
        given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }
}

/// RFC 3339 with nine digits of a second.
pub(super) fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|moment| format!("{moment:.9}"))
        .unwrap_or_default()
}

/// A required text that is not blank.
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

/// A yes or no that may be absent.
pub(super) fn flag(
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
pub(super) fn texts(attributes: &Map<String, Value>, key: &str) -> Result<Vec<String>, ApiError> {
    let refused = || ApiError::bad_request(format!("`{key}` must be a list of texts"));
    match attributes.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(refused))
            .collect(),
        Some(_) => Err(refused()),
    }
}

/// The ids that a request for deletion names; at least one.
pub(super) fn ids_to_delete(call: &Call, key: &str) -> Result<Vec<String>, ApiError> {
    let ids = texts(call.attributes()?, key)?;
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

/// One object that is not deleted.
pub(super) fn live(control: &Control, kind: ObjectKind, id: &str) -> Result<Object, ApiError> {
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

/// The dataset that the path names, in the project that it names, if it does.
pub(super) fn dataset_of(control: &Control, call: &Call) -> Result<Object, ApiError> {
    let dataset = live(control, ObjectKind::Dataset, call.parameter("dataset_id"))?;
    let project = call.parameter("project_id");
    if !project.is_empty() && project != dataset.parent {
        return Err(not_found("dataset"));
    }
    Ok(dataset)
}

/// A page of objects: those found by `find`, filtered, newest first, with the cursor of the rest.
pub(super) fn page_of(
    control: &Control,
    call: &Call,
    mut find: ObjectFilter,
    keep: impl Fn(&Object) -> bool,
    shown: impl Fn(&Object) -> Result<Value, ApiError>,
) -> Result<Reply, ApiError> {
    let limit = call.limit(MAX_PAGE)?;
    find.before = call.cursor()?;
    let mut kept: Vec<Object> = control
        .store
        .find(&find)?
        .into_iter()
        .filter(|object| keep(object))
        .take(limit.saturating_add(1))
        .collect();
    let more = kept.len() > limit;
    kept.truncate(limit);
    let after = kept.last().filter(|_| more);
    let after = match after {
        Some(object) => call.cursor_after(&object.seq)?,
        None => String::new(),
    };
    let data = kept.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::Json(json!({"data": data, "meta": {"after": after}})))
}
