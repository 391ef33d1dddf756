//! Fills gaps of the documented API from the private endpoints of the official tools.
//!
//! Errors of these endpoints do not fail an answer; they become a [`Gap`] in it. An endpoint that
//! rejects a credential is not called again for a minute.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::wire::read_error_object;
use super::{SpanSearch, SpanSelection};
use crate::cache::CachedField;
use crate::call::{ApiCall, JSON, Operation};
use crate::client::Client;
use crate::error::ClientError;
use crate::fields::scalar_text;
use crate::loaded::{ErrorDetails, Gap, LoadedTrace};
use crate::retry::OperationClass;
use llmobs_core::model::{Span, SpanError, SpanId, TimeWindow, TraceId};

pub(crate) static FIND_ERROR_SPANS: Operation = Operation {
    name: "error details",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/unstable/llm-obs-mcp/v1/trace/find-error-spans",
    media: JSON,
};

pub(crate) static SPAN_CONTENT: Operation = Operation {
    name: "span content",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/unstable/llm-obs-mcp/v1/trace/span-content",
    media: JSON,
};

pub(crate) static PRIVATE_SEARCH: Operation = Operation {
    name: "look-up of an APM trace",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/unstable/llm-obs-mcp/v1/trace/search-spans",
    media: JSON,
};

const ERROR_DETAILS: &str = "error messages and stacks";

/// The spans of one APM trace that are read to find its LLM Observability traces.
const MAX_APM_SPANS: usize = 100;

/// The maximum size of a field in tokens.
const MAX_FIELD_TOKENS: usize = 100_000;

impl Client {
    /// The type, message and stack of each error span that has them. The private endpoint is called,
    /// once per trace, only if the search returned an error span without them.
    ///
    /// # Errors
    /// [`ClientError::Deadline`] after the deadline of the call; other errors become a gap.
    pub async fn error_details(
        &self,
        trace: &LoadedTrace,
    ) -> Result<(HashMap<SpanId, SpanError>, Vec<Gap>), ClientError> {
        let mut details: HashMap<SpanId, SpanError> = HashMap::new();
        let mut without_details: Vec<&Arc<Span>> = Vec::new();
        for node in trace.tree.errors() {
            let span = trace.tree.span(*node);
            match &span.error {
                Some(error) if !error.is_empty() => {
                    details.insert(span.span_id.clone(), error.clone());
                }
                _ => without_details.push(span),
            }
        }
        if without_details.is_empty() {
            return Ok((details, Vec::new()));
        }
        let entry = self.hub.caches.trace(self.fingerprint, &trace.id).await;
        let out_of_time = || ClientError::Deadline {
            operation: FIND_ERROR_SPANS.name,
            seconds: self.deadline.total_seconds(),
        };
        let found = entry
            .errors
            .get(&self.deadline, out_of_time, || async {
                let found = self.find_error_spans(trace).await;
                Ok((Arc::new(found), self.hub.settings.structure_life))
            })
            .await?;
        for span in without_details {
            if let Some(error) = found.by_span.get(&span.span_id) {
                details.insert(span.span_id.clone(), error.clone());
            }
        }
        Ok((details, found.gaps.clone()))
    }

    async fn find_error_spans(&self, trace: &LoadedTrace) -> ErrorDetails {
        let mut body = window_arguments(trace.window);
        body.insert("trace_id".to_owned(), json!(trace.id));
        let response = match self.call_private(&FIND_ERROR_SPANS, body).await {
            Ok(response) => response,
            Err(error) => {
                return ErrorDetails {
                    gaps: error.into_gaps(ERROR_DETAILS),
                    ..ErrorDetails::default()
                };
            }
        };
        let Some(Value::Array(rows)) = response.get("error_spans") else {
            let why = format!(
                "{} returned {} without error_spans",
                self.upstream_name(),
                FIND_ERROR_SPANS.name
            );
            return ErrorDetails {
                gaps: vec![Gap {
                    what: ERROR_DETAILS,
                    why,
                }],
                ..ErrorDetails::default()
            };
        };
        let by_span = rows.iter().filter_map(|row| {
            let id = scalar_text(row.get("span_id")?)?;
            Some((
                SpanId::from(id),
                read_error_object(row.get("error")?.clone())?,
            ))
        });
        ErrorDetails {
            by_span: by_span.collect(),
            gaps: Vec::new(),
        }
    }

