//! Errors for wrong arguments: each names the mistake and has an example, which the test calls.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::App;

const TRACE: &str = "6b00ee9000000000878647e47133ae20";

#[rstest]
#[case("no_trace_id", "get_llmobs_trace", json!({}))]
#[case("unknown_trace", "get_llmobs_trace", json!({"trace_id": "no-such-trace"}))]
#[case("apm_trace_id", "find_llmobs_error_spans", json!({"trace_id": "6b00ee900000000067838c2693316ace"}))]
#[case("unknown_span", "expand_llmobs_spans", json!({"trace_id": TRACE, "span_ids": ["1"]}))]
#[case("unknown_spans", "get_llmobs_span_details", json!({"trace_id": TRACE, "span_ids": ["1", "2"]}))]
#[case("unknown_agent", "get_llmobs_agent_loop", json!({"trace_id": TRACE, "span_id": "1"}))]
#[case("no_span_ids", "get_llmobs_span_details", json!({"trace_id": TRACE, "span_ids": []}))]
#[case("unknown_field", "get_llmobs_span_content", json!({"trace_id": TRACE, "span_id": "16135088022371463582", "field": "body"}))]
#[case("absent_field", "get_llmobs_span_content", json!({"trace_id": TRACE, "span_id": "16135088022371463582", "field": "documents"}))]
#[case("unknown_span_content", "get_llmobs_span_content", json!({"trace_id": TRACE, "span_id": "1", "field": "input"}))]
#[case("bad_path", "get_llmobs_span_content", json!({"trace_id": TRACE, "span_id": "3163256883847754435", "field": "messages", "path": "$.messages[0"}))]
#[case("endless_path", "get_llmobs_span_content", json!({"trace_id": TRACE, "span_id": "3163256883847754435", "field": "messages", "path": "[".repeat(5_000)}))]
#[case("unbalanced_query", "search_llmobs_spans", json!({"query": "@ml_app:\"shop"}))]
#[case("breaking_out_of_the_group", "search_llmobs_spans", json!({"query": "a) OR (b", "ml_app": "shop-assistant"}))]
#[case("unreadable_query", "search_llmobs_spans", json!({"query": "@ml_app:"}))]
#[case("bad_time", "search_llmobs_spans", json!({"from": "yesterday"}))]
#[case("reversed_time", "search_llmobs_spans", json!({"from": "now", "to": "now-1d"}))]
#[case("bad_limit", "search_llmobs_spans", json!({"limit": "many"}))]
#[case("bad_tags", "search_llmobs_spans", json!({"tags": ["prod"]}))]
#[case("bad_cursor", "search_llmobs_spans", json!({"cursor": "page 2"}))]
#[case("bad_trace_cursor", "get_llmobs_trace", json!({"trace_id": TRACE, "cursor": "2"}))]
#[tokio::test]
async fn every_error_has_an_example_that_works(
    #[case] name: &str,
    #[case] tool: &str,
    #[case] arguments: Value,
) {
    let app = App::new().capture("01-py-sdk-manual-agentless");
    let error = app.refusal(tool, arguments).await;
    insta::assert_json_snapshot!(name, error);

    let example = &error["example"];
    let tool = example["tool"].as_str().expect("a call that works");
    app.call(tool, example["arguments"].clone()).await;
}

#[tokio::test]
async fn no_argument_value_panics() {
    let app = App::new().capture("01-py-sdk-manual-agentless");
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(18_446_744_073_709_551_615_u64),
        json!(""),
        json!("\u{0}"),
        json!("💥".repeat(500)),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({"a": {"b": []}}),
        json!("$"),
        json!("*"),
        json!("now-999999999999999999y"),
    ];
    for tool in llmobs_mcp::tools::all() {
        let schema = tool.input_schema();
        for key in schema["properties"].as_object().unwrap().keys() {
            for value in &values {
                let mut arguments = json!({"trace_id": TRACE, "span_id": "16135088022371463582",
                        "span_ids": ["16135088022371463582"], "field": "input"});
                arguments[key] = value.clone();
                // The answer or the error is one JSON object.
                let text = match app.text(tool.name, arguments).await {
                    Ok(text) => text,
                    Err(error) => error.to_json(),
                };
                assert!(serde_json::from_str::<Value>(&text).unwrap().is_object());
            }
        }
    }
}
