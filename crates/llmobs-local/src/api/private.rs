//! Private endpoints of the official tools, which clients use to fill gaps of the documented API:
//! `POST /api/unstable/llm-obs-mcp/v1/trace/…`, with plain JSON.
//!
//! A lookup by id ignores the time range: a range that excludes a named span is never intended.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::span_json;
use super::spans::parse_query;
use crate::cursor::SearchCursor;
use crate::http::{ApiError, json_plain, read_small_json, run_blocking};
use crate::store::Search;
use crate::{Backend, now_ms};
use llmobs_core::model::{Io, ROOT_PARENT, Span, SpanId, TimeWindow, TraceId};
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::time;

/// Default number of spans on a page of `search-spans`.
const DEFAULT_LIMIT: usize = 20;
/// Most spans on a page of `search-spans`.
const MAX_LIMIT: usize = 500;

/// An error of a private endpoint.
pub(super) enum PrivateError {
    Api(ApiError),
    /// 404 with a `detail`.
    NotFound(String),
}

impl<E: Into<ApiError>> From<E> for PrivateError {
    fn from(error: E) -> Self {
        PrivateError::Api(error.into())
    }
}

pub(super) type PrivateResult = Result<Value, PrivateError>;

/// Reads the arguments, runs `work` on a blocking thread, and writes the response.
pub(super) async fn respond(
    backend: Arc<Backend>,
    request: Request,
    work: fn(&Backend, &Arguments) -> PrivateResult,
) -> Response {
    let arguments =
        read_small_json(request.into_body())
            .await
            .and_then(|arguments| match arguments {
                Value::Object(map) => Ok(Arguments(map)),
                _ => Err(ApiError::bad_request(
                    "the body must be a JSON object of arguments, for example {\"trace_id\":\"…\"}",
                )),
            });
    let result = match arguments {
        Ok(arguments) => {
            run_blocking(move || match work(&backend, &arguments) {
                Err(PrivateError::Api(error)) => Err(error),
                Err(PrivateError::NotFound(detail)) => Ok(Err(detail)),
                Ok(value) => Ok(Ok(value)),
            })
            .await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(Ok(value)) => json_plain(StatusCode::OK, &value),
        Ok(Err(detail)) => json_plain(StatusCode::NOT_FOUND, &json!({"detail": detail})),
        Err(error) => error.into_response(),
    }
}

/// The arguments of a request.
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    pub(super) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A text argument; a number becomes its digits.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(super) fn required(&self, key: &str) -> Result<String, ApiError> {
        self.text(key)
            .ok_or_else(|| ApiError::bad_request(format!("`{key}` is required and must be text")))
    }
}

/// `trace/find-error-spans`: all failed spans of a trace with their errors.
pub(super) async fn find_error_spans(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Response {
    respond(backend, request, |backend, arguments| {
        let id = TraceId::from(arguments.required("trace_id")?);
        let spans = backend.store.trace(&id)?;
        if spans.is_empty() {
            return Err(PrivateError::NotFound(format!(
                "no spans found for trace {id}"
            )));
        }
        let failed: Vec<Value> = spans
            .iter()
            .filter(|span| span.is_error())
            .map(|span| {
                let mut node = summary(span);
                node.insert("error".to_owned(), span_json::error_json(span));
                Value::Object(node)
            })
            .collect();
        Ok(json!({"trace_id": id, "error_count": failed.len(), "error_spans": failed}))
    })
    .await
}

/// `trace/span-content`: one field of one span.
pub(super) async fn span_content(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Response {
    respond(backend, request, |backend, arguments| {
        let trace = TraceId::from(arguments.required("trace_id")?);
        let id = SpanId::from(arguments.required("span_id")?);
        let field = arguments.required("field")?;
        let read = field_reader(&field).ok_or_else(|| {
            ApiError::bad_request(
                "`field` must be input, output, expected_output, messages, documents or metadata",
            )
        })?;
        let Some(span) = backend.store.span(&trace, &id)? else {
            return Err(PrivateError::NotFound(format!("span not found: {id}")));
        };
        Ok(json!({"span_id": id, "trace_id": trace, "field": field, "content": read(&span)}))
    })
    .await
}

/// The function that reads a content field.
fn field_reader(name: &str) -> Option<fn(&Span) -> Value> {
    let read: fn(&Span) -> Value = match name {
        "input" => |span| io_value(&span.input),
        "output" => |span| io_value(&span.output),
        "expected_output" => |span| json!(span.expected_output),
        "messages" => |span| list_or_null(span.messages().collect::<Vec<_>>().as_slice()),
        "documents" => |span| list_or_null(span.documents()),
        "metadata" => |span| match span.metadata.is_empty() {
            true => Value::Null,
            false => json!(span.metadata),
        },
        _ => return None,
    };
    Some(read)
}

/// A value that is not text, otherwise the text of the input or output.
fn io_value(io: &Io) -> Value {
    match &io.value {
        Some(value) if !value.is_string() && !value.is_null() => value.clone(),
        _ => json!(io.text()),
    }
}

fn list_or_null<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    json!(items)
}

/// `trace/search-spans`: spans that match both query and filters, newest first.
pub(super) async fn search_spans(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Response {
    respond(backend, request, find_spans).await
}

/// The filters that the arguments name.
fn read_filters(arguments: &Arguments) -> Result<SpanFilters, ApiError> {
    let mut filters = SpanFilters {
        ml_app: arguments.text("ml_app"),
        span_kind: arguments.text("span_kind"),
        span_name: arguments.text("span_name"),
        trace_id: arguments.text("trace_id"),
        span_id: arguments.text("span_id"),
        root_spans_only: arguments.0.get("root_spans_only") == Some(&Value::Bool(true)),
        ..SpanFilters::default()
    };
    let tags = arguments.0.get("tags").and_then(Value::as_object);
    for (key, value) in tags.into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| {
            ApiError::bad_request("values of `tags` must be text, for example {\"env\":\"prod\"}")
        })?;
        filters.tags.push((key.clone(), value.to_owned()));
    }
    Ok(filters)
}

