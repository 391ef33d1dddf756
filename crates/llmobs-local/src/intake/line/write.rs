//! Writes spans and evaluations as lines.

use serde_json::{Map, Value, json};

use super::super::batch::Batch;
use super::read::{EXACT, read_body};
use crate::store::{EvaluationTarget, TargetedEvaluation};
use llmobs_core::model::{EvalStatus, Evaluation, EventKind, Io, ROOT_PARENT, Span};

/// A span as a body of `POST /api/intake/llm-obs/v1/trace/spans`, without a line break.
///
/// Evaluations of the span have lines of their own.
pub(crate) fn span_line(span: &Span) -> String {
    let mut span = span.clone();
    span.evaluations.clear();
    span.feedback.clear();
    let mut attributes = Map::new();
    insert_non_empty(&mut attributes, "ml_app", json!(span.ml_app));
    insert_non_empty(&mut attributes, "_dd.scope", json!(span.scope));
    attributes.insert("spans".to_owned(), json!([documented_span(&span)]));
    let body = body_of("span", &attributes);
    let is_same = |batch: Batch| batch.spans.as_slice() == [span.clone()];
    finish(body, is_same, || json!({"span": span}))
}

/// An evaluation or feedback as a body of `POST /api/intake/llm-obs/v2/eval-metric`, without a
/// line break.
pub(crate) fn evaluation_line(targeted: &TargetedEvaluation) -> String {
    let attributes = Map::from_iter([("metrics".to_owned(), json!([metric(targeted)]))]);
    let body = body_of("evaluation_metric", &attributes);
    let is_same = |batch: Batch| batch.evaluations.as_slice() == [targeted.clone()];
    finish(body, is_same, || json!({"evaluation": targeted}))
}

fn body_of(kind: &str, attributes: &Map<String, Value>) -> Value {
    json!({"data": {"type": kind, "attributes": attributes}})
}

/// Writes the line. Adds the exact item if reading the body would return a different one.
fn finish(mut body: Value, is_same: impl Fn(Batch) -> bool, exact: impl Fn() -> Value) -> String {
    let is_lossless =
        read_body(body.clone()).is_ok_and(|batch| batch.refused.is_empty() && is_same(batch));
    if !is_lossless
        && let Some(attributes) = body
            .get_mut("data")
            .and_then(|data| data.get_mut("attributes"))
            .and_then(Value::as_object_mut)
    {
        attributes.insert(EXACT.to_owned(), exact());
    }
    body.to_string()
}

/// Inserts a value unless it is empty.
fn insert_non_empty(map: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    if !empty {
        map.insert(key.to_owned(), value);
    }
}

