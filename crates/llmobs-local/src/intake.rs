//! Taking in what SDKs send: each dialect to the one domain type, then into the store, then the
//! acknowledgement. Nothing is acknowledged that is not durable.
//!
//! A batch may hold good and bad items. The good ones are kept and the answer says what was wrong
//! with the others; when all are bad the whole request is refused.

mod admission;
mod apm;
mod evaluations;
mod fields;
mod http_api;
mod io;
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
    ApiError, blocking, decompress, drain, json_api, json_plain, parse_json, read_body_counted,
};
use super::store::{SpanStore, TargetedEvaluation};
use super::{Backend, LocalOptions, now_ms};
use llmobs_core::model::{Io, Span};

pub use admission::IntakeLimits;

pub(super) use admission::Admission;

/// The forms in which spans and evaluations arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// What the SDKs send to the LLM Observability intake or through the Agent's proxy.
    Sdk,
    /// The same form, about spans that are kept already.
    SdkUpdate,
    /// APM traces with LLM Observability data inside.
    Apm,
    /// The documented HTTP API for spans.
    HttpApi,
    /// Evaluations and feedback.
    Evaluations,
}

impl Dialect {
    /// The dialects with their paths; all but APM also stand under the Agent's proxy prefixes.
    pub(super) const PATHS: [(&'static str, Dialect); 6] = [
        ("/v0.4/traces", Dialect::Apm),
        ("/api/v2/llmobs", Dialect::Sdk),
        ("/api/v2/llmobs/update", Dialect::SdkUpdate),
        ("/api/intake/llm-obs/v1/trace/spans", Dialect::HttpApi),
        ("/api/intake/llm-obs/v1/eval-metric", Dialect::Evaluations),
        ("/api/intake/llm-obs/v2/eval-metric", Dialect::Evaluations),
    ];

    /// The dialect of a path as an SDK wrote it.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let path = super::PROXY_PREFIXES
            .iter()
            .find_map(|prefix| path.strip_prefix(prefix))
            .unwrap_or(path);
        Self::PATHS
            .into_iter()
            .find_map(|(known, dialect)| (known == path).then_some(dialect))
    }
}

/// What a request holds, once mapped.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) spans: Vec<Span>,
    /// What changed about spans that are kept.
    updates: Vec<update::Update>,
    pub(super) evaluations: Vec<TargetedEvaluation>,
    /// The evaluations as they were sent, for the answer.
    pub(super) echo: Vec<Value>,
    /// What was refused, and why.
    pub(super) refused: Vec<String>,
}

impl Batch {
    /// Takes over what another batch holds; gives back what of it was refused.
    pub(super) fn join(
        &mut self,
        other: Batch,
        store: &dyn SpanStore,
    ) -> Result<Vec<String>, ApiError> {
        let mut refused = other.refused;
        self.spans.extend(other.spans);
        update::apply(other.updates, store, &mut self.spans, &mut refused)?;
        self.evaluations.extend(other.evaluations);
        Ok(refused)
    }
}

/// What became of a request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Accepted {
    pub(super) spans: usize,
    pub(super) evaluations: usize,
    pub(super) echo: Vec<Value>,
    pub(super) refused: Vec<String>,
}

/// Most refusals that an answer lists.
const REFUSALS_SHOWN: usize = 20;

/// Maps a decoded body and keeps what it holds.
pub(super) fn accept(
    store: &dyn SpanStore,
    options: &LocalOptions,
    dialect: Dialect,
    body: Value,
    now_ms: i64,
) -> Result<Accepted, ApiError> {
    let batch = match dialect {
        Dialect::Sdk => sdk::read(body, false),
        Dialect::SdkUpdate => sdk::read(body, true),
        Dialect::Apm => apm::read(body),
        Dialect::HttpApi => http_api::read(body),
        Dialect::Evaluations => evaluations::read(body),
    }?;
    keep(store, options, batch, now_ms)
}

/// Keeps what a request holds, as far as the limits set allow.
pub(super) fn keep(
    store: &dyn SpanStore,
    options: &LocalOptions,
    mut batch: Batch,
    now_ms: i64,
) -> Result<Accepted, ApiError> {
    let updates = std::mem::take(&mut batch.updates);
    // Held until what they made is written.
    let _one = (!updates.is_empty()).then(update::one_at_a_time);
    update::apply(updates, store, &mut batch.spans, &mut batch.refused)?;
    if let Some(max_age) = options.max_span_age {
        refuse_older(&mut batch, max_age, now_ms);
    }
    if let Some(most) = options.max_span_bytes {
        batch.spans.iter_mut().for_each(|span| drop_io(span, most));
    }
    if batch.spans.is_empty() && batch.evaluations.is_empty() && !batch.refused.is_empty() {
        return Err(ApiError::bad_request(shown(&batch.refused).join("; ")));
    }
    let (spans, evaluations) = (batch.spans.len(), batch.evaluations.len());
    if spans > 0 {
        store.append(batch.spans)?;
    }
    if evaluations > 0 {
        store.attach_evaluations(batch.evaluations)?;
    }
    Ok(Accepted {
        spans,
        evaluations,
        echo: batch.echo,
        refused: batch.refused,
    })
}

