//! OpenTelemetry traces over HTTP, `POST /v1/traces`. Requests and responses are protobuf or JSON.
//!
//! Selection: a span without an attribute of a GenAI convention does not belong to LLM
//! Observability. Like Datadog, the backend drops it. The response counts such spans in its message
//! and does not count them as rejected. Parent links skip them.
//!
//! Traces: every span keeps its OpenTelemetry trace id. If the root span of a trace is dropped, the
//! trace has several roots. Datadog documents a separate trace for each, but also shows several
//! roots in one trace. A generated trace id would separate the spans from evaluations and links that
//! name the original id, and from spans of the trace that arrive in another request.

mod ancestry;
mod content;
mod convention;
mod conventions;
mod decoded;
mod indexed_keys;
mod json;
mod map;
mod messages;
mod protobuf;
mod reader;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::json;

pub(crate) use ancestry::Ancestry;

use super::{Batch, first_refusals, run_admitted, store_batch};
use crate::http::{ApiError, decompress, parse_json};
use crate::{Backend, now_ms};
use llmobs_core::model::{SpanId, TraceId};

/// The path to which OpenTelemetry exporters send traces.
pub(crate) const PATH: &str = "/v1/traces";

/// Header that names the application; it precedes the name of the service.
const ML_APP_HEADER: &str = "dd-ml-app";

/// The encoding of a request and of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// `google.rpc.Status`, the error format of OTLP.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Handles the route.
pub(crate) async fn ingest(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let encoding = Encoding::from_headers(request.headers());
    match receive(backend, encoding, request).await {
        Ok(success) => acknowledge(encoding.unwrap_or(Encoding::Json), success),
        Err(error) => refuse(encoding.unwrap_or(Encoding::Json), &error),
    }
}

impl Encoding {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = content_type.split(';').next()?.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        })
    }
}

async fn receive(
    backend: Arc<Backend>,
    encoding: Option<Encoding>,
    request: Request,
) -> Result<ExportTracePartialSuccess, ApiError> {
    let limits = backend.options.body_limits;
    let worker = backend.clone();
    run_admitted(&backend, request, move |headers, body| {
        let encoding = encoding.ok_or_else(|| {
            ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/x-protobuf or application/json",
            )
        })?;
        let body = decompress(headers, body, limits)?;
        let ml_app = headers
            .get(ML_APP_HEADER)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .filter(|app| !app.is_empty());
        let export = decode(encoding, &body)?;
        accept(&worker, export, ml_app)
    })
    .await
}

fn decode(encoding: Encoding, body: &Bytes) -> Result<decoded::Export, ApiError> {
    match encoding {
        Encoding::Protobuf => protobuf::decode(body),
        Encoding::Json => json::decode(parse_json(body)?),
    }
}

fn accept(
    backend: &Backend,
    export: decoded::Export,
    ml_app: Option<&str>,
) -> Result<ExportTracePartialSuccess, ApiError> {
    let mut batch = Batch {
        refused: export.refused,
        ..Batch::default()
    };
    let sent = export.spans.len() + batch.refused.len();
    let mut skipped = Vec::new();
    for span in export.spans {
        if map::is_llm_span(&span) {
            batch.spans.push(map::span_of(span, ml_app));
        } else {
            skipped.push(ancestry::SkippedSpan {
                trace_id: TraceId::from(span.trace_id),
                span_id: SpanId::from(span.span_id),
                parent: span.parent.map(SpanId::from),
            });
        }
    }
    let skipped_count = skipped.len();
    let store = &backend.store;
    backend.ancestry.link(&mut batch.spans, skipped, store)?;
    let accepted = match store_batch(store, &backend.options, batch, now_ms()) {
        Err(error) if error.status != StatusCode::BAD_REQUEST || skipped_count == 0 => {
            return Err(error);
        }
        // The request also has skipped spans, so it succeeds in part.
        Err(error) => {
            return Ok(ExportTracePartialSuccess {
                rejected_spans: to_i64(sent - skipped_count),
                error_message: format!(
                    "{}; {}",
                    error.detail,
                    skipped_message(skipped_count, sent)
                ),
            });
        }
        Ok(accepted) => accepted,
    };
    let mut messages = first_refusals(&accepted.refused);
    if skipped_count > 0 {
        messages.push(skipped_message(skipped_count, sent));
    }
    Ok(ExportTracePartialSuccess {
        rejected_spans: to_i64(accepted.refused.len()),
        error_message: messages.join("; "),
    })
}

fn skipped_message(skipped: usize, sent: usize) -> String {
    format!(
        "{skipped} of {sent} spans have no gen_ai.*, llm.* or openinference.* attribute and were not stored"
    )
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn acknowledge(encoding: Encoding, success: ExportTracePartialSuccess) -> Response {
    if success.rejected_spans > 0 {
        let count = success.rejected_spans;
        tracing::warn!(
            count,
            "refused some spans of an export; the response has the reasons"
        );
    }
    let body = match encoding {
        Encoding::Protobuf => {
            // A missing field means complete success.
            let partial_success = (!success.error_message.is_empty()).then_some(success);
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        Encoding::Json if success.error_message.is_empty() => b"{}".to_vec(),
        Encoding::Json => json!({"partialSuccess": {
            // Protobuf's JSON format writes 64-bit numbers as text.
            "rejectedSpans": success.rejected_spans.to_string(),
            "errorMessage": success.error_message}})
        .to_string()
        .into_bytes(),
    };
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, encoding.content_type())],
        body,
    )
        .into_response()
}

fn refuse(encoding: Encoding, error: &ApiError) -> Response {
    let status = RpcStatus {
        code: rpc_code(error.status),
        message: error.detail.clone(),
    };
    let body = match encoding {
        Encoding::Protobuf => status.encode_to_vec(),
        Encoding::Json => json!({"code": status.code, "message": status.message})
            .to_string()
            .into_bytes(),
    };
    let mut response = (
        error.status,
        [(header::CONTENT_TYPE, encoding.content_type())],
        body,
    )
        .into_response();
    error.add_retry_after(response.headers_mut());
    response
}

/// The gRPC code that corresponds to an HTTP status.
fn rpc_code(status: StatusCode) -> i32 {
    match status {
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_server_error() => 13,
        _ => 3,
    }
}