/// Inserts entries whose keys are absent.
fn insert_absent(map: &mut Map<String, Value>, others: &Map<String, Value>) {
    for (key, value) in others {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn documented_span(span: &Span) -> Map<String, Value> {
    let parent = span.parent_id.as_ref().map(|id| id.as_str());
    let mut map = Map::new();
    map.insert("span_id".to_owned(), json!(span.span_id));
    map.insert("trace_id".to_owned(), json!(span.trace_id));
    map.insert("parent_id".to_owned(), json!(parent.unwrap_or(ROOT_PARENT)));
    map.insert("name".to_owned(), json!(span.name));
    map.insert("start_ns".to_owned(), json!(span.start_ns));
    map.insert("duration".to_owned(), json!(span.duration_ns));
    map.insert("status".to_owned(), json!(span.status.as_str()));
    insert_non_empty(&mut map, "session_id", json!(span.session_id));
    insert_non_empty(&mut map, "service", json!(span.service));
    insert_non_empty(&mut map, "apm_trace_id", json!(span.apm_trace_id));
    insert_non_empty(&mut map, "tags", json!(span.tags));
    insert_non_empty(&mut map, "metrics", json!(span.metrics));
    insert_non_empty(&mut map, "span_links", json!(span.links));
    if let Some(agent) = &span.agent {
        insert_non_empty(&mut map, "pagent_name", json!(agent.name));
        insert_non_empty(&mut map, "pagent_span_id", json!(agent.span_id));
    }
    insert_non_empty(&mut map, "collection_errors", json!(span.collection_errors));
    map.insert("meta".to_owned(), Value::Object(meta(span)));
    insert_absent(&mut map, &span.extra);
    map
}

fn meta(span: &Span) -> Map<String, Value> {
    let mut meta = Map::new();
    insert_non_empty(&mut meta, "kind", json!(span.kind.as_str()));
    if let Some(error) = &span.error {
        let error =
            json!({"type": error.error_type, "message": error.message, "stack": error.stack});
        insert_non_empty(&mut meta, "error", error);
    }
    insert_non_empty(&mut meta, "input", Value::Object(wrapped_io(&span.input)));
    insert_non_empty(&mut meta, "output", Value::Object(wrapped_io(&span.output)));
    if let Some(expected) = &span.expected_output {
        meta.insert("expected_output".to_owned(), expected.clone());
    }
    insert_non_empty(&mut meta, "metadata", json!(span.metadata));
    insert_non_empty(&mut meta, "tool_definitions", json!(span.tool_definitions));
    insert_non_empty(&mut meta, "model_name", json!(span.model_name));
    insert_non_empty(&mut meta, "model_provider", json!(span.model_provider));
    insert_non_empty(&mut meta, "model_version", json!(span.model_version));
    insert_non_empty(&mut meta, "intent", json!(span.intent));
    insert_absent(&mut meta, &span.meta_extra);
    meta
}

fn wrapped_io(io: &Io) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(value) = &io.value {
        map.insert("value".to_owned(), value.clone());
    }
    insert_non_empty(&mut map, "messages", json!(io.messages));
    insert_non_empty(&mut map, "documents", json!(io.documents));
    if let Some(prompt) = &io.prompt {
        map.insert("prompt".to_owned(), prompt.clone());
    }
    insert_absent(&mut map, &io.extra);
    map
}

fn metric(targeted: &TargetedEvaluation) -> Map<String, Value> {
    let evaluation = &targeted.evaluation;
    let mut map = target(targeted);
    map.insert("label".to_owned(), json!(evaluation.label));
    let metric_type = evaluation.metric_type.as_str();
    map.insert("metric_type".to_owned(), json!(metric_type));
    map.insert("timestamp_ms".to_owned(), json!(evaluation.timestamp_ms));
    if evaluation.event_kind == EventKind::Feedback {
        map.insert("event_kind".to_owned(), json!("feedback"));
    }
    if let Some(value) = &evaluation.value {
        map.insert(format!("{metric_type}_value"), value.clone());
    }
    insert_non_empty(&mut map, "ml_app", json!(targeted.ml_app));
    let assessment = evaluation.assessment.map(|assessment| assessment.as_str());
    insert_non_empty(&mut map, "assessment", json!(assessment));
    insert_non_empty(&mut map, "reasoning", json!(evaluation.reasoning));
    insert_status(&mut map, evaluation);
    insert_non_empty(&mut map, "tags", json!(evaluation.tags));
    insert_non_empty(&mut map, "metadata", json!(evaluation.metadata));
    insert_absent(&mut map, &evaluation.extra);
    map
}

fn insert_status(map: &mut Map<String, Value>, evaluation: &Evaluation) {
    if let Some(error) = &evaluation.error {
        map.insert("error".to_owned(), error.clone());
    }
    if evaluation.status != EvalStatus::Ok || evaluation.error.is_some() {
        map.insert("status".to_owned(), json!(evaluation.status.as_str()));
    }
}

/// The target: as `join_on` where the documentation defines it, otherwise as a single key.
fn target(targeted: &TargetedEvaluation) -> Map<String, Value> {
    let feedback = targeted.evaluation.event_kind == EventKind::Feedback;
    let (key, value) = match &targeted.target {
        EvaluationTarget::Span { trace_id, span_id } => {
            let mut ids = Map::new();
            ids.insert("span_id".to_owned(), json!(span_id));
            insert_non_empty(&mut ids, "trace_id", json!(trace_id));
            if feedback {
                return ids;
            }
            ("join_on", json!({"span": ids}))
        }
        EvaluationTarget::Tag { key, value } => {
            ("join_on", json!({"tag": {"key": key, "value": value}}))
        }
        EvaluationTarget::Trace(trace) => ("trace_id", json!(trace)),
        EvaluationTarget::Session(session) => ("session_id", json!(session)),
        EvaluationTarget::JoinKey(join) => ("feedback_join_key", json!(join)),
    };
    Map::from_iter([(key.to_owned(), value)])
}
