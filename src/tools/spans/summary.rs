//! The short form of a span, and the objects that its long form shares with it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::number;
use crate::render::cut_middle;
use llmobs_core::model::{Evaluation, Io, ROOT_PARENT, Span, SpanId, SpanKind, TraceId};

/// How much of an input or output a list shows.
const PREVIEW_CHARS: usize = 200;
/// How many tags a row shows; what sends more is a mistake upstream.
const MAX_TAGS: usize = 60;

/// One row of a search.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    span_id: SpanId,
    trace_id: TraceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    apm_trace_id: Option<String>,
    parent_id: String,
    name: String,
    span_kind: SpanKind,
    ml_app: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    status: &'static str,
    start_ms: i64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_info: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Preview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Preview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

/// The start of a text.
#[derive(Debug, Clone, Serialize)]
struct Preview {
    preview: String,
}

impl Summary {
    /// The row of a span; `brief` leaves out tags, model and previews.
    pub(super) fn new(span: &Span, brief: bool, trace_url: Option<String>) -> Self {
        Self {
            span_id: span.span_id.clone(),
            trace_id: span.trace_id.clone(),
            apm_trace_id: span.apm_trace_id.clone(),
            parent_id: parent_id(span),
            name: cut_middle(&span.name, PREVIEW_CHARS),
            span_kind: span.kind.clone(),
            ml_app: span.ml_app.clone(),
            service: span.service.clone(),
            status: span.status.as_str(),
            start_ms: span.start_ms(),
            duration_ms: span.duration_ms(),
            session_id: span.session_id.clone(),
            tags: (!brief).then(|| tags(span)),
            llm_info: if brief { None } else { llm_info(span) },
            input: if brief { None } else { preview(&span.input) },
            output: if brief { None } else { preview(&span.output) },
            trace_url,
        }
    }
}

fn preview(io: &Io) -> Option<Preview> {
    io.text().map(|text| {
        let mut chars = text.chars();
        let start: String = chars.by_ref().take(PREVIEW_CHARS).collect();
        let more = chars.next().map_or("", |_| "…");
        Preview {
            preview: format!("{start}{more}"),
        }
    })
}

/// The parent's id as the wire writes it.
pub(super) fn parent_id(span: &Span) -> String {
    span.parent_id
        .as_ref()
        .map_or(ROOT_PARENT.to_owned(), ToString::to_string)
}

/// The tags, each of a length that a row can bear.
pub(super) fn tags(span: &Span) -> Vec<String> {
    let mut tags: Vec<String> = span
        .tags
        .iter()
        .take(MAX_TAGS)
        .map(|tag| cut_middle(tag, PREVIEW_CHARS))
        .collect();
    if span.tags.len() > MAX_TAGS {
        tags.push(format!("…[{} tags left out]…", span.tags.len() - MAX_TAGS));
    }
    tags
}

/// The model behind a span, if it called one: name, provider, tokens.
pub(super) fn llm_info(span: &Span) -> Option<Map<String, Value>> {
    let calls_model = matches!(span.kind, SpanKind::Llm | SpanKind::Embedding);
    if !calls_model && span.model_name.is_none() {
        return None;
    }
    let mut info = Map::new();
    for (key, value) in [
        ("model_name", &span.model_name),
        ("model_provider", &span.model_provider),
        ("model_version", &span.model_version),
    ] {
        if let Some(value) = value {
            info.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    for key in ["input_tokens", "output_tokens", "total_tokens"] {
        if let Some(value) = span.metric(key) {
            info.insert(key.to_owned(), number(value));
        }
    }
    (!info.is_empty()).then_some(info)
}

/// Metrics with whole numbers as whole numbers.
pub(super) fn metrics(span: &Span) -> Map<String, Value> {
    span.metrics
        .iter()
        .map(|(name, value)| (name.clone(), number(*value)))
        .collect()
}

/// Evaluations or feedback by label, as skills read them.
pub(super) fn evaluations(evaluations: &BTreeMap<String, Evaluation>) -> Map<String, Value> {
    evaluations
        .iter()
        .map(|(label, one)| (label.clone(), evaluation(one)))
        .collect()
}

fn evaluation(evaluation: &Evaluation) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    put("value", evaluation.value.clone());
    put(
        "assessment",
        evaluation
            .assessment
            .map(|assessment| assessment.as_str().into()),
    );
    put("reasoning", evaluation.reasoning.clone().map(Value::from));
    put(
        "eval_metric_type",
        Some(evaluation.metric_type.as_str().into()),
    );
    put("status", Some(evaluation.status.as_str().into()));
    put("error", evaluation.error.clone());
    put(
        "tags",
        (!evaluation.tags.is_empty()).then(|| evaluation.tags.clone().into()),
    );
    put(
        "timestamp_ms",
        (evaluation.timestamp_ms > 0).then(|| evaluation.timestamp_ms.into()),
    );
    Value::Object(map)
}
