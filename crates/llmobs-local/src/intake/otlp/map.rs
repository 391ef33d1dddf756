//! One OpenTelemetry span as an LLM Observability span.
//!
//! Three conventions are read: OpenTelemetry GenAI (`gen_ai.*`), OpenLLMetry (`traceloop.*`,
//! `llm.request.type`, indexed `gen_ai.prompt.*`) and OpenInference (`openinference.*`, `llm.*`).
//! An attribute without a field of its own becomes a tag; one that is too long for a tag or is no
//! simple value is also kept whole under `extra.otel`. Nothing is lost.

use serde_json::{Map, Value, json};

use super::content::{self, Side};
use super::messages::parsed;
use super::wire::{Event, OtelSpan};
use crate::intake::fields::{Fields, text_of};
use llmobs_core::model::{Span, SpanError, SpanId, SpanKind, SpanLink, Status, TraceId};

/// Longest value of a tag that is made of an attribute, in characters.
const MAX_TAG: usize = 256;

/// Beginnings of attribute keys and event names by which a span is about a language model.
const MARKS: [&str; 5] = [
    "gen_ai.",
    "llm.",
    "openinference.",
    "traceloop.",
    "_dd.ml_obs.",
];

/// What OpenTelemetry itself calls a service that has no name.
const NAMELESS: &str = "unknown_service";

/// Beginning of the notes on what could not be mapped.
const WARNING: &str = "otel_warning_";

/// Whether a span is about a language model at all.
pub(super) fn is_ours(span: &OtelSpan) -> bool {
    let marked = |key: &str| MARKS.iter().any(|mark| key.starts_with(mark));
    span.attributes.keys().any(|key| marked(key))
        || span
            .events
            .iter()
            .any(|event| event.name.starts_with("gen_ai."))
}

/// A span while it is read: its attributes, and what no field takes.
pub(super) struct Reader {
    pub(super) fields: Fields,
    pub(super) events: Vec<Event>,
    /// Attributes that are kept whole beside the tags.
    kept: Map<String, Value>,
}

impl Reader {
    /// Takes an attribute as text; one that is no simple value stays and is noted.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.fields.take(key)? {
            value @ (Value::Array(_) | Value::Object(_)) => {
                self.warn(&format!("unmapped_{}", key.replace('.', "_")));
                self.fields.put_back(key, value);
                None
            }
            value => Some(text_of(&value).into_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// Takes the first of several attributes that is there.
    fn first(&mut self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.text(key))
    }

    /// Notes that something could not be mapped.
    pub(super) fn warn(&mut self, what: &str) {
        self.fields.problem(&format!("{WARNING}{what}"));
    }

    /// Keeps an attribute whole, without a tag.
    pub(super) fn keep(&mut self, key: &str, value: Value) {
        self.kept.insert(key.to_owned(), value);
    }

    /// Takes an attribute that is an object or the JSON text of one.
    fn object(&mut self, key: &str) -> Map<String, Value> {
        match self.fields.take(key).map(parsed) {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                self.warn(&format!("unmapped_{}", key.replace('.', "_")));
                self.fields.put_back(key, other);
                Map::new()
            }
        }
    }
}

