//! Removes from responses what Datadog does not document.
//!
//! The lists are those of the public API reference for `spans/events/search`: attributes of a span,
//! of its input and output, and of its evaluations.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

/// The documented search.
pub(crate) const SEARCH_PATH: &str = "/api/v2/llm-obs/v1/spans/events/search";
/// The aggregation endpoint of the local backend, which no Datadog site has.
const AGGREGATE_PATH: &str = "/api/unstable/llm-obs-mcp/v1/trace/aggregate";

/// Attributes of a span that are not documented.
const UNDOCUMENTED_ATTRIBUTES: [&str; 13] = [
    "feedback",
    "error",
    "session_id",
    "service",
    "apm_trace_id",
    "model_version",
    "expected_output",
    "scope",
    "collection_errors",
    "span_links",
    "agent_attribution",
    "extra",
    "meta_extra",
];
/// The documented keys of input and output.
const DOCUMENTED_CONTENT: [&str; 3] = ["value", "messages", "attachment_key"];
/// Keys of an evaluation that are not documented.
const UNDOCUMENTED_EVALUATION: [&str; 2] = ["timestamp_ms", "extra"];

/// Middleware: passes the request on and removes undocumented attributes from a search response.
pub(crate) async fn remove_undocumented(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if path == AGGREGATE_PATH {
        let body = json!({"errors": ["Not found"]}).to_string();
        let headers = [(header::CONTENT_TYPE, "application/json")];
        return (StatusCode::NOT_FOUND, headers, body).into_response();
    }
    let response = next.run(request).await;
    if path != SEARCH_PATH || !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let body = body.to_bytes();
    let Ok(mut page) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    for span in page
        .get_mut("data")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(attributes) = span.get_mut("attributes").and_then(Value::as_object_mut) {
            reduce(attributes);
        }
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(page.to_string()))
}

/// Reduces the attributes of a span to the documented ones.
fn reduce(attributes: &mut Map<String, Value>) {
    for name in UNDOCUMENTED_ATTRIBUTES {
        attributes.shift_remove(name);
    }
    for name in ["input", "output"] {
        let Some(content) = attributes.get_mut(name).and_then(Value::as_object_mut) else {
            continue;
        };
        content.retain(|key, _| DOCUMENTED_CONTENT.contains(&key.as_str()));
        if content.is_empty() {
            attributes.shift_remove(name);
        }
    }
    let evaluations = attributes
        .get_mut("evaluation")
        .and_then(Value::as_object_mut);
    for (_, evaluation) in evaluations.into_iter().flatten() {
        if let Some(evaluation) = evaluation.as_object_mut() {
            evaluation.retain(|key, _| !UNDOCUMENTED_EVALUATION.contains(&key.as_str()));
        }
    }
}
