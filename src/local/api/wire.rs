//! A span as the documented attributes, and the undocumented ones that fill their gaps.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::{Evaluation, Io, ROOT_PARENT, Span};

/// Content above this size is an attachment, which is left out on request.
const ATTACHMENT_BYTES: usize = 25 * 1024;

/// How much of a span is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Documented attributes only.
    pub(super) documented_only: bool,
    /// Content that counts as an attachment stands in place.
    pub(super) attachments: bool,
}

/// One entry of `data`.
pub(super) fn item(span: &Span, shape: Shape) -> Value {
    json!({
        // A span id is unique within its trace only.
        "id": format!("{}-{}", span.trace_id, span.span_id),
        "type": "span",
        "attributes": Value::Object(attributes(span, shape)),
    })
}

fn attributes(span: &Span, shape: Shape) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !empty {
            map.insert(key.to_owned(), value);
        }
    };
    put("span_id", json!(span.span_id));
    put("trace_id", json!(span.trace_id));
    let parent = span
        .parent_id
        .as_ref()
        .map_or(ROOT_PARENT, |id| id.as_str());
    put("parent_id", json!(parent));
    put("name", json!(span.name));
    put("span_kind", json!(span.kind.as_str()));
    put("status", json!(span.status.as_str()));
    put("ml_app", json!(span.ml_app));
    put("start_ns", json!(span.start_ns));
    put("duration", json!(span.duration_ns));
    put("tags", json!(span.tags));
    put("metadata", json!(span.metadata));
    put("metrics", json!(span.metrics));
    put("model_name", json!(span.model_name));
    put("model_provider", json!(span.model_provider));
    put("intent", json!(span.intent));
    put("input", side(span, "input", &span.input, shape));
    put("output", side(span, "output", &span.output, shape));
    put("tool_definitions", json!(span.tool_definitions));
    put("evaluation", judgements(&span.evaluations, shape));
    if shape.documented_only {
        return map;
    }
    put("feedback", judgements(&span.feedback, shape));
    put("error", error(span));
    put("session_id", json!(span.session_id));
    put("service", json!(span.service));
    put("apm_trace_id", json!(span.apm_trace_id));
    put("model_version", json!(span.model_version));
    put("expected_output", json!(span.expected_output));
    put("scope", json!(span.scope));
    put("collection_errors", json!(span.collection_errors));
    put("span_links", json!(span.links));
    if let Some(agent) = &span.agent {
        put(
            "agent_attribution",
            json!({"pagent_name": agent.name, "pagent_span_id": agent.span_id}),
        );
    }
    put("extra", json!(span.extra));
    put("meta_extra", json!(span.meta_extra));
    map
}

fn side(span: &Span, name: &str, io: &Io, shape: Shape) -> Value {
    let content = io_content(io, shape.documented_only);
    if !shape.attachments && content.to_string().len() > ATTACHMENT_BYTES {
        let key = format!("{}/{}/{name}", span.trace_id, span.span_id);
        return json!({"attachment_key": key});
    }
    content
}

/// The documented `value` is text. A value of another type is given as its JSON text, and as it
/// is under the undocumented `raw_value`.
fn io_content(io: &Io, documented_only: bool) -> Value {
    let mut map = Map::new();
    match &io.value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => {
            map.insert("value".to_owned(), json!(text));
        }
        Some(other) => {
            map.insert("value".to_owned(), json!(other.to_string()));
            if !documented_only {
                map.insert("raw_value".to_owned(), other.clone());
            }
        }
    }
    if !io.messages.is_empty() {
        map.insert("messages".to_owned(), json!(io.messages));
    }
    if documented_only {
        return Value::Object(map);
    }
    if !io.documents.is_empty() {
        map.insert("documents".to_owned(), json!(io.documents));
    }
    if let Some(prompt) = &io.prompt {
        map.insert("prompt".to_owned(), prompt.clone());
    }
    for (key, value) in &io.extra {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(map)
}

/// What went wrong, as the private endpoints write it too; null when nothing is known.
pub(super) fn error(span: &Span) -> Value {
    span.error.as_ref().map_or(
        Value::Null,
        |error| json!({"type": error.error_type, "message": error.message, "stack": error.stack}),
    )
}

fn judgements(judgements: &BTreeMap<String, Evaluation>, shape: Shape) -> Value {
    let entries = judgements
        .iter()
        .map(|(label, evaluation)| (label.clone(), judgement(evaluation, shape)));
    Value::Object(entries.collect())
}

fn judgement(evaluation: &Evaluation, shape: Shape) -> Value {
    let mut map = Map::new();
    map.insert(
        "eval_metric_type".to_owned(),
        json!(evaluation.metric_type.as_str()),
    );
    map.insert("status".to_owned(), json!(evaluation.status.as_str()));
    let assessment = evaluation.assessment.map(|verdict| verdict.as_str());
    let optional = [
        ("value", json!(evaluation.value)),
        ("assessment", json!(assessment)),
        ("reasoning", json!(evaluation.reasoning)),
        ("error", json!(evaluation.error)),
    ];
    for (key, value) in optional {
        if !value.is_null() {
            map.insert(key.to_owned(), value);
        }
    }
    if !evaluation.tags.is_empty() {
        map.insert("tags".to_owned(), json!(evaluation.tags));
    }
    if !evaluation.metadata.is_empty() {
        map.insert(
            "eval_metric_metadata".to_owned(),
            json!(evaluation.metadata),
        );
    }
    if !shape.documented_only {
        map.insert("timestamp_ms".to_owned(), json!(evaluation.timestamp_ms));
        if !evaluation.extra.is_empty() {
            map.insert("extra".to_owned(), json!(evaluation.extra));
        }
    }
    Value::Object(map)
}
