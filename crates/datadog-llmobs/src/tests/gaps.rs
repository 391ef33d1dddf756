//! Filling gaps, and saying so where they stay.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use super::fake::{Fake, span, trace_id};
use super::{NOW_MS, fast, keys};
use llmobs_core::model::SpanId;

fn failed(id: usize, error: &Value) -> Value {
    let mut span = span(id, 3_600, 10);
    span["status"] = json!("error");
    span["error"] = error.clone();
    span
}

#[tokio::test(start_paused = true)]
async fn errors_that_came_along_ask_nobody() {
    let fake = Fake::with(vec![failed(1, &json!({"message": "m"})), span(2, 9, 9)]);
    let client = fake.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    let (details, gaps) = client.error_details(&trace).await.unwrap();
    assert_eq!(details["1"].message, "m");
    assert!(gaps.is_empty() && details.len() == 1);
    assert!(fake.world().private_calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn errors_without_details_are_asked_for_once_per_trace() {
    let fake = Fake::with(vec![
        failed(1, &Value::Null),
        failed(2, &Value::Null),
        failed(3, &json!({"message": "own"})),
    ]);
    fake.world().private.insert(
        "find-error-spans",
        (
            200,
            json!({"error_spans": [
            {"span_id": "1", "error": {"type": "T", "message": "m", "stack": "s"}},
            {"span_id": 3, "error": {"type": "T", "message": "theirs"}}, 5]}),
        ),
    );
    let hub = fake.hub(fast());
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
    let world = fake.world();
    assert_eq!(world.private_calls.len(), 1);
    assert_eq!(world.private_calls[0].1["trace_id"], "t");
    assert_eq!(world.private_calls[0].1["to"], NOW_MS.to_string());
}

#[rstest]
#[case(401)]
#[case(403)]
#[case(404)]
#[case(405)]
#[case(501)]
#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_gap_and_is_remembered(#[case] status: u16) {
    let fake = Fake::with(vec![failed(1, &Value::Null)]);
    fake.world()
        .private
        .insert("find-error-spans", (status, json!({"errors": ["no"]})));
    let hub = fake.hub(fast());
    for _ in 0..3 {
        let client = hub.client(keys(), "test");
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        let (details, gaps) = client.error_details(&trace).await.unwrap();
        assert!(details.is_empty());
        assert_eq!(gaps[0].what, "error messages and stacks");
        assert!(
            gaps[0].why.contains(&format!("answered {status}")),
            "{gaps:?}"
        );
        // The trace's own memory is shorter than that of the refusal.
        tokio::time::advance(fast().structure_life).await;
    }
    assert_eq!(fake.world().private_calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn any_other_trouble_is_a_gap_too() {
    for (status, answer) in [(500, json!({})), (200, json!([])), (200, json!({"x": 1}))] {
        let fake = Fake::with(vec![failed(1, &Value::Null)]);
        fake.world()
            .private
            .insert("find-error-spans", (status, answer));
        let client = fake.client();
        let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
        let (details, gaps) = client.error_details(&trace).await.unwrap();
        assert!(details.is_empty());
        assert_eq!(gaps.len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_is_read_from_the_page_else_from_the_private_endpoint_once() {
    let mut with = span(1, 3_600, 10);
    with["expected_output"] = json!({"a": 1});
    with["output"] = json!({"documents": [{"text": "d"}]});
    let fake = Fake::with(vec![with, span(2, 3_600, 10)]);
    let client = fake.client();
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
    assert!(fake.world().private_calls.is_empty());
    fake.world().private.insert(
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
    let world = fake.world();
    assert_eq!(world.private_calls.len(), 1);
    assert_eq!(world.private_calls[0].1["field"], "documents");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_the_span_does_not_have_is_no_gap_and_a_refusal_is() {
    let fake = Fake::with(vec![span(1, 3_600, 10), span(2, 3_600, 10)]);
    let client = fake.client();
    let trace = client.trace(&trace_id(), NOW_MS).await.unwrap();
    for (answer, gap) in [
        ((200, json!({"content": null})), false),
        (
            (404, json!({"errors": ["field documents not found"]})),
            false,
        ),
        ((403, json!({"errors": ["Forbidden"]})), true),
    ] {
        fake.world().private.insert("span-content", answer);
        let (value, gaps) = client
            .field(&trace, &"1".into(), "documents")
            .await
            .unwrap();
        assert_eq!((value, !gaps.is_empty()), (None, gap));
        tokio::time::advance(fast().structure_life).await;
    }
    // The refusal is about the endpoint, so no other field is asked for.
    let before = fake.world().private_calls.len();
    let (_, gaps) = client
        .field(&trace, &"2".into(), "expected_output")
        .await
        .unwrap();
    assert_eq!(gaps[0].what, "expected output");
    assert_eq!(fake.world().private_calls.len(), before);
}

#[tokio::test(start_paused = true)]
async fn the_probe_names_statuses_and_keys_and_shows_no_content() {
    let fake = Fake::with(vec![span(1, 60, 10)]);
    fake.world().private.insert(
        "find-error-spans",
        (200, json!({"error_spans": [{"span_id": "1"}]})),
    );
    let results = fake.client().probe().await;
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
