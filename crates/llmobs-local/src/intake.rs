//! The intake: receives spans and evaluations from SDKs.
//!
//! Each dialect is mapped to the domain types, stored, and then acknowledged. Invariant: an
//! acknowledged item is durable.
//!
//! A request may contain valid and invalid items. Valid items are stored, and the response gives a
//! reason for each invalid one. A request without valid items is refused.

mod admission;
mod apm;
mod batch;
mod evaluations;
mod fields;
mod http_api;
mod io;
mod json_value;
pub(super) mod line;
mod msgpack;
pub(super) mod otlp;
mod sdk;
mod span;
mod update;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::http::{
    ApiError, decompress, drain, json_api, json_plain, parse_json, read_body_charged, run_blocking,
};
use super::span_store::SpanStore;
use super::{Backend, LocalOptions, now_ms};
use llmobs_core::model::{Io, Span};

pub use admission::IntakeLimits;

pub(super) use admission::Admission;
pub(super) use batch::Batch;

/// The formats in which senders send spans and evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Envelopes of spans, sent to the LLM Observability intake or through the Agent's proxy.
    Sdk,
    /// The same format, for updates of stored spans.
    SdkUpdate,
    /// APM traces that contain LLM Observability data.
    Apm,
    /// The documented HTTP API for spans.
    HttpApi,
    /// Evaluations and feedback.
    Evaluations,
}

impl Dialect {
    /// The paths of the dialects. All except APM are also served under the Agent's proxy prefixes.
    pub(super) const PATHS: [(&'static str, Dialect); 6] = [
        ("/v0.4/traces", Dialect::Apm),
        ("/api/v2/llmobs", Dialect::Sdk),
        ("/api/v2/llmobs/update", Dialect::SdkUpdate),
        ("/api/intake/llm-obs/v1/trace/spans", Dialect::HttpApi),
        ("/api/intake/llm-obs/v1/eval-metric", Dialect::Evaluations),
        ("/api/intake/llm-obs/v2/eval-metric", Dialect::Evaluations),
    ];

    /// The dialect of a request path, with or without a proxy prefix.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let path = super::PROXY_PREFIXES
            .iter()
            .find_map(|prefix| path.strip_prefix(prefix))
            .unwrap_or(path);
        Self::PATHS
            .into_iter()
            .find_map(|(known, dialect)| (known == path).then_some(dialect))
    }
}

/// The number of items that a request stored, and the reasons for the others.
#[derive(Debug, Default, PartialEq)]
pub(super) struct IngestSummary {
    pub(super) spans: usize,
    pub(super) evaluations: usize,
    pub(super) echo: Vec<Value>,
    pub(super) refused: Vec<String>,
}

/// Most refusals that a response lists.
const MAX_LISTED_REFUSALS: usize = 20;

/// Maps a decoded body and stores its items.
pub(super) fn ingest_json(
    store: &SpanStore,
    options: &LocalOptions,
    dialect: Dialect,
    body: Value,
    now_ms: i64,
) -> Result<IngestSummary, ApiError> {
    let batch = match dialect {
        Dialect::Sdk => sdk::read(body, false),
        Dialect::SdkUpdate => sdk::read(body, true),
        Dialect::Apm => apm::read(body),
        Dialect::HttpApi => http_api::read(body),
        Dialect::Evaluations => evaluations::read(body),
    }?;
    store_batch(store, options, batch, now_ms)
}

/// Stores a batch, except for items outside the configured limits.
pub(super) fn store_batch(
    store: &SpanStore,
    options: &LocalOptions,
    mut batch: Batch,
    now_ms: i64,
) -> Result<IngestSummary, ApiError> {
    let updates = std::mem::take(&mut batch.updates);
    // Held until the updated spans are written.
    let _lock = (!updates.is_empty()).then(update::lock);
    update::apply(updates, store, &mut batch.spans, &mut batch.refused)?;
    if let Some(max_age) = options.max_span_age {
        refuse_older(&mut batch, max_age, now_ms);
    }
    if let Some(max_bytes) = options.max_span_bytes {
        for span in &mut batch.spans {
            drop_large_io(span, max_bytes);
        }
    }
    if batch.spans.is_empty() && batch.evaluations.is_empty() && !batch.refused.is_empty() {
        let reasons = first_refusals(&batch.refused);
        return Err(ApiError::bad_request(reasons.join("; ")));
    }
    let (spans, evaluations) = (batch.spans.len(), batch.evaluations.len());
    if spans > 0 {
        store.append(batch.spans)?;
    }
    if evaluations > 0 {
        store.attach_evaluations(batch.evaluations)?;
    }
    Ok(IngestSummary {
        spans,
        evaluations,
        echo: batch.echo,
        refused: batch.refused,
    })
}

/// The replacement that Datadog's SDKs send for content that is too large.
const DROPPED_IO: &str =
    "[This value has been dropped because this span's size exceeds the 5MB size limit.]";

