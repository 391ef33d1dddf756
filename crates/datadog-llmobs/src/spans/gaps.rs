//! Filling the gaps of the documented API from the private endpoints behind the official tools.
//!
//! A gap never spoils an answer: whatever goes wrong here becomes a [`Gap`] that the answer
//! carries. An endpoint that refuses a credential is not asked again for a minute.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::wire::{read_error_object, scalar_text};
use super::{Gap, LoadedTrace, SpanSearch, SpanSelection};
use crate::cache::FieldShelf;
use crate::call::{ApiCall, JSON, Operation};
use crate::client::Client;
use crate::error::ClientError;
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

/// Spans of one APM trace that are looked at to find its LLM Observability traces.
const APM_SPANS: usize = 100;

/// Tokens of a field that are asked for at most.
const FIELD_TOKENS: usize = 100_000;

/// Error details by span, and what is missing of them.
#[derive(Debug, Default)]
pub(crate) struct ErrorDetails {
    by_span: HashMap<SpanId, SpanError>,
    gaps: Vec<Gap>,
}

impl Client {
    /// Type, message and stack of every error span that has some. The private endpoint is asked,
    /// once per trace, only if an error span came without.
    ///
    /// # Errors
    /// [`ClientError::Deadline`] if the call's time is over; anything else becomes a gap.
    pub async fn error_details(
        &self,
        trace: &LoadedTrace,
    ) -> Result<(HashMap<SpanId, SpanError>, Vec<Gap>), ClientError> {
        let mut details: HashMap<SpanId, SpanError> = HashMap::new();
        let mut lacking: Vec<&Arc<Span>> = Vec::new();
        for node in trace.tree.errors() {
            let span = trace.tree.span(*node);
            match &span.error {
                Some(error) if !error.is_empty() => {
                    details.insert(span.span_id.clone(), error.clone());
                }
                _ => lacking.push(span),
            }
        }
        if lacking.is_empty() {
            return Ok((details, Vec::new()));
        }
        let entry = self.hub.caches.entry(self.fingerprint, &trace.id).await;
        let out_of_time = || ClientError::Deadline {
            operation: FIND_ERROR_SPANS.name,
            seconds: self.deadline.seconds(),
        };
        let found = entry
            .errors
            .get(&self.deadline, out_of_time, || async {
                let found = self.find_error_spans(trace).await;
                Ok((Arc::new(found), self.hub.settings.structure_life))
            })
            .await?;
        for span in lacking {
            if let Some(error) = found.by_span.get(&span.span_id) {
                details.insert(span.span_id.clone(), error.clone());
            }
        }
        Ok((details, found.gaps.clone()))
    }

