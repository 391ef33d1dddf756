//! Test data: captured requests of SDKs from `fixtures/captures`, as spans.
//!
//! Other crates read the wire formats completely. This module reads only what the tests of the
//! analysis need.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::tree::TraceTree;
use crate::model::{AgentAttribution, Io, Span, SpanError, SpanId, SpanKind, Status, TraceId};

/// Names of all captures that hold spans.
pub(crate) const NAMES: [&str; 8] = [
    "01-py-sdk-manual-agentless",
    "02-py-sdk-manual-apm-v04-meta_struct",
    "03-py-sdk-manual-evp-proxy",
    "10-py-auto-langchain",
    "10-py-auto-langgraph",
    "10-py-auto-openai",
    "10-py-auto-openai_agents",
    "10-py-auto-pydantic_ai",
];

/// The traces of one capture, by id.
pub(crate) fn traces(name: &str) -> BTreeMap<TraceId, TraceTree> {
    let path = format!(
        "{}/../../fixtures/captures/{name}.json.zst",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let records: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    let mut by_trace: BTreeMap<TraceId, Vec<Arc<Span>>> = BTreeMap::new();
    for record in &records {
        let path = record["path"].as_str().unwrap();
        let spans = if path.ends_with("/llmobs") {
            read_llmobs_events(&record["body"])
        } else if path == "/v0.4/traces" {
            read_apm_traces(&record["body"])
        } else {
            continue;
        };
        for span in spans {
            by_trace
                .entry(span.trace_id.clone())
                .or_default()
                .push(Arc::new(span));
        }
    }
    by_trace
        .into_iter()
        .map(|(id, spans)| (id, TraceTree::build(&spans)))
        .collect()
}

/// The trees of one capture that hold a span of this name.
pub(crate) fn trace_with(name: &str, span_name: &str) -> TraceTree {
    traces(name)
        .into_values()
        .find(|tree| tree.nodes().any(|node| tree.span(node).name == span_name))
        .unwrap()
}

fn read_llmobs_events(body: &Value) -> Vec<Span> {
    body.as_array()
        .unwrap()
        .iter()
        .flat_map(|envelope| envelope["spans"].as_array().unwrap())
        .map(|event| {
            let mut span = read_span(event);
            span.span_id = text(&event["span_id"]).into();
            span.start_ns = event["start_ns"].as_i64().unwrap();
            span.duration_ns = event["duration"].as_i64().unwrap();
            if event["status"] == "error" {
                span.status = Status::Error;
            }
            span
        })
        .collect()
}

fn read_apm_traces(body: &Value) -> Vec<Span> {
    body.as_array()
        .unwrap()
        .iter()
        .flat_map(|trace| trace.as_array().unwrap())
        .filter(|apm| apm["meta_struct"]["_llmobs"].is_object())
        .map(|apm| {
            let mut span = read_span(&apm["meta_struct"]["_llmobs"]);
            span.span_id = apm["span_id"].to_string().into();
            span.start_ns = apm["start"].as_i64().unwrap();
            span.duration_ns = apm["duration"].as_i64().unwrap();
            if apm["error"] == 1 {
                span.status = Status::Error;
            }
            span
        })
        .collect()
}

fn read_span(event: &Value) -> Span {
    let meta = &event["meta"];
    Span {
        trace_id: text(&event["trace_id"]).into(),
        parent_id: SpanId::parse_parent(event["parent_id"].as_str()),
        name: text(&event["name"]),
        kind: SpanKind::from(text(&meta["span"]["kind"])),
        metrics: event["metrics"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)))
            .collect(),
        model_name: meta["model_name"].as_str().map(str::to_owned),
        error: meta["error"].as_object().map(|error| SpanError {
            error_type: text(&error["type"]),
            message: text(&error["message"]),
            stack: text(&error["stack"]),
        }),
        input: read_io(&meta["input"]),
        output: read_io(&meta["output"]),
        metadata: meta["metadata"].as_object().cloned().unwrap_or_default(),
        agent: meta["agent_attribution"]
            .as_object()
            .map(|agent| AgentAttribution {
                name: text(&agent["pagent_name"]),
                span_id: agent["pagent_span_id"].as_str().map(SpanId::from),
            }),
        ..Span::default()
    }
}

fn read_io(value: &Value) -> Io {
    let mut extra: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
    let mut list = |key: &str| match extra.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let messages = list("messages");
    let documents = list("documents");
    Io {
        value: extra.remove("value"),
        messages: messages.into_iter().map(crate::model::Message).collect(),
        documents,
        prompt: extra.remove("prompt"),
        extra,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
