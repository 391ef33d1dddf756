//! A test double of an upstream, in this process. It pages, counts requests, and fails on request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::super::*;
use super::{NOW_MS, fast, keys};
use llmobs_core::model::TraceId;

/// Larger inputs and outputs are attachments.
const ATTACHMENT_BYTES: usize = 25_000;

#[derive(Default)]
pub(super) struct UpstreamState {
    /// The attributes of every span, including contents.
    pub(super) spans: Vec<Value>,
    /// The bodies of the searches.
    pub(super) searches: Vec<Value>,
    /// How often each span was returned with attachments.
    pub(super) content_reads: HashMap<String, usize>,
    /// Larger pages are rejected with 413.
    pub(super) max_rows: Option<usize>,
    /// The response of every search in place of spans.
    pub(super) search_error: Option<(u16, Value)>,
    /// The value of `meta.status`.
    pub(super) meta_status: Option<&'static str>,
    /// The page token of every page.
    pub(super) stuck_cursor: Option<&'static str>,
    /// The responses of the private endpoints, by the last segment of their path.
    pub(super) private: HashMap<&'static str, (u16, Value)>,
    /// The private calls: the last segment of the path, and the body.
    pub(super) private_calls: Vec<(&'static str, Value)>,
    /// The duration of a search.
    pub(super) delay: Duration,
}

#[derive(Clone, Default)]
pub(super) struct TestUpstream(Arc<Mutex<UpstreamState>>);

impl TestUpstream {
    pub(super) fn with_spans(spans: Vec<Value>) -> Self {
        let upstream = Self::default();
        upstream.state().spans = spans;
        upstream.state().delay = Duration::from_millis(100);
        upstream
    }

    pub(super) fn state(&self) -> MutexGuard<'_, UpstreamState> {
        self.0.lock().unwrap()
    }

    pub(super) fn hub(&self, settings: HubSettings) -> Hub {
        let router = Router::new()
            .route("/api/v2/llm-obs/v1/spans/events/search", post(search))
            .route("/api/unstable/llm-obs-mcp/v1/trace/{call}", post(private))
            .with_state(self.clone());
        Hub::new(Upstream::Local, Arc::new(RouterTransport(router)), settings)
    }

    pub(super) fn client(&self) -> Client {
        self.hub(fast()).client(keys(), "test")
    }

    /// The number of searches without and with attachments.
    pub(super) fn search_counts(&self) -> (usize, usize) {
        let state = self.state();
        let count = |attachments: bool| {
            let path = "/data/attributes/options/include_attachments";
            let matches = |body: &&Value| body.pointer(path) == Some(&json!(attachments));
            state.searches.iter().filter(matches).count()
        };
        (count(false), count(true))
    }

    pub(super) fn filters(&self) -> Vec<Value> {
        let state = self.state();
        state
            .searches
            .iter()
            .map(|body| body.pointer("/data/attributes/filter").unwrap().clone())
            .collect()
    }

    /// How often the most frequently read span was returned with attachments.
    pub(super) fn max_content_reads(&self) -> usize {
        self.state()
            .content_reads
            .values()
            .copied()
            .max()
            .unwrap_or(0)
    }
}

/// A span of trace `t` that started `seconds_ago`, with an output of `output_bytes` bytes.
pub(super) fn span(id: usize, seconds_ago: i64, output_bytes: usize) -> Value {
    json!({"span_id": id.to_string(), "trace_id": "t", "parent_id": "undefined", "name": format!("span {id}"),
        "span_kind": "tool", "status": "ok", "ml_app": "shop", "duration": 1_000_000,
        "start_ns": (NOW_MS - seconds_ago * 1_000) * 1_000_000 + i64::try_from(id).unwrap(),
        "input": {"value": format!("in {id}")}, "output": {"value": "x".repeat(output_bytes)}})
}

pub(super) fn trace_id() -> TraceId {
    "t".into()
}

async fn search(
    State(upstream): State<TestUpstream>,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let delay = {
        let mut state = upstream.state();
        state.searches.push(body.clone());
        state.delay
    };
    tokio::time::sleep(delay).await;
    let mut state = upstream.state();
    if let Some((status, answer)) = &state.search_error {
        let status = StatusCode::from_u16(*status).unwrap();
        return (status, axum::Json(answer.clone())).into_response();
    }
    let attributes = &body["data"]["attributes"];
    let matching: Vec<Value> = state
        .spans
        .iter()
        .filter(|span| matches(span, &attributes["filter"]))
        .cloned()
        .collect();
    let limit = usize::try_from(attributes["page"]["limit"].as_u64().unwrap()).unwrap();
    let start: usize = attributes["page"]["cursor"]
        .as_str()
        .and_then(|cursor| cursor.parse().ok())
        .unwrap_or(0);
    let mut rows: Vec<Value> = matching.iter().skip(start).take(limit).cloned().collect();
    if state.max_rows.is_some_and(|max| rows.len() > max) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "").into_response();
    }
    let attachments = attributes["options"]["include_attachments"] == json!(true);
    for row in &mut rows {
        if attachments {
            let id = row["span_id"].as_str().unwrap().to_owned();
            *state.content_reads.entry(id).or_default() += 1;
            continue;
        }
        for side in ["input", "output"] {
            if row[side].to_string().len() > ATTACHMENT_BYTES {
                row[side] = json!({"attachment_key": format!("{side}-key")});
            }
        }
    }
    let end = start + rows.len();
    let after = match state.stuck_cursor {
        Some(cursor) => Some(cursor.to_owned()),
        None => (end < matching.len()).then(|| end.to_string()),
    };
    let data: Vec<Value> = rows
        .into_iter()
        .map(|row| json!({"id": row["span_id"], "type": "span", "attributes": row}))
        .collect();
    let page = after.map_or(Value::Null, |after| json!({"after": after}));
    axum::Json(json!({"data": data,
        "meta": {"status": state.meta_status.unwrap_or("done"), "page": page}}))
    .into_response()
}

/// Evaluates structured filters, and the two forms of query that the client sends for contents.
fn matches(span: &Value, filter: &Value) -> bool {
    let Some(query) = filter["query"].as_str() else {
        return ["trace_id", "span_id", "ml_app"]
            .into_iter()
            .all(|key| filter.get(key).is_none_or(|value| *value == span[key]));
    };
    let Some((before, ids)) = query.split_once("@span_id:(") else {
        return true;
    };
    let is_listed = ids
        .trim_end_matches(')')
        .split(" OR ")
        .any(|id| span["span_id"] == *id);
    assert!(before.starts_with("@trace_id:t "), "{query}");
    is_listed != before.ends_with('-')
}

async fn private(
    State(upstream): State<TestUpstream>,
    axum::extract::Path(call): axum::extract::Path<String>,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let mut state = upstream.state();
    let known = ["find-error-spans", "span-content", "search-spans"];
    let call = known.into_iter().find(|known| *known == call).unwrap();
    state.private_calls.push((call, body));
    let (status, answer) = state
        .private
        .get(call)
        .cloned()
        .unwrap_or((403, json!({"errors": ["Forbidden"]})));
    (StatusCode::from_u16(status).unwrap(), axum::Json(answer)).into_response()
}