/// Maps a span. `ml_app` is what the request says for all its spans.
pub(super) fn span_of(otel: OtelSpan, ml_app: Option<&str>) -> Span {
    let mut reader = Reader {
        fields: Fields::new(otel.attributes, ""),
        events: otel.events,
        kept: Map::new(),
    };
    let service = text_in(&otel.resource, "service.name");
    let mut span = Span {
        apm_trace_id: Some(otel.trace_id.clone()),
        trace_id: TraceId::from(otel.trace_id),
        span_id: SpanId::from(otel.span_id),
        parent_id: otel.parent.map(SpanId::from),
        name: otel.name,
        start_ns: otel.start_ns,
        duration_ns: match otel.end_ns {
            // It has not ended.
            0 => 0,
            end => end.saturating_sub(otel.start_ns).max(0),
        },
        ml_app: ml_app.map_or_else(|| service.clone().unwrap_or_default(), str::to_owned),
        service,
        status: if otel.failed {
            Status::Error
        } else {
            Status::Ok
        },
        ..Span::default()
    };
    if otel.end_ns != 0 && otel.end_ns < otel.start_ns {
        reader.warn("end_before_start");
    }
    if span.ml_app.is_empty() {
        NAMELESS.clone_into(&mut span.ml_app);
        reader.warn("missing_ml_app");
    }
    if otel.left_out > 0 {
        reader.warn("sender_left_out_attributes");
    }
    span.kind = kind_of(&mut reader);
    if otel.failed {
        span.error = error_of(&mut reader, otel.status_message);
    }
    span.links = otel.links.into_iter().map(link_of).collect();
    read_tool(&mut reader, &mut span);
    read_session(&mut reader, &mut span);
    read_metadata(&mut reader, &mut span);
    content::name_provider(&mut reader);
    read_model(&mut reader, &mut span);
    content::read(&mut reader, &mut span);
    read_families(&mut reader, &mut span);
    resource_tags(&otel.resource, &mut span);
    finish(reader, &otel.scope, span)
}

fn text_in(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key)
        .map(|value| text_of(value).into_owned())
        .filter(|text| !text.is_empty())
}

/// The kinds that each convention has a word for, by the attribute that says it, in the order in
/// which they are asked. Further words are those of workflows.
const KINDS: [(&str, &[(&str, SpanKind)]); 4] = [
    (
        "openinference.span.kind",
        &[
            ("llm", SpanKind::Llm),
            ("embedding", SpanKind::Embedding),
            ("tool", SpanKind::Tool),
            ("agent", SpanKind::Agent),
            ("retriever", SpanKind::Retrieval),
            ("chain", SpanKind::Workflow),
        ],
    ),
    (
        "gen_ai.operation.name",
        &[
            ("chat", SpanKind::Llm),
            ("generate_content", SpanKind::Llm),
            ("text_completion", SpanKind::Llm),
            ("completion", SpanKind::Llm),
            ("embeddings", SpanKind::Embedding),
            ("embedding", SpanKind::Embedding),
            ("execute_tool", SpanKind::Tool),
            ("invoke_agent", SpanKind::Agent),
            ("create_agent", SpanKind::Agent),
        ],
    ),
    (
        "traceloop.span.kind",
        &[
            ("agent", SpanKind::Agent),
            ("tool", SpanKind::Tool),
            ("task", SpanKind::Task),
            ("workflow", SpanKind::Workflow),
        ],
    ),
    (
        "llm.request.type",
        &[
            ("chat", SpanKind::Llm),
            ("completion", SpanKind::Llm),
            ("embedding", SpanKind::Embedding),
            ("rerank", SpanKind::Retrieval),
        ],
    ),
];

/// The kind, by the first convention that says one. A word that none has is kept as a tag.
fn kind_of(reader: &mut Reader) -> SpanKind {
    for (key, words) in KINDS {
        let Some(word) = reader.text(key) else {
            continue;
        };
        let known = words
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&word));
        return match known {
            Some((_, kind)) => kind.clone(),
            None => {
                reader.fields.put_back(key, Value::String(word));
                SpanKind::Workflow
            }
        };
    }
    reader.warn("missing_span_kind");
    SpanKind::Workflow
}

/// What went wrong: the status and the error's type, completed from the last exception recorded.
fn error_of(reader: &mut Reader, message: String) -> Option<SpanError> {
    let at = reader
        .events
        .iter()
        .rposition(|event| event.name == "exception");
    let exception = at
        .map(|at| reader.events.remove(at).attributes)
        .unwrap_or_default();
    let of_exception = |key: &str| text_in(&exception, key).unwrap_or_default();
    let error = SpanError {
        error_type: reader
            .text("error.type")
            .unwrap_or_else(|| of_exception("exception.type")),
        message: if message.is_empty() {
            of_exception("exception.message")
        } else {
            message
        },
        stack: of_exception("exception.stacktrace"),
    };
    (!error.is_empty()).then_some(error)
}

