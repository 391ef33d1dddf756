//! Filling gaps, and reporting those that remain.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use super::upstream::{TestUpstream, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

fn failed(id: usize, error: &Value) -> Value {
    let mut span = span(id, 3_600, 10);
    span["status"] = json!("error");
    span["error"] = error.clone();
    span
}

#[tokio::test(start_paused = true)]
async fn complete_errors_need_no_request() {
    let upstream =
        TestUpstream::with_spans(vec![failed(1, &json!({"message": "m"})), span(2, 9, 9)]);
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    let (details, gaps) = client.error_details(&trace).await.unwrap();
    assert_eq!(details["1"].message, "m");
    assert!(gaps.is_empty() && details.len() == 1);
    assert!(upstream.state().private_calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_error_details_once_per_trace() {
    let upstream = TestUpstream::with_spans(vec![
        failed(1, &Value::Null),
        failed(2, &Value::Null),
        failed(3, &json!({"message": "own"})),
    ]);
    upstream.state().private.insert(
        "find-error-spans",
        (
            200,
            json!({"error_spans": [
            {"span_id": "1", "error": {"type": "T", "message": "m", "stack": "s"}},
            {"span_id": 3, "error": {"type": "T", "message": "other"}}, 5]}),
        ),
    );
    let hub = upstream.hub(fast());
    let calls = (0..20).map(|_| {
        let client = hub.client(keys(), "test");
        async move {
            let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
            client.error_details(&trace).await.unwrap()
        }
    });
    for (details, gaps) in join_all(calls).await {
        assert_eq!(details["1"].error_type, "T");
        assert_eq!(details["3"].message, "own");
        assert!(!details.contains_key("2") && gaps.is_empty());
    }
    let state = upstream.state();
    assert_eq!(state.private_calls.len(), 1);
    assert_eq!(state.private_calls[0].1["trace_id"], "t");
    assert_eq!(state.private_calls[0].1["to"], NOW_MS.to_string());
}

#[rstest]
#[case(401)]
#[case(403)]
#[case(404)]
#[case(405)]
#[case(501)]
#[tokio::test(start_paused = true)]
async fn rejection_is_a_gap_and_cached(#[case] status: u16) {
    let upstream = TestUpstream::with_spans(vec![failed(1, &Value::Null)]);
    upstream
        .state()
        .private
        .insert("find-error-spans", (status, json!({"errors": ["no"]})));
    let hub = upstream.hub(fast());
    for _ in 0..3 {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        let (details, gaps) = client.error_details(&trace).await.unwrap();
        assert!(details.is_empty());
        assert_eq!(gaps[0].what, "error messages and stacks");
        assert!(
            gaps[0].why.contains(&format!("returned {status}")),
            "{gaps:?}"
        );
        // The lifetime of the trace is shorter than that of the rejection.
        tokio::time::advance(fast().structure_life).await;
    }
    assert_eq!(upstream.state().private_calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn any_other_error_is_a_gap() {
    for (status, answer) in [(500, json!({})), (200, json!([])), (200, json!({"x": 1}))] {
        let upstream = TestUpstream::with_spans(vec![failed(1, &Value::Null)]);
        upstream
            .state()
            .private
            .insert("find-error-spans", (status, answer));
        let client = upstream.client();
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        let (details, gaps) = client.error_details(&trace).await.unwrap();
        assert!(details.is_empty());
        assert_eq!(gaps.len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_field_from_page_or_private_endpoint() {
    let mut with = span(1, 3_600, 10);
    with["expected_output"] = json!({"a": 1});
    with["output"] = json!({"documents": [{"text": "d"}]});
    let upstream = TestUpstream::with_spans(vec![with, span(2, 3_600, 10)]);
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    let field = |id: &'static str, field: &'static str| {
        let (client, trace) = (&client, &trace);
        async move { client.field(trace, &SpanId::from(id), field).await }
    };
    assert_eq!(
        field("1", "expected_output").await.unwrap().0,
        Some(json!({"a": 1}))
    );
    assert_eq!(
        field("1", "documents").await.unwrap().0,
        Some(json!([{"text": "d"}]))
    );
    assert!(upstream.state().private_calls.is_empty());
    upstream.state().private.insert(
        "span-content",
        (
            200,
            json!({"content": "[{\"text\":\"far\"}]", "truncated": true}),
        ),
    );
    for _ in 0..2 {
        let (value, gaps) = field("2", "documents").await.unwrap();
        assert_eq!(value, Some(json!([{"text": "far"}])));
        assert!(gaps[0].why.contains("only a part"));
    }
    let error = field("99", "documents").await.unwrap_err();
    assert_eq!(error.to_string(), "span not found: 99");
    let state = upstream.state();
    assert_eq!(state.private_calls.len(), 1);
    assert_eq!(state.private_calls[0].1["field"], "documents");
}

#[tokio::test(start_paused = true)]
async fn missing_field_is_no_gap_but_rejection_is() {
    let upstream = TestUpstream::with_spans(vec![span(1, 3_600, 10), span(2, 3_600, 10)]);
    let client = upstream.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    for (answer, gap) in [
        ((200, json!({"content": null})), false),
        (
            (404, json!({"errors": ["field documents not found"]})),
            false,
        ),
        ((403, json!({"errors": ["Forbidden"]})), true),
    ] {
        upstream.state().private.insert("span-content", answer);
        let (value, gaps) = client
            .field(&trace, &"1".into(), "documents")
            .await
            .unwrap();
        assert_eq!((value, !gaps.is_empty()), (None, gap));
        tokio::time::advance(fast().structure_life).await;
    }
    // The endpoint was rejected, so no other field is requested.
    let before = upstream.state().private_calls.len();
    let (_, gaps) = client
        .field(&trace, &"2".into(), "expected_output")
        .await
        .unwrap();
    assert_eq!(gaps[0].what, "expected output");
    assert_eq!(upstream.state().private_calls.len(), before);
}

#[tokio::test(start_paused = true)]
async fn probe_contains_statuses_and_keys_but_no_content() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
    upstream.state().private.insert(
        "find-error-spans",
        (200, json!({"error_spans": [{"span_id": "1"}]})),
    );
    let results = upstream.client().probe().await;
    let by_name = |name: &str| results.iter().find(|result| result.name == name).unwrap();
    assert_eq!(results.len(), 15);
    assert_eq!(by_name("API key check").status, Some(404));
    let search = by_name("span search");
    assert_eq!(search.top_level_keys, ["data", "meta"]);
    assert!(search.row_keys.contains(&"ml_app".to_owned()));
    assert_eq!(by_name("error details").row_keys, ["span_id"]);
    let refused = by_name("look-up of an APM trace");
    assert_eq!(refused.status, Some(403));
    assert!(refused.detail.contains("Forbidden") && !refused.is_ok());
    assert!(search.is_ok() && search.detail.contains("keys: data, meta"));
    assert!(!format!("{results:?}").contains("shop"));
}
