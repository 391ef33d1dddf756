//! Reading contents: each span at most once per lifetime.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::super::*;
use super::upstream::{TestUpstream, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

const LARGE: usize = 30_000;

fn large_spans(count: usize) -> Vec<serde_json::Value> {
    (0..count).map(|id| span(id, 3_600, LARGE)).collect()
}

fn ids(range: std::ops::Range<usize>) -> Vec<SpanId> {
    range.map(|id| SpanId::from(id.to_string())).collect()
}

/// The length of the output of a span in the contents.
fn output_length(contents: &SpanContents, id: usize) -> usize {
    let span = &contents.spans[id.to_string().as_str()];
    span.output.text().map_or(0, |text| text.len())
}

#[tokio::test(start_paused = true)]
async fn small_contents_are_part_of_structure() {
    let upstream = TestUpstream::with_spans((0..5).map(|id| span(id, 3_600, 100)).collect());
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert!(contents.spans.is_empty() && contents.gaps.is_empty());
    let last = contents.with_content(&trace.tree.spans()[4]);
    assert_eq!(last.output.text().unwrap().len(), 100);
    assert_eq!(upstream.search_counts(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn first_call_reads_all_contents_of_small_trace() {
    let upstream = TestUpstream::with_spans(large_spans(10));
    let hub = upstream.hub(fast());
    let calls = (0..40).map(|n| {
        let client = hub.client(keys(), "test");
        async move {
            let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
            let selected = ids(n % 9..n % 9 + 2);
            client
                .contents(&trace, SpanSelection::Spans(&selected))
                .await
                .unwrap()
        }
    });
    for contents in join_all(calls).await {
        assert_eq!(contents.spans.len(), 2);
        assert!(contents.gaps.is_empty());
        assert!(
            contents
                .spans
                .values()
                .all(|span| span.output.text().unwrap().len() == LARGE)
        );
    }
    assert_eq!(upstream.search_counts(), (1, 1));
    assert_eq!(upstream.max_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn overlapping_selections_read_each_span_once() {
    let upstream = TestUpstream::with_spans(large_spans(100));
    let hub = upstream.hub(HubSettings {
        ids_per_query: 8,
        content_page: 7,
        ..fast()
    });
    let calls = (0..40).map(|n| {
        let client = hub.client(keys(), "test");
        async move {
            let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
            let selected = ids(n..n + 15);
            client
                .contents(&trace, SpanSelection::Spans(&selected))
                .await
                .unwrap()
        }
    });
    for contents in join_all(calls).await {
        assert_eq!(contents.spans.len(), 15);
        assert!(
            contents
                .spans
                .values()
                .all(|span| span.output.text().unwrap().len() == LARGE)
        );
    }
    assert_eq!(upstream.max_content_reads(), 1);
    assert_eq!(upstream.state().content_reads.len(), 54);
    let trace = hub
        .client(keys(), "test")
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap();
    let all = hub
        .client(keys(), "test")
        .contents(&trace, SpanSelection::All)
        .await
        .unwrap();
    assert_eq!(all.spans.len(), 100);
    assert_eq!(upstream.max_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn excludes_cached_spans_if_they_are_few() {
    let upstream = TestUpstream::with_spans(large_spans(100));
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    client
        .contents(&trace, SpanSelection::Spans(&ids(3..5)))
        .await
        .unwrap();
    let all = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert_eq!(all.spans.len(), 100);
    let queries: Vec<_> = upstream.filters().into_iter().skip(1).collect();
    assert_eq!(queries[0]["query"], "@trace_id:t @span_id:(3 OR 4)");
    assert_eq!(queries[1]["query"], "@trace_id:t -@span_id:(3 OR 4)");
    assert_eq!(upstream.max_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn contents_of_older_trace_are_cached_ten_minutes_without_evaluations() {
    let upstream = TestUpstream::with_spans(large_spans(3));
    let hub = upstream.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    upstream.state().spans[1]["evaluation"] = json!({"good": {"value": true}});
    tokio::time::advance(Duration::from_secs(590)).await;
    let later = read().await;
    assert_eq!(upstream.max_content_reads(), 1);
    assert!(later.spans["1"].evaluations.contains_key("good"));
    assert_eq!(output_length(&later, 1), LARGE);
    tokio::time::advance(Duration::from_secs(20)).await;
    read().await;
    assert_eq!(upstream.max_content_reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn contents_of_young_trace_are_cached_twenty_seconds() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, LARGE)]);
    let hub = upstream.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    tokio::time::advance(Duration::from_secs(21)).await;
    read().await;
    assert_eq!(upstream.max_content_reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn changed_span_is_read_again() {
    let upstream = TestUpstream::with_spans(large_spans(3));
    let hub = upstream.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    upstream.state().spans[1]["duration"] = json!(2_000_000);
    upstream.state().spans[1]["output"] = json!({"value": "y".repeat(LARGE + 1)});
    tokio::time::advance(Duration::from_secs(21)).await;
    assert_eq!(output_length(&read().await, 1), LARGE + 1);
    assert_eq!(upstream.state().content_reads["0"], 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_cached_and_cancelled_readers_do_not_block() {
    let upstream = TestUpstream::with_spans(large_spans(3));
    let hub = upstream.hub(fast());
    let trace = hub
        .client(keys(), "test")
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap();
    upstream.state().search_error = Some((403, json!({})));
    let calls = (0..10).map(|_| {
        let (client, trace) = (hub.client(keys(), "test"), &trace);
        async move { client.contents(trace, SpanSelection::All).await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_err));
    assert_eq!(upstream.search_counts(), (1, 1));
    upstream.state().search_error = None;
    let (client, shared) = (hub.client(keys(), "test"), std::sync::Arc::clone(&trace));
    let cancelled =
        tokio::spawn(async move { client.contents(&shared, SpanSelection::All).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cancelled.abort();
    let client = hub.client(keys(), "test");
    let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert_eq!(contents.spans.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn removed_content_is_a_gap() {
    let upstream = TestUpstream::with_spans(large_spans(3));
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    upstream.state().spans.remove(1);
    for _ in 0..2 {
        let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
        assert_eq!(contents.spans.len(), 3);
        assert!(contents.gaps[0].why.contains("content of 1 spans"));
        assert_eq!(output_length(&contents, 2), LARGE);
    }
    assert_eq!(upstream.search_counts(), (1, 1));
}
