//! OpenTelemetry traces over HTTP, `POST /v1/traces`: protobuf or JSON, answered in the same.
//!
//! What is kept. A span with no attribute of a GenAI convention is no LLM Observability span:
//! Datadog drops it, and so does this backend. The answer counts such spans in its message, with
//! no span rejected, so that nothing goes silently; links to parents lead across them.
//!
//! Traces. Every span keeps the trace id that OpenTelemetry gave it. When the topmost span of a
//! trace is not kept, the spans below it are roots of one trace. Datadog documents traces of their
//! own for them, and has been seen to show several roots in one; an id of our own making would
//! part them from the evaluations and links that name the true one, and spans of one trace that
//! arrive in two requests from each other.

mod ancestry;
mod content;
mod flat;
mod json;
mod map;
mod messages;
mod protobuf;
mod wire;

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

use super::{Batch, admitted, keep, shown};
use crate::http::{ApiError, decompress, parse_json};
use crate::{Backend, now_ms};
use llmobs_core::model::{SpanId, TraceId};

/// Where OpenTelemetry exporters send traces.
pub(crate) const PATH: &str = "/v1/traces";

/// Names the application, before the name of the service.
const ML_APP: &str = "dd-ml-app";

/// How a request is written, and so its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// `google.rpc.Status`, in which OTLP wants errors told.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The handler of the route.
pub(crate) async fn take_in(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let encoding = Encoding::of(request.headers());
    match receive(backend, encoding, request).await {
        Ok(success) => acknowledge(encoding.unwrap_or(Encoding::Json), success),
        Err(error) => refuse(encoding.unwrap_or(Encoding::Json), &error),
    }
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let named = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let named = named.split(';').next()?.trim().to_ascii_lowercase();
        match named.as_str() {
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
    admitted(&backend, request, move |headers, body| {
        let encoding = encoding.ok_or_else(|| {
            ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/x-protobuf or application/json",
            )
        })?;
        let body = decompress(headers, body, limits)?;
        let ml_app = headers
            .get(ML_APP)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .filter(|app| !app.is_empty());
        let export = decode(encoding, &body)?;
        accept(&worker, export, ml_app)
    })
    .await
}

fn decode(encoding: Encoding, body: &Bytes) -> Result<wire::Export, ApiError> {
    match encoding {
        Encoding::Protobuf => protobuf::decode(body),
        Encoding::Json => json::read(parse_json(body)?),
    }
}

fn accept(
    backend: &Backend,
    export: wire::Export,
    ml_app: Option<&str>,
) -> Result<ExportTracePartialSuccess, ApiError> {
    let mut batch = Batch {
        refused: export.refused,
        ..Batch::default()
    };
    let sent = export.spans.len() + batch.refused.len();
    let mut skipped = Vec::new();
    for span in export.spans {
        if map::is_ours(&span) {
            batch.spans.push(map::span_of(span, ml_app));
        } else {
            skipped.push(ancestry::Skipped {
                trace_id: TraceId::from(span.trace_id),
                span_id: SpanId::from(span.span_id),
                parent: span.parent.map(SpanId::from),
            });
        }
    }
    let not_ours = skipped.len();
    let store = backend.store.as_ref();
    backend.ancestry.link(&mut batch.spans, skipped, store)?;
    let accepted = match keep(store, &backend.options, batch, now_ms()) {
        Err(error) if error.status != StatusCode::BAD_REQUEST || not_ours == 0 => {
            return Err(error);
        }
        // Nothing to keep is no fault while other spans were merely not ours.
        Err(error) => {
            return Ok(ExportTracePartialSuccess {
                rejected_spans: count(sent - not_ours),
                error_message: format!("{}; {}", error.detail, skipped_words(not_ours, sent)),
            });
        }
        Ok(accepted) => accepted,
    };
    let mut words = shown(&accepted.refused);
    if not_ours > 0 {
        words.push(skipped_words(not_ours, sent));
    }
    Ok(ExportTracePartialSuccess {
        rejected_spans: count(accepted.refused.len()),
        error_message: words.join("; "),
    })
}

fn skipped_words(skipped: usize, sent: usize) -> String {
    format!(
        "{skipped} of {sent} spans have no gen_ai.*, llm.* or openinference.* attribute and were not kept"
    )
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn acknowledge(encoding: Encoding, success: ExportTracePartialSuccess) -> Response {
    if success.rejected_spans > 0 {
        let count = success.rejected_spans;
        tracing::warn!(count, "part of an export was refused; its answer says why");
    }
    let body = match encoding {
        Encoding::Protobuf => {
            // All is well when the field is not there.
            let partial_success = (!success.error_message.is_empty()).then_some(success);
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        Encoding::Json if success.error_message.is_empty() => b"{}".to_vec(),
        Encoding::Json => json!({"partialSuccess": {
            // Numbers of 64 bits are text in protobuf's JSON.
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
    let mut answer = (
        error.status,
        [(header::CONTENT_TYPE, encoding.content_type())],
        body,
    )
        .into_response();
    error.add_retry_after(answer.headers_mut());
    answer
}

/// The code of gRPC that means the same as the HTTP status.
fn rpc_code(status: StatusCode) -> i32 {
    match status {
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_server_error() => 13,
        _ => 3,
    }
}