fn link_of(link: super::wire::Link) -> SpanLink {
    let plain = |(key, value): (String, Value)| (key.replace('.', "_"), value);
    SpanLink {
        span_id: link.span_id,
        trace_id: link.trace_id,
        attributes: link.attributes.into_iter().map(plain).collect(),
    }
}

fn read_tool(reader: &mut Reader, span: &mut Span) {
    if let Some(name) = reader.text("gen_ai.tool.name") {
        span.name = name;
    }
    for (key, name) in [
        ("gen_ai.tool.call.id", "tool_call_id"),
        ("gen_ai.tool.description", "tool_description"),
        ("gen_ai.tool.type", "tool_type"),
        ("tool_call.id", "tool_call_id"),
        ("tool.id", "tool_call_id"),
        ("tool.name", "tool_name"),
        ("tool.description", "tool_description"),
        ("tool.parameters", "tool_parameters"),
    ] {
        if let Some(value) = reader.fields.take(key) {
            span.metadata.entry(name).or_insert(value);
        }
    }
}

fn read_model(reader: &mut Reader, span: &mut Span) {
    span.model_provider = reader.first(&[
        "gen_ai.provider.name",
        "gen_ai.system",
        "llm.provider",
        "llm.system",
    ]);
    // The model asked for is kept in the metadata too, with all of the request.
    let asked = reader.fields.peek("gen_ai.request.model").map(text_of);
    let asked = asked.map(std::borrow::Cow::into_owned);
    span.model_name = reader
        .first(&["gen_ai.response.model"])
        .or(asked)
        .or_else(|| reader.first(&["llm.model_name", "embedding.model_name"]))
        // A call that failed may name the model among its parameters only.
        .or_else(|| text_in(&span.metadata, "model"));
    if matches!(span.kind, SpanKind::Llm | SpanKind::Embedding) {
        for (field, what) in [
            (&mut span.model_provider, "missing_model_provider"),
            (&mut span.model_name, "missing_model_name"),
        ] {
            if field.is_none() {
                *field = Some("unknown".to_owned());
                reader.warn(what);
            }
        }
    }
}

fn read_session(reader: &mut Reader, span: &mut Span) {
    let conversation = reader.text("gen_ai.conversation.id");
    if let Some(id) = &conversation {
        let named = json!(id);
        span.metadata.insert("conversation_id".to_owned(), named);
        span.tags.push(format!("conversation.id:{id}"));
    }
    span.session_id = conversation
        .or_else(|| reader.first(&["session.id", "traceloop.association.properties.session_id"]));
}

fn read_metadata(reader: &mut Reader, span: &mut Span) {
    let one = |reason| Value::Array(vec![reason]);
    let reasons = match reader.fields.take("gen_ai.response.finish_reasons") {
        None => reader.fields.take("llm.finish_reason").map(one),
        several => several,
    };
    if let Some(reasons) = reasons {
        span.metadata.insert("finish_reasons".to_owned(), reasons);
    }
    for key in [
        "llm.invocation_parameters",
        "embedding.invocation_parameters",
        "metadata",
        "_dd.ml_obs.metadata",
    ] {
        // The last one named wins: it is meant for LLM Observability.
        span.metadata.extend(reader.object(key));
    }
    match reader.fields.take("tag.tags").map(parsed) {
        None => {}
        Some(Value::Array(tags)) => {
            let tags = tags.iter().map(|tag| text_of(tag).into_owned());
            span.tags.extend(tags);
        }
        Some(other) => {
            reader.warn("unmapped_tag_tags");
            reader.fields.put_back("tag.tags", other);
        }
    }
}