/// What Datadog's SDKs put in the place of content that is too large.
const DROPPED: &str =
    "[This value has been dropped because this span's size exceeds the 5MB size limit.]";

/// Takes the content out of a span that is as large as the limit, as Datadog's SDKs do.
fn drop_io(span: &mut Span, most: usize) {
    let size = serde_json::to_vec(span).map_or(0, |written| written.len());
    if size < most {
        return;
    }
    for side in [&mut span.input, &mut span.output] {
        *side = Io {
            value: Some(Value::from(DROPPED)),
            ..Io::default()
        };
    }
    span.collection_errors.push("dropped_io".to_owned());
}

fn refuse_older(batch: &mut Batch, max_age: Duration, now_ms: i64) {
    let oldest = now_ms.saturating_sub(i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX));
    let mut refuse = |what: &str, ms: i64| {
        let kept = ms >= oldest;
        if !kept {
            let limit = match max_age.as_secs() {
                seconds if seconds % 3_600 == 0 => format!("{} hours", seconds / 3_600),
                seconds => format!("{seconds} seconds"),
            };
            batch.refused.push(format!(
                "{what} is older than {limit}, the limit that this backend was told to hold to; without \
                 --datadog-limits (LLMOBS_MCP_DATADOG_LIMITS) it keeps older ones"
            ));
        }
        kept
    };
    batch.spans.retain(|span| refuse("a span", span.start_ms()));
    let mut kept = Vec::new();
    batch.evaluations.retain(|targeted| {
        kept.push(refuse("an evaluation", targeted.evaluation.timestamp_ms));
        kept.last() == Some(&true)
    });
    let mut kept = kept.into_iter();
    batch.echo.retain(|_| kept.next() == Some(true));
}

fn shown(refused: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = refused.iter().take(REFUSALS_SHOWN).cloned().collect();
    if refused.len() > REFUSALS_SHOWN {
        shown.push(format!("and {} more", refused.len() - REFUSALS_SHOWN));
    }
    shown
}

/// The handler of a dialect's routes.
pub(super) async fn take_in(
    State((backend, dialect)): State<(Arc<Backend>, Dialect)>,
    request: Request,
) -> Response {
    match receive(backend, dialect, request).await {
        Ok(accepted) => acknowledge(dialect, &accepted),
        Err(error) => error.into_response(),
    }
}

async fn receive(
    backend: Arc<Backend>,
    dialect: Dialect,
    request: Request,
) -> Result<Accepted, ApiError> {
    let worker = backend.clone();
    admitted(&backend, request, move |headers, body| {
        let body = decompress(headers, body, worker.options.body_limits)?;
        let body = decode(headers, dialect, &body)?;
        accept(
            worker.store.as_ref(),
            &worker.options,
            dialect,
            body,
            now_ms(),
        )
    })
    .await
}

/// Reads a request and works on it when its turn has come, within the bounds of the intake.
pub(super) async fn admitted<T: Send + 'static>(
    backend: &Backend,
    request: Request,
    work: impl FnOnce(&HeaderMap, Bytes) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let mut ticket = match backend.admission.enter() {
        Ok(ticket) => ticket,
        Err(error) => {
            // A client that is still writing would see a lost connection instead of the answer.
            drain(body).await;
            return Err(error);
        }
    };
    let limits = backend.options.body_limits;
    let body = read_body_counted(body, limits, |bytes| ticket.charge(bytes)).await?;
    let _turn = ticket.turn().await?;
    blocking(move || work(&parts.headers, body)).await
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

fn acknowledge(dialect: Dialect, accepted: &Accepted) -> Response {
    if !accepted.refused.is_empty() {
        let count = accepted.refused.len();
        tracing::warn!(count, "part of a request was refused; its answer says why");
    }
    let errors: Vec<Value> = shown(&accepted.refused)
        .into_iter()
        .map(|detail| json!({"title": "Generic Error", "detail": detail}))
        .collect();
    let with_errors = |mut answer: Value| {
        if !errors.is_empty()
            && let Some(map) = answer.as_object_mut()
        {
            map.insert("errors".to_owned(), Value::Array(errors.clone()));
        }
        answer
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
                "attributes": {"metrics": accepted.echo},
            });
            json_api(StatusCode::ACCEPTED, &with_errors(json!({"data": data})))
        }
    }
}