    /// A field that the documented API does not return: `documents` or `expected_output`. `None`
    /// without a gap means that the span does not have it.
    ///
    /// # Errors
    /// [`ClientError::SpanNotFound`], and the errors of [`Client::contents`]. Errors of the private
    /// endpoint become a gap.
    pub async fn field(
        &self,
        trace: &LoadedTrace,
        id: &SpanId,
        field: &str,
    ) -> Result<(Option<Value>, Vec<Gap>), ClientError> {
        let contents = self
            .contents(trace, SpanSelection::Spans(std::slice::from_ref(id)))
            .await?;
        let Some(node) = trace.tree.find(id.as_str()) else {
            return Err(ClientError::SpanNotFound(id.clone()));
        };
        let span = contents.with_content(trace.tree.span(node));
        let what = match field {
            "documents" if !span.documents().is_empty() => {
                return Ok((Some(span.documents().into()), Vec::new()));
            }
            "documents" => "documents",
            "expected_output" if span.expected_output.is_some() => {
                return Ok((span.expected_output.clone(), Vec::new()));
            }
            "expected_output" => "expected output",
            _ => return Ok((None, contents.gaps)),
        };
        let entry = self.hub.caches.trace(self.fingerprint, &trace.id).await;
        let Some(mut cache) = self.deadline.limit(entry.fields.lock()).await else {
            return Err(ClientError::Deadline {
                operation: SPAN_CONTENT.name,
                seconds: self.deadline.total_seconds(),
            });
        };
        let now = Instant::now();
        cache.retain(|_, field| field.fresh_until > now);
        let key = (id.clone(), field.to_owned());
        if let Some(field) = cache.get(&key) {
            return Ok((field.value.clone(), field.gaps.clone()));
        }
        let (value, gaps) = self.span_content(trace, id, field, what).await;
        let cached = CachedField {
            fresh_until: Instant::now() + self.hub.settings.structure_life,
            value: value.clone(),
            gaps: gaps.clone(),
        };
        cache.insert(key, cached);
        Ok((value, gaps))
    }

    async fn span_content(
        &self,
        trace: &LoadedTrace,
        id: &SpanId,
        field: &str,
        what: &'static str,
    ) -> (Option<Value>, Vec<Gap>) {
        let mut body = window_arguments(trace.window);
        body.insert("trace_id".to_owned(), json!(trace.id));
        body.insert("span_id".to_owned(), json!(id));
        body.insert("field".to_owned(), json!(field));
        body.insert("max_tokens".to_owned(), json!(MAX_FIELD_TOKENS));
        let mut response = match self.call_private(&SPAN_CONTENT, body).await {
            Ok(response) => response,
            Err(error) => return (None, error.into_gaps(what)),
        };
        let mut gaps = Vec::new();
        if response.get("truncated").and_then(Value::as_bool) == Some(true) {
            gaps.push(Gap {
                what,
                why: format!("{} returned only a part of it", self.upstream_name()),
            });
        }
        let content = response.get_mut("content").map(Value::take);
        (
            content.and_then(|content| field_value(content, field)),
            gaps,
        )
    }

