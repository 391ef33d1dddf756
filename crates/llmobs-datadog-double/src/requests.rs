//! Counts requests, and how often the content of each span was returned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::documented::SEARCH_PATH;

/// The Agent's proxy adds these prefixes to the paths that it forwards.
const PROXY_PREFIXES: [&str; 2] = ["/evp_proxy/v2", "/evp_proxy/v4"];

/// The requests since the start of a double.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests by route, `METHOD /path`, without the Agent's proxy prefix. Requests to unknown
    /// paths are counted as `unknown`.
    pub requests: BTreeMap<String, u64>,
    /// How often each span, by trace id and span id, was returned by a search that included
    /// attachments.
    pub contents: BTreeMap<(String, String), u64>,
}

/// Where the counts are collected.
#[derive(Debug, Default)]
pub(crate) struct RequestLog(Mutex<RequestCounts>);

impl RequestLog {
    pub(crate) fn snapshot(&self) -> RequestCounts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count(&self, route: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.requests.entry(route).or_default() += 1;
    }

    fn count_contents(&self, page: &Value) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spans = page.get("data").and_then(Value::as_array);
        for span in spans.into_iter().flatten() {
            let text = |key: &str| {
                let value = span.pointer(&format!("/attributes/{key}"));
                value.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let id = (text("trace_id"), text("span_id"));
            *counts.contents.entry(id).or_default() += 1;
        }
    }
}

/// Middleware: counts the request and, for a search with attachments, the spans of its response.
pub(crate) async fn count_request(
    State(log): State<Arc<RequestLog>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let route = matched.map_or_else(
        || "unknown".to_owned(),
        |path| {
            let path = path.as_str();
            let path = PROXY_PREFIXES
                .iter()
                .find_map(|prefix| path.strip_prefix(prefix))
                .unwrap_or(path);
            format!("{} {path}", request.method())
        },
    );
    log.count(route);
    if request.uri().path() != SEARCH_PATH {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = body.to_bytes();
    let with_attachments = serde_json::from_slice::<Value>(&body).is_ok_and(|search| {
        search.pointer("/data/attributes/options/include_attachments") != Some(&Value::Bool(false))
    });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !with_attachments || !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let body = body.to_bytes();
    if let Ok(page) = serde_json::from_slice(&body) {
        log.count_contents(&page);
    }
    Response::from_parts(parts, Body::from(body))
}