/// Attributes that are mapped by the beginning of their keys: numbers, and what was asked of the
/// model.
fn read_families(reader: &mut Reader, span: &mut Span) {
    for (key, value) in std::mem::take(reader.fields.map_mut()) {
        if let Some(name) = metric_name(&key)
            && let Some(number) = number_of(&value)
        {
            span.metrics.entry(name).or_insert(number);
        } else if let Some(name) = key.strip_prefix("gen_ai.request.") {
            span.metadata.entry(name).or_insert(value);
        } else {
            reader.fields.put_back(&key, value);
        }
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// The metric of an attribute, if it is one. Prompt and completion tokens keep their own names.
fn metric_name(key: &str) -> Option<String> {
    let (name, family) = [
        ("gen_ai.usage.", ""),
        ("llm.usage.", ""),
        ("llm.token_count.", "_tokens"),
        ("llm.cost.", "_cost"),
    ]
    .into_iter()
    .find_map(|(prefix, family)| Some((key.strip_prefix(prefix)?, family)))?;
    let named = match (family, name) {
        ("_tokens", "prompt_details.cache_read")
        | ("", "cache_read.input_tokens" | "cache_read_input_tokens") => "cache_read_input_tokens",
        ("_tokens", "prompt_details.cache_write")
        | ("", "cache_creation.input_tokens" | "cache_creation_input_tokens") => {
            "cache_write_input_tokens"
        }
        ("_tokens", "completion_details.reasoning")
        | ("", "reasoning.output_tokens" | "reasoning_tokens") => "reasoning_output_tokens",
        ("_cost", "prompt") => "input_cost",
        ("_cost", "completion") => "output_cost",
        _ => return Some(format!("{}{family}", name.replace('.', "_"))),
    };
    Some(named.to_owned())
}

fn resource_tags(resource: &Map<String, Value>, span: &mut Span) {
    for (key, value) in resource {
        let name = match key.as_str() {
            "service.name" => "service",
            "service.version" => "version",
            "deployment.environment.name" | "deployment.environment" => "env",
            "telemetry.sdk.language" => "language",
            other => other,
        };
        span.tags.push(tag_of(name, value));
    }
    span.tags.push("source:otel".to_owned());
}

fn tag_of(key: &str, value: &Value) -> String {
    let text = text_of(value);
    let cut: String = text.chars().take(MAX_TAG).collect();
    format!("{key}:{cut}")
}

/// What is left becomes tags, and `extra.otel` keeps whole what a tag does not show.
fn finish(reader: Reader, scope: &str, mut span: Span) -> Span {
    let mut kept = reader.kept;
    let (rest, warnings) = reader.fields.rest();
    for (key, value) in rest {
        let whole = match &value {
            Value::Array(_) | Value::Object(_) => false,
            other => text_of(other).chars().nth(MAX_TAG).is_none(),
        };
        let name = key.strip_prefix("gen_ai.").unwrap_or(&key);
        if !value.is_null() {
            span.tags.push(tag_of(name, &value));
        }
        if !whole {
            kept.insert(key, value);
        }
    }
    let events: Vec<Value> = reader.events.iter().map(event_json).collect();
    let mut otel = Map::new();
    for (key, value) in [
        ("scope", Value::from(scope)),
        ("attributes", Value::Object(kept)),
        ("events", Value::Array(events)),
    ] {
        let empty = match &value {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            other => other == "",
        };
        if !empty {
            otel.insert(key.to_owned(), value);
        }
    }
    if !otel.is_empty() {
        span.extra.insert("otel".to_owned(), Value::Object(otel));
    }
    span.collection_errors = warnings;
    crate::intake::span::complete_tags(&mut span);
    span.tags.sort();
    span.tags.dedup();
    span
}

fn event_json(event: &Event) -> Value {
    json!({"name": event.name, "time_ns": event.time_ns, "attributes": event.attributes})
}

/// The two sides of a span, for [`content`].
pub(super) fn sides(span: &mut Span) -> [(Side, &mut llmobs_core::model::Io); 2] {
    [
        (Side::Input, &mut span.input),
        (Side::Output, &mut span.output),
    ]
}