    /// The LLM Observability traces of an APM trace within a time window.
    pub(super) async fn resolve_apm(
        &self,
        apm: &str,
        search: &SpanSearch,
    ) -> Result<Vec<TraceId>, Gap> {
        let TimeWindow { from_ms, to_ms } = search.window;
        let key = (self.fingerprint, apm.to_owned(), from_ms, to_ms);
        if let Some(known) = self.hub.caches.apm.get(&key).await {
            return Ok(known.to_vec());
        }
        let mut body = window_arguments(search.window);
        body.insert("apm_trace_id".to_owned(), json!(apm));
        body.insert("limit".to_owned(), json!(MAX_APM_SPANS));
        let response = match self.call_private(&PRIVATE_SEARCH, body).await {
            Ok(response) => response,
            Err(PrivateError::NotFound) => return Ok(Vec::new()),
            Err(PrivateError::Failed(why)) => {
                return Err(Gap {
                    what: "spans of this apm_trace_id are",
                    why,
                });
            }
        };
        let rows = response.get("spans").and_then(Value::as_array);
        let mut traces: Vec<TraceId> = rows
            .into_iter()
            .flatten()
            .filter_map(|row| scalar_text(row.get("trace_id")?).map(TraceId::from))
            .collect();
        traces.sort_unstable();
        traces.dedup();
        // Spans may arrive at any time, so an empty result is not cached.
        if !traces.is_empty() {
            self.hub
                .caches
                .apm
                .insert(key, Arc::new(traces.clone()))
                .await;
        }
        Ok(traces)
    }

    /// Calls a private endpoint, within a part of the remaining time.
    pub(crate) async fn call_private(
        &self,
        operation: &'static Operation,
        body: Map<String, Value>,
    ) -> Result<Value, PrivateError> {
        let rejections = &self.hub.caches.rejections;
        let key = (self.fingerprint, operation.route);
        if let Some(why) = rejections.get(&key).await {
            return Err(PrivateError::Failed(why));
        }
        let deadline = self.deadline.min_after(
            self.hub
                .settings
                .gap_timeout
                .min(self.deadline.remaining() / 2),
        );
        let result = self
            .with_deadline(deadline)
            .execute(ApiCall::new(operation).body(Value::Object(body)))
            .await;
        let error = match result {
            Ok(response) if response.value.is_object() => return Ok(response.value),
            Ok(response) => self.unreadable(operation, response.status, "other JSON".to_owned()),
            Err(error) => error,
        };
        if let ClientError::Status(response) = &error {
            let message = response.message.to_lowercase();
            let names_entity = ["span not found", "no spans found", "field", "evaluat"]
                .into_iter()
                .any(|part| message.contains(part));
            if response.status == 404 && names_entity {
                return Err(PrivateError::NotFound);
            }
            if matches!(response.status, 401 | 403 | 404 | 405 | 501) {
                let why = format!(
                    "the documented API does not return it, and {} returned {} to the private endpoint that does",
                    response.upstream, response.status
                );
                rejections.insert(key, why.clone()).await;
                return Err(PrivateError::Failed(why));
            }
        }
        Err(PrivateError::Failed(error.to_string()))
    }
}

/// Why a private endpoint returned nothing.
pub(crate) enum PrivateError {
    /// The endpoint works, but there is no such span, field or evaluation.
    NotFound,
    /// The call failed, for this reason.
    Failed(String),
}

impl PrivateError {
    fn into_gaps(self, what: &'static str) -> Vec<Gap> {
        match self {
            Self::NotFound => Vec::new(),
            Self::Failed(why) => vec![Gap { what, why }],
        }
    }
}

/// `from` and `to` in the format of the private endpoints: milliseconds as text.
fn window_arguments(window: TimeWindow) -> Map<String, Value> {
    Map::from_iter([
        ("from".to_owned(), json!(window.from_ms.to_string())),
        ("to".to_owned(), json!(window.to_ms.to_string())),
    ])
}

/// The value of a field, unless it is empty. Documents may be returned as the text of their JSON.
fn field_value(content: Value, field: &str) -> Option<Value> {
    match content {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::String(text) if field == "documents" => match crate::json::parse(text.as_bytes()) {
            Ok(list @ Value::Array(_)) => field_value(list, field),
            _ => Some(Value::String(text)),
        },
        other => Some(other),
    }
}