fn find_spans(backend: &Backend, arguments: &Arguments) -> PrivateResult {
    let filters = read_filters(arguments)?;
    let apm_trace_id = arguments.text("apm_trace_id");
    let query_text = arguments.text("query");
    let has_id = filters.trace_id.is_some() || filters.span_id.is_some() || apm_trace_id.is_some();
    let request = [
        json!(arguments.0.get("tags")).to_string().as_str(),
        query_text.as_deref().unwrap_or_default(),
        apm_trace_id.as_deref().unwrap_or_default(),
        filters.ml_app.as_deref().unwrap_or_default(),
        filters.span_kind.as_deref().unwrap_or_default(),
        filters.span_name.as_deref().unwrap_or_default(),
        filters.trace_id.as_deref().unwrap_or_default(),
        filters.span_id.as_deref().unwrap_or_default(),
        if filters.root_spans_only { "roots" } else { "" },
    ]
    .map(str::to_owned);
    let cursor = match arguments.text("cursor") {
        Some(text) => Some(SearchCursor::decode(&text, &request)?),
        None => None,
    };
    let window = match &cursor {
        Some(cursor) => cursor.window,
        None if has_id => TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        },
        None => {
            let (from, to) = (arguments.text("from"), arguments.text("to"));
            time::parse_window(from.as_deref(), to.as_deref(), "now-1d", now_ms())
                .map_err(|error| ApiError::bad_request(error.to_string()))?
        }
    };
    let limit = arguments.0.get("limit").and_then(Value::as_u64);
    let limit = limit.map_or(DEFAULT_LIMIT, |limit| {
        usize::try_from(limit).unwrap_or(MAX_LIMIT)
    });
    let search = Search {
        filters,
        apm_trace_id,
        query: query_text.as_deref().map(parse_query).transpose()?,
        after: cursor.map(|cursor| cursor.after),
        limit: limit.clamp(1, MAX_LIMIT),
        budget: backend.options.search_budget,
        ..Search::within(window)
    };
    let mut spans = Vec::new();
    let outcome = backend.store.search(&search, &mut |span| {
        spans.push(Value::Object(summary(&span)));
        ControlFlow::Continue(())
    })?;
    let next = match outcome.next {
        Some(after) => Some(SearchCursor { after, window }.encode(&request)?),
        None => None,
    };
    Ok(json!({"spans": spans, "next_cursor": next}))
}

fn summary(span: &Span) -> Map<String, Value> {
    let parent = span
        .parent_id
        .as_ref()
        .map_or(ROOT_PARENT, |id| id.as_str());
    let entries = [
        ("span_id", json!(span.span_id)),
        ("trace_id", json!(span.trace_id)),
        ("apm_trace_id", json!(span.apm_trace_id)),
        ("parent_id", json!(parent)),
        ("name", json!(span.name)),
        ("span_kind", json!(span.kind.as_str())),
        ("ml_app", json!(span.ml_app)),
        ("service", json!(span.service)),
        ("session_id", json!(span.session_id)),
        ("status", json!(span.status.as_str())),
        ("start_ms", json!(span.start_ms())),
        ("duration_ms", json!(span.duration_ms())),
        ("tags", json!(span.tags)),
    ];
    entries
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
