//! A small upstream in this process that pages, counts, and can be told to misbehave.

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

/// Sides of a span above this are attachments.
const ATTACHMENT_BYTES: usize = 25_000;

#[derive(Default)]
pub(super) struct World {
    /// Attributes of every span, contents included.
    pub(super) spans: Vec<Value>,
    /// The bodies of all searches.
    pub(super) searches: Vec<Value>,
    /// How often each span was given with attachments.
    pub(super) content_reads: HashMap<String, usize>,
    /// Pages of more rows are refused with 413.
    pub(super) most_rows: Option<usize>,
    /// What every search answers instead of spans.
    pub(super) search_fails: Option<(u16, Value)>,
    /// What `meta.status` says.
    pub(super) meta_status: Option<&'static str>,
    /// The cursor of every page.
    pub(super) stuck_cursor: Option<&'static str>,
    /// What the private endpoints answer, by the last part of their path.
    pub(super) private: HashMap<&'static str, (u16, Value)>,
    /// The private calls: the last part of the path, and the body.
    pub(super) private_calls: Vec<(&'static str, Value)>,
    /// Time that a search takes.
    pub(super) delay: Duration,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub(super) fn with(spans: Vec<Value>) -> Self {
        let fake = Self::default();
        fake.world().spans = spans;
        fake.world().delay = Duration::from_millis(100);
        fake
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
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

    /// How many searches asked for structure, and how many for contents.
    pub(super) fn search_counts(&self) -> (usize, usize) {
        let world = self.world();
        let with = |attachments: bool| {
            let path = "/data/attributes/options/include_attachments";
            let asked = |body: &&Value| body.pointer(path) == Some(&json!(attachments));
            world.searches.iter().filter(asked).count()
        };
        (with(false), with(true))
    }

    pub(super) fn filters(&self) -> Vec<Value> {
        let world = self.world();
        world
            .searches
            .iter()
            .map(|body| body.pointer("/data/attributes/filter").unwrap().clone())
            .collect()
    }

    pub(super) fn most_content_reads(&self) -> usize {
        self.world()
            .content_reads
            .values()
            .copied()
            .max()
            .unwrap_or(0)
    }
}

/// A span of trace `t`, `seconds_ago` before now, with an output of so many bytes.
pub(super) fn span(id: usize, seconds_ago: i64, output_bytes: usize) -> Value {
    json!({"span_id": id.to_string(), "trace_id": "t", "parent_id": "undefined", "name": format!("span {id}"),
        "span_kind": "tool", "status": "ok", "ml_app": "shop", "duration": 1_000_000,
        "start_ns": (NOW_MS - seconds_ago * 1_000) * 1_000_000 + i64::try_from(id).unwrap(),
        "input": {"value": format!("in {id}")}, "output": {"value": "x".repeat(output_bytes)}})
}

pub(super) fn trace_id() -> TraceId {
    "t".into()
}

async fn search(State(fake): State<Fake>, axum::Json(body): axum::Json<Value>) -> Response {
    let delay = {
        let mut world = fake.world();
        world.searches.push(body.clone());
        world.delay
    };
    tokio::time::sleep(delay).await;
    let mut world = fake.world();
    if let Some((status, answer)) = &world.search_fails {
        let status = StatusCode::from_u16(*status).unwrap();
        return (status, axum::Json(answer.clone())).into_response();
    }
    let attributes = &body["data"]["attributes"];
    let matching: Vec<Value> = world
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
    if world.most_rows.is_some_and(|most| rows.len() > most) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "").into_response();
    }
    let attachments = attributes["options"]["include_attachments"] == json!(true);
    for row in &mut rows {
        if attachments {
            let id = row["span_id"].as_str().unwrap().to_owned();
            *world.content_reads.entry(id).or_default() += 1;
            continue;
        }
        for side in ["input", "output"] {
            if row[side].to_string().len() > ATTACHMENT_BYTES {
                row[side] = json!({"attachment_key": format!("{side}-key")});
            }
        }
    }
    let end = start + rows.len();
    let after = match world.stuck_cursor {
        Some(cursor) => Some(cursor.to_owned()),
        None => (end < matching.len()).then(|| end.to_string()),
    };
    let data: Vec<Value> = rows
        .into_iter()
        .map(|row| json!({"id": row["span_id"], "type": "span", "attributes": row}))
        .collect();
    let page = after.map_or(Value::Null, |after| json!({"after": after}));
    axum::Json(json!({"data": data,
        "meta": {"status": world.meta_status.unwrap_or("done"), "page": page}}))
    .into_response()
}

/// The structured trace id, or the two forms of query that the client makes for contents.
fn matches(span: &Value, filter: &Value) -> bool {
    let Some(query) = filter["query"].as_str() else {
        return ["trace_id", "span_id", "ml_app"]
            .into_iter()
            .all(|key| filter.get(key).is_none_or(|wanted| *wanted == span[key]));
    };
    let Some((before, ids)) = query.split_once("@span_id:(") else {
        return true;
    };
    let named = ids
        .trim_end_matches(')')
        .split(" OR ")
        .any(|id| span["span_id"] == *id);
    assert!(before.starts_with("@trace_id:t "), "{query}");
    named != before.ends_with('-')
}

async fn private(
    State(fake): State<Fake>,
    axum::extract::Path(call): axum::extract::Path<String>,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let mut world = fake.world();
    let known = ["find-error-spans", "span-content", "search-spans"];
    let call = known.into_iter().find(|known| *known == call).unwrap();
    world.private_calls.push((call, body));
    let (status, answer) = world
        .private
        .get(call)
        .cloned()
        .unwrap_or((403, json!({"errors": ["Forbidden"]})));
    (StatusCode::from_u16(status).unwrap(), axum::Json(answer)).into_response()
}
