//! Reading contents: each span at most once per life.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::super::*;
use super::fake::{Fake, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

const LARGE: usize = 30_000;

fn large_spans(count: usize) -> Vec<serde_json::Value> {
    (0..count).map(|id| span(id, 3_600, LARGE)).collect()
}

fn ids(range: std::ops::Range<usize>) -> Vec<SpanId> {
    range.map(|id| SpanId::from(id.to_string())).collect()
}

/// The length of a span's output as contents give it.
fn output_length(contents: &SpanContents, id: usize) -> usize {
    let span = &contents.spans[id.to_string().as_str()];
    span.output.text().map_or(0, |text| text.len())
}

#[tokio::test(start_paused = true)]
async fn small_contents_came_with_the_structure() {
    let fake = Fake::with((0..5).map(|id| span(id, 3_600, 100)).collect());
    let client = fake.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert!(contents.spans.is_empty() && contents.gaps.is_empty());
    let last = contents.with_content(&trace.tree.spans()[4]);
    assert_eq!(last.output.text().unwrap().len(), 100);
    assert_eq!(fake.search_counts(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_small_trace_is_read_whole_by_whoever_asks_first() {
    let fake = Fake::with(large_spans(10));
    let hub = fake.hub(fast());
    let calls = (0..40).map(|n| {
        let client = hub.client(keys(), "test");
        async move {
            let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
            let some = ids(n % 9..n % 9 + 2);
            client
                .contents(&trace, SpanSelection::Spans(&some))
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
    assert_eq!(fake.search_counts(), (1, 1));
    assert_eq!(fake.most_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn overlapping_sets_of_a_large_trace_read_each_span_once() {
    let fake = Fake::with(large_spans(100));
    let hub = fake.hub(HubSettings {
        ids_per_query: 8,
        content_page: 7,
        ..fast()
    });
    let calls = (0..40).map(|n| {
        let client = hub.client(keys(), "test");
        async move {
            let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
            let some = ids(n..n + 15);
            client
                .contents(&trace, SpanSelection::Spans(&some))
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
    assert_eq!(fake.most_content_reads(), 1);
    assert_eq!(fake.world().content_reads.len(), 54);
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
    assert_eq!(fake.most_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_few_spans_are_there_already_the_rest_is_asked_for_by_leaving_them_out() {
    let fake = Fake::with(large_spans(100));
    let client = fake.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    client
        .contents(&trace, SpanSelection::Spans(&ids(3..5)))
        .await
        .unwrap();
    let all = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert_eq!(all.spans.len(), 100);
    let queries: Vec<_> = fake.filters().into_iter().skip(1).collect();
    assert_eq!(queries[0]["query"], "@trace_id:t @span_id:(3 OR 4)");
    assert_eq!(queries[1]["query"], "@trace_id:t -@span_id:(3 OR 4)");
    assert_eq!(fake.most_content_reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn contents_of_an_older_trace_live_ten_minutes_and_evaluations_do_not() {
    let fake = Fake::with(large_spans(3));
    let hub = fake.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    fake.world().spans[1]["evaluation"] = json!({"good": {"value": true}});
    tokio::time::advance(Duration::from_secs(590)).await;
    let later = read().await;
    assert_eq!(fake.most_content_reads(), 1);
    assert!(later.spans["1"].evaluations.contains_key("good"));
    assert_eq!(output_length(&later, 1), LARGE);
    tokio::time::advance(Duration::from_secs(20)).await;
    read().await;
    assert_eq!(fake.most_content_reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn contents_of_a_young_trace_live_twenty_seconds() {
    let fake = Fake::with(vec![span(1, 60, LARGE)]);
    let hub = fake.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    tokio::time::advance(Duration::from_secs(21)).await;
    read().await;
    assert_eq!(fake.most_content_reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_span_that_was_sent_again_is_read_again() {
    let fake = Fake::with(large_spans(3));
    let hub = fake.hub(fast());
    let read = || async {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.contents(&trace, SpanSelection::All).await.unwrap()
    };
    read().await;
    fake.world().spans[1]["duration"] = json!(2_000_000);
    fake.world().spans[1]["output"] = json!({"value": "y".repeat(LARGE + 1)});
    tokio::time::advance(Duration::from_secs(21)).await;
    assert_eq!(output_length(&read().await, 1), LARGE + 1);
    assert_eq!(fake.world().content_reads["0"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_kept_and_a_reader_that_goes_away_blocks_nobody() {
    let fake = Fake::with(large_spans(3));
    let hub = fake.hub(fast());
    let trace = hub
        .client(keys(), "test")
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap();
    fake.world().search_fails = Some((403, json!({})));
    let calls = (0..10).map(|_| {
        let (client, trace) = (hub.client(keys(), "test"), &trace);
        async move { client.contents(trace, SpanSelection::All).await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_err));
    assert_eq!(fake.search_counts(), (1, 1));
    fake.world().search_fails = None;
    let (client, lent) = (hub.client(keys(), "test"), std::sync::Arc::clone(&trace));
    let gone =
        tokio::spawn(async move { client.contents(&lent, SpanSelection::All).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    gone.abort();
    let client = hub.client(keys(), "test");
    let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
    assert_eq!(contents.spans.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_span_whose_content_is_gone_stands_as_it_is_and_a_gap_says_so() {
    let fake = Fake::with(large_spans(3));
    let client = fake.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    fake.world().spans.remove(1);
    for _ in 0..2 {
        let contents = client.contents(&trace, SpanSelection::All).await.unwrap();
        assert_eq!(contents.spans.len(), 3);
        assert!(contents.gaps[0].why.contains("content of 1 spans"));
        assert_eq!(output_length(&contents, 2), LARGE);
    }
    assert_eq!(fake.search_counts(), (1, 1));
}