/// Replaces input and output of a span of at least `max_bytes`, as Datadog's SDKs do.
fn drop_large_io(span: &mut Span, max_bytes: usize) {
    let size = serde_json::to_vec(span).map_or(0, |json| json.len());
    if size < max_bytes {
        return;
    }
    for side in [&mut span.input, &mut span.output] {
        *side = Io {
            value: Some(Value::from(DROPPED_IO)),
            ..Io::default()
        };
    }
    span.collection_errors.push("dropped_io".to_owned());
}

fn refuse_older(batch: &mut Batch, max_age: Duration, now_ms: i64) {
    let oldest = now_ms.saturating_sub(i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX));
    let mut is_recent = |what: &str, ms: i64| {
        let recent = ms >= oldest;
        if !recent {
            let limit = match max_age.as_secs() {
                seconds if seconds % 3_600 == 0 => format!("{} hours", seconds / 3_600),
                seconds => format!("{seconds} seconds"),
            };
            batch.refused.push(format!(
                "{what} is older than {limit}, the configured age limit; start the backend without \
                 --datadog-limits (LLMOBS_MCP_DATADOG_LIMITS) to store older items"
            ));
        }
        recent
    };
    batch
        .spans
        .retain(|span| is_recent("a span", span.start_ms()));
    let mut retained = Vec::new();
    batch.evaluations.retain(|targeted| {
        retained.push(is_recent("an evaluation", targeted.evaluation.timestamp_ms));
        retained.last() == Some(&true)
    });
    let mut retained = retained.into_iter();
    batch.echo.retain(|_| retained.next() == Some(true));
}

/// The first refusals, and the number of further ones.
fn first_refusals(refused: &[String]) -> Vec<String> {
    let mut listed: Vec<String> = refused.iter().take(MAX_LISTED_REFUSALS).cloned().collect();
    if refused.len() > MAX_LISTED_REFUSALS {
        listed.push(format!("and {} more", refused.len() - MAX_LISTED_REFUSALS));
    }
    listed
}

/// Handles the routes of a dialect.
pub(super) async fn ingest(
    State((backend, dialect)): State<(Arc<Backend>, Dialect)>,
    request: Request,
) -> Response {
    match receive(backend, dialect, request).await {
        Ok(summary) => acknowledge(dialect, &summary),
        Err(error) => error.into_response(),
    }
}

async fn receive(
    backend: Arc<Backend>,
    dialect: Dialect,
    request: Request,
) -> Result<IngestSummary, ApiError> {
    let worker = backend.clone();
    run_admitted(&backend, request, move |headers, body| {
        let body = decompress(headers, body, worker.options.body_limits)?;
        let body = decode(headers, dialect, &body)?;
        ingest_json(&worker.store, &worker.options, dialect, body, now_ms())
    })
    .await
}

/// Reads a request and runs `work` on a blocking thread, within the limits of [`Admission`].
pub(super) async fn run_admitted<T: Send + 'static>(
    backend: &Backend,
    request: Request,
    work: impl FnOnce(&HeaderMap, Bytes) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let mut ticket = match backend.admission.enter() {
        Ok(ticket) => ticket,
        Err(error) => {
            // A client that is still writing would see a lost connection instead of the response.
            drain(body).await;
            return Err(error);
        }
    };
    let limits = backend.options.body_limits;
    let body = read_body_charged(body, limits, |bytes| ticket.charge(bytes)).await?;
    let _slot = ticket.wait_for_slot().await?;
    run_blocking(move || work(&parts.headers, body)).await
}

fn decode(headers: &HeaderMap, dialect: Dialect, body: &Bytes) -> Result<Value, ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !content_type.contains("msgpack") {
        return parse_json(body);
    }
    super::values::check_msgpack(body)?;
    let value = msgpack::parse(body)?;
    match dialect {
        Dialect::Apm => apm::unpack(&value),
        _ => msgpack::to_json(&value),
    }
}

fn acknowledge(dialect: Dialect, summary: &IngestSummary) -> Response {
    if !summary.refused.is_empty() {
        let count = summary.refused.len();
        tracing::warn!(
            count,
            "refused some items of a request; the response has the reasons"
        );
    }
    let errors: Vec<Value> = first_refusals(&summary.refused)
        .into_iter()
        .map(|detail| json!({"title": "Generic Error", "detail": detail}))
        .collect();
    let with_errors = |mut body: Value| {
        if !errors.is_empty()
            && let Some(map) = body.as_object_mut()
        {
            map.insert("errors".to_owned(), Value::Array(errors.clone()));
        }
        body
    };
    match dialect {
        Dialect::Apm => json_plain(StatusCode::OK, &with_errors(json!({"rate_by_service": {}}))),
        Dialect::HttpApi if errors.is_empty() => StatusCode::ACCEPTED.into_response(),
        Dialect::Sdk | Dialect::SdkUpdate | Dialect::HttpApi => {
            json_api(StatusCode::ACCEPTED, &with_errors(json!({})))
        }
        Dialect::Evaluations => {
            let data = json!({
                "id": uuid::Uuid::new_v4().to_string(),
                "type": "evaluation_metric",
                "attributes": {"metrics": summary.echo},
            });
            json_api(StatusCode::ACCEPTED, &with_errors(json!({"data": data})))
        }
    }
}
