//! A span as a row of a search, and the objects that it shares with the details of a span.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::render::cut_middle;
use crate::tools::object::{JsonObject, number, text_preview};
use llmobs_core::model::{Evaluation, Io, ROOT_PARENT, Span, SpanKind};

/// Characters of a name or tag.
const MAX_TEXT_CHARS: usize = 200;
/// Tags of a row. Applications that send more do so by mistake.
const MAX_TAGS: usize = 60;

/// The row of a span; a brief one has no tags, model or previews.
pub(super) fn summary(span: &Span, brief: bool, trace_url: Option<String>) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("span_id", span.span_id.as_str());
    row.set("trace_id", span.trace_id.as_str());
    row.set_some("apm_trace_id", span.apm_trace_id.clone());
    row.set("parent_id", parent_id(span));
    row.set("name", cut_middle(&span.name, MAX_TEXT_CHARS));
    row.set("span_kind", span.kind.as_str());
    row.set("ml_app", span.ml_app.as_str());
    row.set_some("service", span.service.clone());
    row.set("status", span.status.as_str());
    row.set("start_ms", span.start_ms());
    row.set("duration_ms", span.duration_ms());
    row.set_some("session_id", span.session_id.clone());
    if !brief {
        row.set("tags", tags(span));
        row.set_some("llm_info", llm_info(span));
        row.set_some("input", io_preview(&span.input));
        row.set_some("output", io_preview(&span.output));
    }
    row.set_some("trace_url", trace_url);
    row
}

fn io_preview(io: &Io) -> Option<Value> {
    io.text()
        .map(|text| json!({"preview": text_preview(&text)}))
}

/// The parent's id in its wire form.
pub(super) fn parent_id(span: &Span) -> String {
    span.parent_id
        .as_ref()
        .map_or(ROOT_PARENT.to_owned(), ToString::to_string)
}

/// The tags, with bounded number and length.
pub(super) fn tags(span: &Span) -> Vec<String> {
    let tags = span.tags.iter().take(MAX_TAGS);
    let mut tags: Vec<String> = tags.map(|tag| cut_middle(tag, MAX_TEXT_CHARS)).collect();
    if span.tags.len() > MAX_TAGS {
        tags.push(format!("…[{} tags left out]…", span.tags.len() - MAX_TAGS));
    }
    tags
}

/// The model that a span called, if any: name, provider, tokens.
pub(super) fn llm_info(span: &Span) -> Option<Map<String, Value>> {
    let calls_model = matches!(span.kind, SpanKind::Llm | SpanKind::Embedding);
    if !calls_model && span.model_name.is_none() {
        return None;
    }
    let mut info = JsonObject::default();
    info.set_some("model_name", span.model_name.clone());
    info.set_some("model_provider", span.model_provider.clone());
    info.set_some("model_version", span.model_version.clone());
    for key in ["input_tokens", "output_tokens", "total_tokens"] {
        info.set_some(key, span.metric(key).map(number));
    }
    (!info.0.is_empty()).then_some(info.0)
}

/// The metrics. Whole numbers have no decimal point.
pub(super) fn metrics(span: &Span) -> Map<String, Value> {
    let metrics = span.metrics.iter();
    metrics
        .map(|(name, value)| (name.clone(), number(*value)))
        .collect()
}

/// Evaluations or feedback by label, with the keys that skills read.
pub(super) fn evaluations(evaluations: &BTreeMap<String, Evaluation>) -> Map<String, Value> {
    evaluations
        .iter()
        .map(|(label, value)| (label.clone(), evaluation(value).into()))
        .collect()
}

fn evaluation(evaluation: &Evaluation) -> JsonObject {
    let mut object = JsonObject::default();
    object.set_some("value", evaluation.value.clone());
    let assessment = evaluation.assessment;
    object.set_some(
        "assessment",
        assessment.map(|assessment| assessment.as_str()),
    );
    object.set_some("reasoning", evaluation.reasoning.clone());
    object.set("eval_metric_type", evaluation.metric_type.as_str());
    object.set("status", evaluation.status.as_str());
    object.set_some("error", evaluation.error.clone());
    object.set_unless_empty("tags", evaluation.tags.clone());
    object.set_unless_empty("timestamp_ms", evaluation.timestamp_ms.max(0));
    object
}