    async fn find_error_spans(&self, trace: &LoadedTrace) -> ErrorDetails {
        let mut body = window_arguments(trace.window);
        body.insert("trace_id".to_owned(), json!(trace.id));
        let answer = match self.private(&FIND_ERROR_SPANS, body).await {
            Ok(answer) => answer,
            Err(failed) => {
                return ErrorDetails {
                    gaps: failed.into_gap(ERROR_DETAILS),
                    ..ErrorDetails::default()
                };
            }
        };
        let Some(Value::Array(rows)) = answer.get("error_spans") else {
            let why = format!(
                "{} answered {} without error_spans",
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

    /// One of the fields that the documented API leaves out: `documents` or `expected_output`.
    /// `None` without a gap means that the span has none.
    ///
    /// # Errors
    /// [`ClientError::SpanNotFound`], and what [`Client::contents`] gives. That the private
    /// endpoint refuses is a gap.
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
        let entry = self.hub.caches.entry(self.fingerprint, &trace.id).await;
        let Some(mut shelf) = self.deadline.limit(entry.fields.lock()).await else {
            return Err(ClientError::Deadline {
                operation: SPAN_CONTENT.name,
                seconds: self.deadline.seconds(),
            });
        };
        let now = Instant::now();
        shelf.retain(|_, (fresh_until, _, _)| *fresh_until > now);
        let key = (id.clone(), field.to_owned());
        if let Some((_, value, gaps)) = shelf.get(&key) {
            return Ok((value.clone(), gaps.clone()));
        }
        let (value, gaps) = self.span_content(trace, id, field, what).await;
        let fresh_until = Instant::now() + self.hub.settings.structure_life;
        let shelf: &mut FieldShelf = &mut shelf;
        shelf.insert(key, (fresh_until, value.clone(), gaps.clone()));
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
        body.insert("max_tokens".to_owned(), json!(FIELD_TOKENS));
        let mut answer = match self.private(&SPAN_CONTENT, body).await {
            Ok(answer) => answer,
            Err(failed) => return (None, failed.into_gap(what)),
        };
        let mut gaps = Vec::new();
        if answer.get("truncated").and_then(Value::as_bool) == Some(true) {
            gaps.push(Gap {
                what,
                why: format!("{} gave only a part of it", self.upstream_name()),
            });
        }
        let content = answer.get_mut("content").map(Value::take);
        (content.and_then(|content| present(content, field)), gaps)
    }

    /// The LLM Observability traces of an APM trace within a window.
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
        body.insert("limit".to_owned(), json!(APM_SPANS));
        let answer = match self.private(&PRIVATE_SEARCH, body).await {
            Ok(answer) => answer,
            Err(PrivateError::NoSuchThing) => return Ok(Vec::new()),
            Err(PrivateError::Failed(why)) => {
                return Err(Gap {
                    what: "spans of this apm_trace_id are",
                    why,
                });
            }
        };
        let rows = answer.get("spans").and_then(Value::as_array);
        let mut traces: Vec<TraceId> = rows
            .into_iter()
            .flatten()
            .filter_map(|row| scalar_text(row.get("trace_id")?).map(TraceId::from))
            .collect();
        traces.sort_unstable();
        traces.dedup();
        // What is not there yet may come any moment; only what was found is remembered.
        if !traces.is_empty() {
            self.hub
                .caches
                .apm
                .insert(key, Arc::new(traces.clone()))
                .await;
        }
        Ok(traces)
    }

    /// Asks a private endpoint, for a part of the call's time only.
    pub(crate) async fn private(
        &self,
        operation: &'static Operation,
        body: Map<String, Value>,
    ) -> Result<Value, PrivateError> {
        let refusals = &self.hub.caches.refusals;
        let key = (self.fingerprint, operation.route);
        if let Some(why) = refusals.get(&key).await {
            return Err(PrivateError::Failed(why));
        }
        let deadline = self.deadline.sooner(
            self.hub
                .settings
                .gap_timeout
                .min(self.deadline.remaining() / 2),
        );
        let asked = self
            .with_deadline(deadline)
            .execute(ApiCall::new(operation).body(Value::Object(body)))
            .await;
        let error = match asked {
            Ok(answer) if answer.value.is_object() => return Ok(answer.value),
            Ok(answer) => self.unreadable(operation, answer.status, "other JSON".to_owned()),
            Err(error) => error,
        };
        if let ClientError::Status(refusal) = &error {
            let words = refusal.words.to_lowercase();
            let about_the_thing = ["span not found", "no spans found", "field", "evaluat"]
                .into_iter()
                .any(|known| words.contains(known));
            if refusal.status == 404 && about_the_thing {
                return Err(PrivateError::NoSuchThing);
            }
            if matches!(refusal.status, 401 | 403 | 404 | 405 | 501) {
                let why = format!(
                    "the documented API does not give it, and {} answered {} to the private endpoint that does",
                    refusal.upstream, refusal.status
                );
                refusals.insert(key, why.clone()).await;
                return Err(PrivateError::Failed(why));
            }
        }
        Err(PrivateError::Failed(error.to_string()))
    }
}

/// Why a private endpoint gave nothing.
pub(crate) enum PrivateError {
    /// It works, and has no such span or field.
    NoSuchThing,
    /// It does not work.
    Failed(String),
}

impl PrivateError {
    fn into_gap(self, what: &'static str) -> Vec<Gap> {
        match self {
            Self::NoSuchThing => Vec::new(),
            Self::Failed(why) => vec![Gap { what, why }],
        }
    }
}

/// `from` and `to` as the private endpoints take them: milliseconds as text.
fn window_arguments(window: TimeWindow) -> Map<String, Value> {
    Map::from_iter([
        ("from".to_owned(), json!(window.from_ms.to_string())),
        ("to".to_owned(), json!(window.to_ms.to_string())),
    ])
}

/// A field's value, if there is one. Documents may come as the text of their JSON.
fn present(content: Value, field: &str) -> Option<Value> {
    match content {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::String(text) if field == "documents" => match crate::json::parse(text.as_bytes()) {
            Ok(list @ Value::Array(_)) => present(list, field),
            _ => Some(Value::String(text)),
        },
        other => Some(other),
    }
}
