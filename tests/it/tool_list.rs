//! What a client sees of the tools before it calls one.

use llmobs_mcp::tools;
use serde_json::{Value, json};

fn listed() -> Value {
    let tools: Vec<Value> = tools::all()
        .iter()
        .map(|tool| {
            json!({
                "name": tool.name,
                "title": tool.title,
                "description": tool.description,
                "inputSchema": tool.input_schema(),
                "access": format!("{:?}", tool.access),
            })
        })
        .collect();
    Value::Array(tools)
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

#[test]
fn the_tool_list_is_a_contract() {
    insta::assert_json_snapshot!("tool_list", listed());
}

#[test]
fn the_tool_list_is_cheap() {
    let cost = |tools: &[&Value]| json!(tools).to_string().len().div_ceil(4);
    let listed = listed();
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
    assert!(
        tokens < 6_000,
        "the seven cost {tokens} tokens before anything is asked"
    );
}

#[test]
fn the_seven_trace_tools_keep_their_hosted_names_and_order() {
    let names: Vec<&str> = tools::all().iter().map(|tool| tool.name).collect();
    assert_eq!(names[..7], TRACE_TOOLS);
}
