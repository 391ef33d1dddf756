//! Loading the structure of a trace.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::super::*;
use super::fake::{Fake, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

fn spans(count: usize) -> Vec<serde_json::Value> {
    (0..count).map(|id| span(id, 3_600, 10)).collect()
}

#[tokio::test(start_paused = true)]
async fn forty_parallel_calls_page_the_structure_once() {
    let fake = Fake::with(spans(30));
    let hub = fake.hub(HubSettings {
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
    assert_eq!(fake.search_counts(), (3, 0));
    assert_eq!(
        fake.filters()[0],
        json!({"from":"2026-06-23T14:13:20.000Z","to":"2026-09-21T14:13:20.000Z","trace_id":"t"})
    );
}

#[tokio::test(start_paused = true)]
async fn another_credential_sees_nothing_of_the_cache() {
    let fake = Fake::with(spans(1));
    let hub = fake.hub(fast());
    for credential in [keys(), Credential::None] {
        let client = hub.client(credential, "test");
        client.trace(&trace_id(), NOW_MS).await.unwrap();
        client.trace(&trace_id(), NOW_MS).await.unwrap();
    }
    assert_eq!(fake.search_counts(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_sent_later_is_seen_within_thirty_seconds() {
    let fake = Fake::with(spans(2));
    let hub = fake.hub(fast());
    let load = || async {
        let client = hub.client(keys(), "test");
        client.trace(&trace_id(), NOW_MS).await.unwrap()
    };
    assert!(load().await.tree.spans()[0].evaluations.is_empty());
    fake.world().spans[0]["evaluation"] = json!({"good": {"value": true}});
    fake.world().spans.push(span(9, 1, 10));
    tokio::time::advance(Duration::from_secs(25)).await;
    let later = load().await;
    assert!(later.tree.spans()[0].evaluations.contains_key("good"));
    assert_eq!(later.tree.spans().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_too_large_is_asked_for_again_at_half_the_size() {
    let fake = Fake::with(spans(30));
    fake.world().most_rows = Some(10);
    let hub = fake.hub(HubSettings {
        structure_page: 32,
        ..fast()
    });
    let trace = hub
        .client(keys(), "test")
        .trace(&trace_id(), NOW_MS)
        .await
        .unwrap();
    assert_eq!(trace.tree.spans().len(), 30);
    let limits: Vec<_> = fake
        .world()
        .searches
        .iter()
        .map(|body| body["data"]["attributes"]["page"]["limit"].clone())
        .collect();
    assert_eq!(limits, [32, 16, 8, 8, 8, 8]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_size_limit_is_halved_too() {
    let fake = Fake::with((0..16).map(|id| span(id, 3_600, 1_000)).collect());
    let hub = fake.hub(HubSettings {
        structure_page: 16,
        max_body_bytes: 6_000,
        ..fast()
    });
    let client = hub.client(keys(), "test");
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(trace.tree.spans().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn one_span_over_the_size_limit_is_an_error_that_says_so() {
    let fake = Fake::with(vec![span(1, 3_600, 9_000)]);
    let hub = fake.hub(HubSettings {
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
async fn a_cursor_that_repeats_ends_the_walk_and_the_reader_is_told() {
    let fake = Fake::with(spans(3));
    fake.world().stuck_cursor = Some("same");
    let trace = fake.client().trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(fake.search_counts(), (2, 0));
    assert_eq!(trace.tree.spans().len(), 3);
    assert!(!trace.complete);
    assert!(
        trace.notes[0].contains("same page cursor twice"),
        "{:?}",
        trace.notes
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_trace_is_not_found_unless_the_search_ran_out_of_time() {
    let fake = Fake::with(Vec::new());
    let error = fake.client().trace(&trace_id(), NOW_MS).await.unwrap_err();
    assert_eq!(error.to_string(), "no spans found for trace t");
    fake.world().meta_status = Some("timeout");
    let error = fake.client().trace(&trace_id(), NOW_MS).await.unwrap_err();
    assert!(
        matches!(error, ClientError::SearchTimedOut { .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_that_timed_out_makes_the_trace_partial() {
    let fake = Fake::with(spans(3));
    fake.world().meta_status = Some("timeout");
    let trace = fake.client().trace(&trace_id(), NOW_MS).await.unwrap();
    assert!(!trace.complete);
    assert!(trace.notes[0].contains("ran out of time"));
}

#[tokio::test(start_paused = true)]
async fn when_the_call_runs_out_of_time_what_was_read_is_given() {
    let fake = Fake::with(spans(100));
    fake.world().delay = Duration::from_secs(20);
    let hub = fake.hub(HubSettings {
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
    // The next call has its own time and does not take the stump for the whole.
    fake.world().delay = Duration::ZERO;
    tokio::time::advance(Duration::from_secs(6)).await;
    let client = hub.client(keys(), "test");
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    assert_eq!(trace.tree.spans().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_by_those_who_waited_and_forgotten_at_once() {
    let fake = Fake::with(spans(1));
    fake.world().search_fails = Some((403, json!({"errors":["Forbidden"]})));
    let hub = fake.hub(fast());
    let calls = (0..40).map(|_| {
        let client = hub.client(keys(), "test");
        async move { client.trace(&trace_id(), NOW_MS).await }
    });
    for failed in join_all(calls).await {
        assert_eq!(failed.unwrap_err().status(), Some(403));
    }
    assert_eq!(fake.search_counts(), (1, 0));
    fake.world().search_fails = None;
    let client = hub.client(keys(), "test");
    assert!(client.trace(&trace_id(), NOW_MS).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_the_others_served() {
    let fake = Fake::with(spans(1));
    let hub = fake.hub(fast());
    let (first, second) = (hub.client(keys(), "test"), hub.client(keys(), "test"));
    let gone = tokio::spawn(async move { first.trace(&trace_id(), NOW_MS).await });
    let stays = tokio::spawn(async move { second.trace(&trace_id(), NOW_MS).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    gone.abort();
    assert_eq!(stays.await.unwrap().unwrap().tree.spans().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_span_id_that_two_spans_share_is_kept_twice_and_a_repeated_row_once() {
    let mut other = span(1, 10, 5);
    other["name"] = json!("another");
    let fake = Fake::with(vec![span(1, 20, 5), span(1, 20, 5), other]);
    let trace = fake.client().trace(&trace_id(), NOW_MS).await.unwrap();
    let ids: Vec<_> = trace
        .tree
        .spans()
        .iter()
        .map(|span| &span.span_id)
        .collect();
    assert_eq!(ids, [&SpanId::from("1"), &SpanId::from("1")]);
    assert_eq!(trace.tree.spans()[1].name, "another");
}
