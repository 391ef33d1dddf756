//! Builders of spans for the tests of loops.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::SpanError;

/// Builds a span.
pub(super) struct SpanBuilder(pub(super) Span);

pub(super) fn span(
    id: &str,
    parent: &str,
    kind: SpanKind,
    start_ms: i64,
    end_ms: i64,
) -> SpanBuilder {
    SpanBuilder(Span {
        trace_id: "t".into(),
        span_id: id.into(),
        parent_id: SpanId::parse_parent(Some(parent)),
        name: id.to_owned(),
        kind,
        start_ns: start_ms * 1_000_000,
        duration_ns: (end_ms - start_ms) * 1_000_000,
        ..Span::default()
    })
}

pub(super) fn llm(id: &str, parent: &str, start_ms: i64, end_ms: i64) -> SpanBuilder {
    span(id, parent, SpanKind::Llm, start_ms, end_ms).tokens(10.0)
}

pub(super) fn tool(id: &str, name: &str, parent: &str, start_ms: i64, end_ms: i64) -> SpanBuilder {
    span(id, parent, SpanKind::Tool, start_ms, end_ms).name(name)
}

pub(super) fn agent(id: &str, parent: &str, start_ms: i64, end_ms: i64) -> SpanBuilder {
    span(id, parent, SpanKind::Agent, start_ms, end_ms)
}

impl SpanBuilder {
    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.name = name.to_owned();
        self
    }

    pub(super) fn tokens(mut self, count: f64) -> Self {
        for key in ["input_tokens", "output_tokens"] {
            self.0.metrics.insert(key.to_owned(), count);
        }
        self
    }

    pub(super) fn input(mut self, value: Value) -> Self {
        match value {
            Value::Array(_) => self.0.input.messages = serde_json::from_value(value).unwrap(),
            value => self.0.input.value = Some(value),
        }
        self
    }

    pub(super) fn output(mut self, value: Value) -> Self {
        match value {
            Value::Array(_) => self.0.output.messages = serde_json::from_value(value).unwrap(),
            value => self.0.output.value = Some(value),
        }
        self
    }

    /// Adds a message that requests tools, each with name, arguments and id.
    pub(super) fn requests(self, calls: &[(&str, Value, &str)]) -> Self {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(name, arguments, id)| json!({"name": name, "arguments": arguments, "tool_id": id}))
            .collect();
        self.output(json!([{"role": "assistant", "content": "", "tool_calls": calls}]))
    }

    pub(super) fn text_output(self, text: &str) -> Self {
        self.output(json!([{"role": "assistant", "content": text}]))
    }

    pub(super) fn fails(mut self, message: &str) -> Self {
        self.0.status = Status::Error;
        self.0.error = Some(SpanError {
            message: message.to_owned(),
            ..SpanError::default()
        });
        self
    }

    pub(super) fn meta(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.insert(key.to_owned(), value.into());
        self
    }
}

pub(super) fn tree(spans: Vec<SpanBuilder>) -> TraceTree {
    let spans: Vec<_> = spans.into_iter().map(|build| Arc::new(build.0)).collect();
    TraceTree::build(&spans)
}

pub(super) fn from_start<'t>(tree: &'t TraceTree, id: &str) -> AgentLoop<'t> {
    agent_loop(tree, tree.find(id))
}

pub(super) fn ids<'t>(result: &AgentLoop<'t>) -> Vec<&'t str> {
    let ids = result.iterations.iter();
    ids.map(|iteration| iteration.span_id.as_str()).collect()
}

/// The calls of each iteration as `tool span = result`.
pub(super) fn call_summaries(result: &AgentLoop<'_>) -> Vec<Vec<String>> {
    let calls = |iteration: &Iteration<'_>| {
        let calls = iteration.tool_calls.iter();
        calls
            .map(|call| {
                let span = call.span_id.map_or("-", SpanId::as_str);
                let result = call.result.as_deref().unwrap_or("-");
                let unrequested = if call.asked_by_model {
                    ""
                } else {
                    " unrequested"
                };
                format!("{span} = {result}{unrequested}")
            })
            .collect()
    };
    result.iterations.iter().map(calls).collect()
}
