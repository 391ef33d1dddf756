//! The tool list: what a client receives before it calls a tool.

use std::sync::Arc;

use datadog_llmobs::{Hub, HubSettings, RouterTransport, Upstream};
use llmobs_authz::OpenGate;
use llmobs_mcp::server::{McpServer, ToolFilter, UpstreamInfo, Upstreams, serve_http};
use llmobs_mcp::tools;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The `tools` of a `tools/list` response.
async fn list_tools() -> Value {
    let nowhere = Arc::new(RouterTransport(axum::Router::new()));
    let hub = Hub::new(Upstream::Local, nowhere, HubSettings::default());
    let described = UpstreamInfo {
        site: None,
        url: None,
    };
    let server = McpServer::new(
        Upstreams::local(hub, false, described),
        ToolFilter::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    tokio::spawn(serve_http(server, Arc::new(OpenGate), listener, stop));
    let answer = datadog_llmobs::http_client()
        .build()
        .unwrap()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}))
        .send()
        .await
        .unwrap();
    let mut answer: Value = answer.json().await.unwrap();
    answer["result"]["tools"].take()
}

const TRACE_TOOLS: [&str; 7] = [
    "search_llmobs_spans",
    "get_llmobs_trace",
    "get_llmobs_span_details",
    "get_llmobs_span_content",
    "find_llmobs_error_spans",
    "expand_llmobs_spans",
    "get_llmobs_agent_loop",
];

#[tokio::test]
async fn tool_list_matches_its_snapshot() {
    insta::assert_json_snapshot!("tool_list", list_tools().await);
}

#[tokio::test]
async fn tool_list_costs_few_tokens() {
    let cost = |tools: &[&Value]| json!(tools).to_string().len().div_ceil(4);
    let listed = list_tools().await;
    let all: Vec<&Value> = listed.as_array().unwrap().iter().collect();
    let trace_tools: Vec<&Value> = all
        .iter()
        .copied()
        .filter(|tool| TRACE_TOOLS.contains(&tool["name"].as_str().unwrap()))
        .collect();
    let (total, tokens) = (cost(&all), cost(&trace_tools));
    println!(
        "tools/list: {} tools, about {total} tokens; the seven trace tools {tokens}",
        all.len()
    );
    assert!(tokens < 6_000, "the seven trace tools cost {tokens} tokens");
}

#[tokio::test]
async fn trace_tools_have_the_hosted_names_and_order() {
    let listed = list_tools().await;
    let listed = listed.as_array().unwrap().iter();
    let names: Vec<&str> = listed.map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names[..7], TRACE_TOOLS);
    assert_eq!(names.len(), tools::all().len());
}
