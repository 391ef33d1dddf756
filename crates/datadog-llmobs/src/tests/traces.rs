//! The structure of a trace.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::super::*;
use super::upstream::{TestUpstream, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

fn spans(count: usize) -> Vec<serde_json::Value> {
    (0..count).map(|id| span(id, 3_600, 10)).collect()
}

#[tokio::test(start_paused = true)]
async fn parallel_calls_load_structure_once() {
    let upstream = TestUpstream::with_spans(spans(30));
    let hub = upstream.hub(HubSettings {
        structure_page: 10,
        ..fast()
    });
    let calls = (0..40).map(|_| {
        let client = hub.client(keys(), "test");
        async move { client.trace(&trace_id(), NOW_MS).await }
    });
    for loaded in join_all(calls).await {
        let trace = loaded.unwrap();
        assert_eq!(trace.tree.spans().len(), 30);
        assert!(trace.complete && trace.notes.is_empty());
    }
    assert_eq!(upstream.search_counts(), (3, 0));
    assert_eq!(
        upstream.filters()[0],
        json!({"from":"2026-06-23T14:13:20.000Z","to":"2026-09-21T14:13:20.000Z","trace_id":"t"})
    );
}

#[tokio::test(start_paused = true)]
async fn cache_is_per_credential() {
    let upstream = TestUpstream::with_spans(spans(1));
    let hub = upstream.hub(fast());
    for credential in [keys(), Credential::None] {
        let client = hub.client(credential, "test");
        client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.trace(&trace_id(), NOW_MS).await.unwrap();
    }
    assert_eq!(upstream.search_counts(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn new_evaluation_is_visible_within_thirty_seconds() {
    let upstream = TestUpstream::with_spans(spans(2));
    let hub = upstream.hub(fast());
    let load = || async {
        let client = hub.client(keys(), "test");
        client.trace(&trace_id(), NOW_MS).await.unwrap()
    };
    assert!(load().await.tree.spans()[0].evaluations.is_empty());
    upstream.state().spans[0]["evaluation"] = json!({"good": {"value": true}});
    upstream.state().spans.push(span(9, 1, 10));
    tokio::time::advance(Duration::from_secs(25)).await;
    let later = load().await;
    assert!(later.tree.spans()[0].evaluations.contains_key("good"));
    assert_eq!(later.tree.spans().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn halves_rejected_page() {
    let upstream = TestUpstream::with_spans(spans(30));
    upstream.state().max_rows = Some(10);
    let hub = upstream.hub(HubSettings {
        structure_page: 32,
        ..fast()
    });
    let trace = hub
        .client(keys(), "test")
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap();
    assert_eq!(trace.tree.spans().len(), 30);
    let limits: Vec<_> = upstream
        .state()
        .searches
        .iter()
        .map(|body| body["data"]["attributes"]["page"]["limit"].clone())
        .collect();
    assert_eq!(limits, [32, 16, 8, 8, 8, 8]);
}

#[tokio::test(start_paused = true)]
async fn halves_page_over_body_limit() {
    let upstream = TestUpstream::with_spans((0..16).map(|id| span(id, 3_600, 1_000)).collect());
    let hub = upstream.hub(HubSettings {
        structure_page: 16,
        max_body_bytes: 6_000,
        ..fast()
    });
    let client = hub.client(keys(), "test");
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(trace.tree.spans().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn single_span_over_body_limit_is_an_error() {
    let upstream = TestUpstream::with_spans(vec![span(1, 3_600, 9_000)]);
    let hub = upstream.hub(HubSettings {
        max_body_bytes: 6_000,
        ..fast()
    });
    let client = hub.client(keys(), "test");
    let error = client.trace(&trace_id(), NOW_MS).await.unwrap_err();
    assert!(
        error.to_string().contains("larger than 6000 bytes"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn stops_at_repeated_cursor_with_note() {
    let upstream = TestUpstream::with_spans(spans(3));
    upstream.state().stuck_cursor = Some("same");
    let trace = upstream.client().trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(upstream.search_counts(), (2, 0));
    assert_eq!(trace.tree.spans().len(), 3);
    assert!(!trace.complete);
    assert!(
        trace.notes[0].contains("same page cursor twice"),
        "{:?}",
        trace.notes
    );
}

#[tokio::test(start_paused = true)]
async fn empty_search_is_not_found_unless_timed_out() {
    let upstream = TestUpstream::with_spans(Vec::new());
    let error = upstream
        .client()
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no spans found for trace t");
    upstream.state().meta_status = Some("timeout");
    let error = upstream
        .client()
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::SearchTimedOut { .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn timed_out_page_makes_trace_incomplete() {
    let upstream = TestUpstream::with_spans(spans(3));
    upstream.state().meta_status = Some("timeout");
    let trace = upstream.client().trace(&trace_id(), NOW_MS).await.unwrap();
    assert!(!trace.complete);
    assert!(trace.notes[0].contains("timed out"));
}

#[tokio::test(start_paused = true)]
async fn returns_pages_read_before_deadline() {
    let upstream = TestUpstream::with_spans(spans(100));
    upstream.state().delay = Duration::from_secs(20);
    let hub = upstream.hub(HubSettings {
        structure_page: 10,
        ..fast()
    });
    let client = hub.client(keys(), "test");
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(trace.tree.spans().len(), 20);
    assert!(
        trace.notes[0].contains("first 20 spans"),
        "{:?}",
        trace.notes
    );
    // The next call has its own deadline, and the incomplete trace has expired.
    upstream.state().delay = Duration::ZERO;
    tokio::time::advance(Duration::from_secs(6)).await;
    let client = hub.client(keys(), "test");
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(trace.tree.spans().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn failure_is_shared_with_waiting_calls_and_not_cached() {
    let upstream = TestUpstream::with_spans(spans(1));
    upstream.state().search_error = Some((403, json!({"errors":["Forbidden"]})));
    let hub = upstream.hub(fast());
    let calls = (0..40).map(|_| {
        let client = hub.client(keys(), "test");
        async move { client.trace(&trace_id(), NOW_MS).await }
    });
    for failed in join_all(calls).await {
        assert_eq!(failed.unwrap_err().status(), Some(403));
    }
    assert_eq!(upstream.search_counts(), (1, 0));
    upstream.state().search_error = None;
    let client = hub.client(keys(), "test");
    assert!(client.trace(&trace_id(), NOW_MS).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_does_not_affect_others() {
    let upstream = TestUpstream::with_spans(spans(1));
    let hub = upstream.hub(fast());
    let (first, second) = (hub.client(keys(), "test"), hub.client(keys(), "test"));
    let cancelled = tokio::spawn(async move { first.trace(&trace_id(), NOW_MS).await });
    let waiting = tokio::spawn(async move { second.trace(&trace_id(), NOW_MS).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cancelled.abort();
    assert_eq!(waiting.await.unwrap().unwrap().tree.spans().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn keeps_spans_with_same_id_and_drops_repeated_rows() {
    let mut other = span(1, 10, 5);
    other["name"] = json!("another");
    let upstream = TestUpstream::with_spans(vec![span(1, 20, 5), span(1, 20, 5), other]);
    let trace = upstream.client().trace(&trace_id(), NOW_MS).await.unwrap();
    let ids: Vec<_> = trace
        .tree
        .spans()
        .iter()
        .map(|span| &span.span_id)
        .collect();
    assert_eq!(ids, [&SpanId::from("1"), &SpanId::from("1")]);
    assert_eq!(trace.tree.spans()[1].name, "another");
}
