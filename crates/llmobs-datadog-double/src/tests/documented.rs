//! Search responses contain documented attributes only.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::{Value, json};

use super::Harness;
use crate::DoubleOptions;
use crate::documented::SEARCH_PATH;

/// The attributes of a span in the public API reference.
const DOCUMENTED: [&str; 19] = [
    "span_id",
    "trace_id",
    "parent_id",
    "name",
    "span_kind",
    "status",
    "ml_app",
    "start_ns",
    "duration",
    "tags",
    "metadata",
    "metrics",
    "model_name",
    "model_provider",
    "intent",
    "input",
    "output",
    "tool_definitions",
    "evaluation",
];

async fn first_span(options: DoubleOptions) -> (Harness, Value) {
    let harness = Harness::new(options);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let span = json!({
        "trace_id": "t1", "span_id": "1", "parent_id": "undefined", "name": "call", "status": "error",
        "start_ns": u64::try_from(now.as_nanos()).unwrap(), "duration": 1_000, "session_id": "s1",
        "tags": ["ml_app:shop"],
        "meta": {"span": {"kind": "llm"}, "input": {"value": {"question": 1}}, "output": {"documents": [{"text": "d"}]},
            "error": {"message": "cut off", "type": "Cut", "stack": "at model"}},
    });
    let body = json!([{"_dd.stage": "raw", "event_type": "span", "spans": [span]}]);
    let sent = harness.post("/api/v2/llmobs", &body).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text());
    let search = json!({"data": {"type": "spans", "attributes": {"filter": {"from": "now-1h", "ml_app": "shop"}}}});
    let page = harness.post(SEARCH_PATH, &search).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let attributes = page.json()["data"][0]["attributes"].clone();
    (harness, attributes)
}

#[tokio::test]
async fn undocumented_attributes_are_removed() {
    let documented_only = DoubleOptions {
        documented_only: true,
        ..DoubleOptions::default()
    };
    let (_, complete) = first_span(DoubleOptions::default()).await;
    assert_eq!(complete["error"]["type"], "Cut");
    assert_eq!(complete["session_id"], "s1");
    assert_eq!(complete["input"]["raw_value"], json!({"question": 1}));
    let (harness, documented) = first_span(documented_only).await;
    for name in ["error", "session_id", "output"] {
        assert_eq!(documented.get(name), None, "{name}");
    }
    assert_eq!(documented["input"], json!({"value": "{\"question\":1}"}));
    assert_eq!(documented["status"], "error");
    let names: Vec<&str> = documented
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for name in &names {
        assert!(DOCUMENTED.contains(name), "{name}");
    }
    let aggregation = harness
        .post("/api/unstable/llm-obs-mcp/v1/trace/aggregate", &json!({}))
        .await;
    assert_eq!(aggregation.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_and_returned_contents_are_counted() {
    let (harness, _) = first_span(DoubleOptions::default()).await;
    let counts = harness.double.request_counts();
    assert_eq!(counts.requests[&format!("POST {SEARCH_PATH}")], 1);
    assert_eq!(counts.requests["POST /api/v2/llmobs"], 1);
    assert_eq!(counts.contents[&("t1".to_owned(), "1".to_owned())], 1);
}
