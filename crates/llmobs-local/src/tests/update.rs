//! Updates of spans: complete, partial, and sent to the update path.

use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Local, START, span};

fn envelope(spans: &Value) -> Value {
    json!({"_dd.stage": "raw", "event_type": "span", "spans": spans})
}

fn running() -> Value {
    span(
        1,
        START,
        json!({"duration": -1, "parent_id": "7", "status": "ok", "tags": ["ml_app:shop", "env:prod"],
            "metrics": {"input_tokens": 3}, "session_id": "s",
            "meta": {"span": {"kind": "step"}, "input": {"value": "go"}, "metadata": {"a": {"x": 1}, "b": 2}}}),
    )
}

#[rstest]
#[case("/api/v2/llmobs")]
#[case("/evp_proxy/v2/api/v2/llmobs/update")]
#[tokio::test]
async fn update_keeps_absent_fields(#[case] path: &str) {
    let local = Local::new();
    local
        .post("/api/v2/llmobs", &envelope(&json!([running()])))
        .await;
    let change = json!({"trace_id": "t1", "span_id": "1", "duration": 5, "status": "error",
        "tags": ["env:test"], "metrics": {"output_tokens": 4},
        "meta": {"output": {"value": "done"}, "metadata": {"a": {"y": 2}}, "error": {"message": "m"}}});
    let answer = local.post(path, &envelope(&json!([change]))).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::ACCEPTED, json!({}))
    );
    insta::assert_json_snapshot!("updated_span", local.all(json!({})).await.spans());
}

#[tokio::test]
async fn request_may_contain_span_and_update() {
    let local = Local::new();
    let change = json!({"trace_id": "t1", "span_id": "1", "duration": 5});
    let both = envelope(&json!([running(), change]));
    local.post("/api/v2/llmobs", &both).await;
    let spans = local.all(json!({})).await.spans();
    assert_eq!((&spans[0]["duration"], spans.len()), (&json!(5), 1));
}

#[tokio::test]
async fn refuses_update_of_missing_span() {
    let local = Local::new();
    let path = "/api/v2/llmobs/update";
    let change = json!({"trace_id": "t1", "span_id": "2", "duration": 5});
    let answer = local
        .post(path, &envelope(&json!([running(), change])))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(answer.detail().contains("no stored span has these ids"));
    assert_eq!(local.all(json!({})).await.names(), ["span-1"]);
    let wrong = json!({"trace_id": "t1", "span_id": "1", "meta": []});
    let answer = local.post(path, &envelope(&json!([wrong]))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(local.all(json!({})).await.spans()[0]["duration"], -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_updates_of_one_span_all_apply() {
    let local = Local::new();
    local
        .post("/api/v2/llmobs", &envelope(&json!([running()])))
        .await;
    let updates = (0..60).map(|number| {
        let local = &local;
        async move {
            let metrics = json!({ format!("m{number}"): number });
            let change = json!({"trace_id": "t1", "span_id": "1", "metrics": metrics});
            let path = "/api/v2/llmobs/update";
            local.post(path, &envelope(&json!([change]))).await.status
        }
    });
    for status in futures_util::future::join_all(updates).await {
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let spans = local.all(json!({})).await.spans();
    for number in 0..60 {
        let kept = spans[0]["metrics"][format!("m{number}")].as_f64();
        assert_eq!(kept, Some(f64::from(number)));
    }
}

#[tokio::test]
async fn envelope_may_contain_many_spans() {
    let local = Local::new();
    let spans: Vec<Value> = (1..=50).map(|id| span(id, START, json!({}))).collect();
    local.post("/api/v2/llmobs", &envelope(&json!(spans))).await;
    assert_eq!(local.backend.stats().unwrap().spans, 50);
}

#[tokio::test]
async fn datadog_limits_drop_content_of_large_spans() {
    let local = Local::with(|options| options.max_span_bytes = Some(1_000));
    let content = json!({"kind": "llm", "metadata": {"kept": true},
        "input": {"messages": [{"role": "user", "content": "x".repeat(1_000)}]}});
    let large = span(1, START, json!({"meta": content}));
    local
        .ingest(json!([
            large,
            span(
                2,
                START + 1,
                json!({"meta": {"kind": "llm", "input": {"value": "small"}}})
            )
        ]))
        .await;
    let spans = local.all(json!({})).await.spans();
    assert_eq!(spans[0]["collection_errors"], json!(["dropped_io"]));
    assert!(
        spans[0]["input"]["value"]
            .as_str()
            .unwrap()
            .starts_with("[This value has been dropped")
    );
    assert_eq!(spans[0]["metadata"], json!({"kept": true}));
    assert_eq!(spans[1]["input"], json!({"value": "small"}));
}
