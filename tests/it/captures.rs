//! Complete answers of every tool on recorded requests of real SDKs.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::App;

/// Every tool, on every trace of a capture.
async fn all_answers(app: &App) -> Value {
    let mut answers = BTreeMap::new();
    for (number, trace_id) in app.trace_ids().await.into_iter().enumerate() {
        let mut answer = json!({});
        let tree = app
            .call("get_llmobs_trace", json!({"trace_id": trace_id}))
            .await;
        let ids = span_ids(&tree);
        answer["trace"] = tree;
        answer["errors"] = app
            .call("find_llmobs_error_spans", json!({"trace_id": trace_id}))
            .await;
        answer["loop"] = app
            .call(
                "get_llmobs_agent_loop",
                json!({"trace_id": trace_id, "max_content_length": 300}),
            )
            .await;
        let details = app
            .call(
                "get_llmobs_span_details",
                json!({"trace_id": trace_id, "span_ids": ids, "max_tokens": 20_000}),
            )
            .await;
        let mut content = BTreeMap::new();
        for span in details["spans"].as_array().unwrap() {
            for field in span["content_info"].as_object().unwrap().keys() {
                let id = &span["span_id"];
                let read = app
                    .call(
                        "get_llmobs_span_content",
                        json!({"trace_id": trace_id, "span_id": id, "field": field, "max_tokens": 500}),
                    )
                    .await;
                let key = format!("{} {}", id.as_str().unwrap(), field);
                content.insert(key, read["content"].clone());
            }
        }
        answer["details"] = details;
        answer["content"] = json!(content);
        answers.insert(format!("{number:02} {trace_id}"), answer);
    }
    json!(answers)
}

fn span_ids(trace: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> = Vec::new();
    for key in ["spans", "orphans"] {
        open.extend(trace[key].as_array().into_iter().flatten());
    }
    while let Some(node) = open.pop() {
        found.push(node["span_id"].clone());
        open.extend(node["children"].as_array().unwrap());
    }
    found.sort_by_key(ToString::to_string);
    found
}

#[rstest]
#[case("01-py-sdk-manual-agentless")]
#[case("02-py-sdk-manual-apm-v04-meta_struct")]
#[case("03-py-sdk-manual-evp-proxy")]
#[case("10-py-auto-langchain")]
#[case("10-py-auto-langgraph")]
#[case("10-py-auto-openai")]
#[case("10-py-auto-openai_agents")]
#[case("10-py-auto-pydantic_ai")]
#[tokio::test]
async fn every_tool_answers_on_capture(#[case] capture: &str) {
    let full = all_answers(&App::new().capture(capture)).await;
    insta::assert_json_snapshot!(capture, full);

    // With documented attributes only, the answers are the same except for attributes that no
    // documented endpoint returns.
    let gaps_filled = all_answers(&App::documented_only().capture(capture)).await;
    let mut difference = Vec::new();
    differences("", &full, &gaps_filled, &mut difference);
    difference.retain(|line| !is_undocumented(line));
    assert!(difference.is_empty(), "{}", difference.join("\n"));
}

/// Attributes that no documented endpoint returns.
fn is_undocumented(line: &str) -> bool {
    let path = line.split(": ").next().unwrap();
    let key = path.rsplit('/').next().unwrap();
    let in_details = path.contains("/details/");
    match key {
        "apm_trace_id" | "collection_errors" | "prompt" | "feedback" => in_details,
        "timestamp_ms" => in_details && path.contains("/evaluations/"),
        // A list does not contain documents: only the details show that a retrieval has some.
        "has_input" | "has_output" => path.contains("/trace/"),
        _ => false,
    }
}

/// The leaves that differ between two values.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let missing = Value::Null;
                let path = format!("{path}/{key}");
                differences(
                    &path,
                    a.get(key).unwrap_or(&missing),
                    b.get(key).unwrap_or(&missing),
                    found,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{at}]"), a, b, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} | {other}")),
    }
}

#[tokio::test]
async fn three_ways_to_send_give_equal_answers() {
    let mut answers = Vec::new();
    for capture in [
        "01-py-sdk-manual-agentless",
        "02-py-sdk-manual-apm-v04-meta_struct",
        "03-py-sdk-manual-evp-proxy",
    ] {
        let app = App::new().capture(capture);
        let found = app
            .call(
                "search_llmobs_spans",
                json!({"ml_app": "shop-assistant", "span_name": "handle_ticket", "from": "now-30d"}),
            )
            .await;
        let trace_id = found["spans"][0]["trace_id"].clone();
        let agent_loop = app
            .call("get_llmobs_agent_loop", json!({"trace_id": trace_id}))
            .await;
        let iterations: Vec<Value> = agent_loop["iterations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|iteration| {
                let calls: Vec<Value> = iteration["tool_calls"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|call| json!([call["name"], call["arguments"], call["result"]]))
                    .collect();
                json!([
                    iteration["name"],
                    iteration["content"],
                    iteration["input_tokens"],
                    calls
                ])
            })
            .collect();
        assert_eq!(iterations.len(), 3, "{capture}");
        answers.push(iterations);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}
