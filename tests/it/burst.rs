//! Skills send dozens of parallel calls for one trace: the trace is loaded once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use datadog_llmobs::{
    Credential, Hub, HubSettings, ResponseLimits, RouterTransport, Transport, TransportError,
    Upstream,
};
use futures_util::future::{BoxFuture, join_all};
use http::{Request, Response};
use serde_json::{Value, json};

use crate::support::{App, NOW_MS};

/// 150 spans: more than are read with their content in one request.
fn large_trace(trace: &str) -> Vec<Value> {
    (1..=150)
        .map(|id| {
            let parent = if id == 1 {
                "undefined".to_owned()
            } else {
                (id / 2).to_string()
            };
            json!({
                "span_id": id.to_string(), "trace_id": trace, "parent_id": parent,
                "name": format!("s{id}"), "status": if id % 40 == 0 { "error" } else { "ok" },
                "start_ns": (NOW_MS - 600_000 + id) * 1_000_000, "duration": 1_000_000,
                "tags": ["ml_app:burst"], "metrics": {},
                "meta": {"span": {"kind": if id % 3 == 0 { "llm" } else { "tool" }},
                    "input": {"value": "i".repeat(200)}, "output": {"value": "o".repeat(30_000)}},
            })
        })
        .collect()
}

/// The largest page of a search. The structure of a trace is read in larger pages.
const MOST_ROWS: u64 = 500;

/// Counts the requests for the structure of a trace.
struct Counted {
    inner: RouterTransport,
    structures: Arc<AtomicUsize>,
}

impl Transport for Counted {
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let attributes = &body["data"]["attributes"];
        let whole = attributes["page"]["limit"].as_u64() > Some(MOST_ROWS);
        if whole && attributes["options"]["include_attachments"] == false {
            self.structures.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.send(request, limits)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forty_parallel_calls_read_each_content_at_most_once() {
    const TRACE: &str = "000000000000000000000000000000bb";
    let mut app = App::new();
    let structures = Arc::<AtomicUsize>::default();
    let counted = Counted {
        inner: RouterTransport(app.backend.router()),
        structures: structures.clone(),
    };
    let hub = Hub::new(Upstream::Local, Arc::new(counted), HubSettings::default());
    app.context.client = hub.client(Credential::None, "test");
    app.spans(json!(large_trace(TRACE))).await;
    let mut questions = Vec::new();
    for round in 1..=6 {
        questions.extend([
            ("get_llmobs_trace", json!({"trace_id": TRACE})),
            (
                "get_llmobs_span_details",
                json!({"trace_id": TRACE, "span_ids": [round, round + 40, round + 80]}),
            ),
            (
                "get_llmobs_span_content",
                json!({"trace_id": TRACE, "span_id": round * 7, "field": "output"}),
            ),
            (
                "get_llmobs_span_content",
                json!({"trace_id": TRACE, "span_id": round, "field": "input"}),
            ),
            ("find_llmobs_error_spans", json!({"trace_id": TRACE})),
            (
                "expand_llmobs_spans",
                json!({"trace_id": TRACE, "span_ids": ["1"], "max_depth": round}),
            ),
            ("get_llmobs_agent_loop", json!({"trace_id": TRACE})),
            (
                "search_llmobs_spans",
                json!({"trace_id": TRACE, "query": "-@name:nothing", "limit": 5 * round}),
            ),
        ]);
    }
    let before = app.counts();
    join_all(
        questions
            .iter()
            .map(|(tool, arguments)| app.call(tool, arguments.clone())),
    )
    .await;
    let after = app.counts();

    assert_eq!(questions.len(), 48);
    let read_twice: BTreeMap<_, _> = after
        .contents
        .iter()
        .filter(|(_, reads)| **reads > 1)
        .collect();
    assert!(
        read_twice.is_empty(),
        "contents read more than once: {read_twice:?}"
    );
    assert_eq!(
        after.contents.len(),
        150,
        "and each once, as two tools need them all"
    );
    let requests: u64 =
        after.requests.values().sum::<u64>() - before.requests.values().sum::<u64>();
    println!("48 calls cost {requests} requests: {:?}", after.requests);
    assert_eq!(
        structures.load(Ordering::Relaxed),
        1,
        "the structure is paged once"
    );
    // Six searches, one page of structure, one request for errors; the others are batches of contents.
    assert!(requests <= 12, "{requests} requests");

    // A second burst costs only its searches.
    join_all(
        questions
            .iter()
            .map(|(tool, arguments)| app.call(tool, arguments.clone())),
    )
    .await;
    let again = app.counts();
    let requests: u64 = again.requests.values().sum::<u64>() - after.requests.values().sum::<u64>();
    assert_eq!(requests, 6);
    assert_eq!(again.contents, after.contents, "no content is read again");
    assert_eq!(structures.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn later_evaluation_appears_after_the_cache_expires() {
    const TRACE: &str = "000000000000000000000000000000bc";
    // The default lifetime of a cache entry is 20 seconds, below the documented 30; the test uses a shorter one.
    assert!(HubSettings::default().structure_life <= Duration::from_secs(30));
    let life = Duration::from_millis(50);
    let app = App::with(
        false,
        HubSettings {
            structure_life: life,
            ..HubSettings::default()
        },
    );
    app.spans(json!(large_trace(TRACE))).await;
    let question = json!({"trace_id": TRACE, "span_ids": ["1"]});
    let before = app.call("get_llmobs_span_details", question.clone()).await;
    assert_eq!(before["spans"][0]["evaluations"], json!({}));
    app.evaluations(json!([{"join_on": {"span": {"span_id": "1", "trace_id": TRACE}}, "ml_app": "burst",
        "timestamp_ms": NOW_MS, "label": "tone", "metric_type": "categorical", "categorical_value": "polite"}]))
        .await;
    tokio::time::sleep(life * 2).await;
    let after = app.call("get_llmobs_span_details", question).await;
    assert_eq!(after["spans"][0]["evaluations"]["tone"]["value"], "polite");
    let reads = app.counts().contents;
    assert!(
        reads.values().all(|reads| *reads == 1),
        "the content was not read again"
    );
}
