//! Maps one OpenTelemetry span to an LLM Observability span.
//!
//! [`CONVENTIONS`] names the attributes. An attribute without a field of its own becomes a tag; one
//! that a tag cannot hold (longer than 256 characters, a list or an object) is also stored in full
//! under `extra.otel`. Nothing is lost.

use serde_json::{Map, Value, json};

use super::content;
use super::convention::{Convention, FinishReasons};
use super::conventions::{CONVENTIONS, sorted_by_rank};
use super::decoded::{OtelEvent, OtelLink, OtelSpan};
use super::reader::AttributeReader;
use crate::intake::json_value::to_text;
use llmobs_core::model::{Span, SpanError, SpanId, SpanKind, SpanLink, Status, TraceId};

/// Longest tag value made from an attribute, in characters.
const MAX_TAG_CHARS: usize = 256;

/// OpenTelemetry's name for a service without a name.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Whether a span has an attribute or event of a convention, and so belongs to LLM Observability.
pub(super) fn is_llm_span(span: &OtelSpan) -> bool {
    let starts_with = |text: &str, marks: &[&str]| marks.iter().any(|mark| text.starts_with(mark));
    CONVENTIONS.into_iter().any(|convention| {
        let mut keys = span.attributes.keys();
        let mut events = span.events.iter();
        keys.any(|key| starts_with(key, convention.marks))
            || events.any(|event| starts_with(&event.name, convention.event_marks))
    })
}

/// Maps a span. `ml_app` is the application that the request names for all its spans.
pub(super) fn span_of(otel: OtelSpan, ml_app: Option<&str>) -> Span {
    let mut reader = AttributeReader::new(otel.attributes, otel.events);
    let service = text_in(&otel.resource, "service.name");
    let mut span = Span {
        apm_trace_id: Some(otel.trace_id.clone()),
        trace_id: TraceId::from(otel.trace_id),
        span_id: SpanId::from(otel.span_id),
        parent_id: otel.parent.map(SpanId::from),
        name: otel.name,
        start_ns: otel.start_ns,
        duration_ns: match otel.end_ns {
            // The span has not ended.
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
        UNKNOWN_SERVICE.clone_into(&mut span.ml_app);
        reader.warn("missing_ml_app");
    }
    if otel.dropped_count > 0 {
        reader.warn("sender_left_out_attributes");
    }
    span.kind = read_kind(&mut reader);
    if otel.failed {
        span.error = read_error(&mut reader, otel.status_message);
    }
    span.links = otel.links.into_iter().map(link_of).collect();
    read_tool(&mut reader, &mut span);
    read_session(&mut reader, &mut span);
    read_metadata(&mut reader, &mut span);
    content::read_event_provider(&mut reader);
    read_model(&mut reader, &mut span);
    content::read(&mut reader, &mut span);
    read_prefixed(&mut reader, &mut span);
    add_resource_tags(&otel.resource, &mut span);
    finish(reader, &otel.scope, span)
}

fn text_in(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key)
        .map(|value| to_text(value).into_owned())
        .filter(|text| !text.is_empty())
}

/// The kind, from the first kind attribute. A value that no convention lists stays as a tag.
fn read_kind(reader: &mut AttributeReader) -> SpanKind {
    for attribute in sorted_by_rank(|convention| convention.kind_rank)
        .into_iter()
        .flat_map(|convention| convention.kinds)
    {
        let Some(text) = reader.remove_text(attribute.key) else {
            continue;
        };
        let listed = attribute
            .values
            .iter()
            .find(|(value, _)| value.eq_ignore_ascii_case(&text));
        return match listed {
            Some((_, kind)) => kind.clone(),
            None => {
                reader.fields.insert(attribute.key, Value::String(text));
                SpanKind::Workflow
            }
        };
    }
    reader.warn("missing_span_kind");
    SpanKind::Workflow
}

/// The error, from the status and `error.type`, completed from the last exception event.
fn read_error(reader: &mut AttributeReader, message: String) -> Option<SpanError> {
    let at = reader
        .events
        .iter()
        .rposition(|event| event.name == "exception");
    let exception = at
        .map(|at| reader.events.remove(at).attributes)
        .unwrap_or_default();
    let from_exception = |key: &str| text_in(&exception, key).unwrap_or_default();
    let error = SpanError {
        error_type: reader
            .remove_text("error.type")
            .unwrap_or_else(|| from_exception("exception.type")),
        message: if message.is_empty() {
            from_exception("exception.message")
        } else {
            message
        },
        stack: from_exception("exception.stacktrace"),
    };
    (!error.is_empty()).then_some(error)
}

fn link_of(link: OtelLink) -> SpanLink {
    let without_dots = |(key, value): (String, Value)| (key.replace('.', "_"), value);
    SpanLink {
        span_id: link.span_id,
        trace_id: link.trace_id,
        attributes: link.attributes.into_iter().map(without_dots).collect(),
    }
}

fn read_tool(reader: &mut AttributeReader, span: &mut Span) {
    let mut names = CONVENTIONS.into_iter().map(|convention| convention.names);
    if let Some(name) = names.find_map(|keys| reader.remove_first_text(keys)) {
        span.name = name;
    }
    for (key, name) in CONVENTIONS
        .into_iter()
        .flat_map(|convention| convention.metadata)
    {
        if let Some(value) = reader.fields.remove(key) {
            span.metadata.entry(*name).or_insert(value);
        }
    }
}

fn read_model(reader: &mut AttributeReader, span: &mut Span) {
    span.model_provider = CONVENTIONS
        .into_iter()
        .find_map(|convention| reader.remove_first_text(convention.providers));
    span.model_name = CONVENTIONS
        .into_iter()
        .find_map(|convention| read_model_name(reader, convention))
        // A failed call may name the model among its parameters only.
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

fn read_model_name(reader: &mut AttributeReader, convention: &Convention) -> Option<String> {
    reader.remove_first_text(convention.models).or_else(|| {
        // Stays in place: all request parameters become metadata later.
        let requested = reader.fields.get(convention.requested_model?)?;
        Some(to_text(requested).into_owned())
    })
}

fn read_session(reader: &mut AttributeReader, span: &mut Span) {
    let conversation = CONVENTIONS
        .into_iter()
        .find_map(|convention| reader.remove_text(convention.conversation?));
    if let Some(id) = &conversation {
        span.metadata
            .insert("conversation_id".to_owned(), json!(id));
        span.tags.push(format!("conversation.id:{id}"));
    }
    span.session_id = conversation.or_else(|| {
        CONVENTIONS
            .into_iter()
            .find_map(|convention| reader.remove_first_text(convention.sessions))
    });
}

fn read_metadata(reader: &mut AttributeReader, span: &mut Span) {
    let reasons = CONVENTIONS.into_iter().find_map(|convention| {
        match convention.finish_reasons.as_ref()? {
            FinishReasons::List(key) => reader.fields.remove(key),
            FinishReasons::Single(key) => {
                let reason = reader.fields.remove(key)?;
                Some(Value::Array(vec![reason]))
            }
        }
    });
    if let Some(reasons) = reasons {
        span.metadata.insert("finish_reasons".to_owned(), reasons);
    }
    for convention in CONVENTIONS {
        // Later objects replace keys of earlier ones: Datadog's own comes last.
        for key in convention.metadata_objects {
            span.metadata.extend(reader.remove_object(key));
        }
    }
    for key in CONVENTIONS
        .into_iter()
        .flat_map(|convention| convention.tag_lists)
    {
        match reader.remove_json(key) {
            None => {}
            Some(Value::Array(tags)) => {
                let tags = tags.iter().map(|tag| to_text(tag).into_owned());
                span.tags.extend(tags);
            }
            Some(other) => reader.insert_unmapped(key, other),
        }
    }
}

/// Maps attributes by the prefix of their keys: metrics, and parameters of the model request.
fn read_prefixed(reader: &mut AttributeReader, span: &mut Span) {
    for (key, value) in std::mem::take(reader.fields.map_mut()) {
        if let Some(name) = metric_name(&key)
            && let Some(number) = number_of(&value)
        {
            span.metrics.entry(name).or_insert(number);
        } else if let Some(name) = without_prefix(&key, |convention| convention.metadata_prefix) {
            span.metadata.entry(name).or_insert(value);
        } else {
            reader.fields.insert(&key, value);
        }
    }
}

fn without_prefix(key: &str, prefix: fn(&Convention) -> Option<&'static str>) -> Option<&str> {
    CONVENTIONS
        .into_iter()
        .find_map(|convention| key.strip_prefix(prefix(convention)?))
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// The metric name of an attribute that belongs to a metric family.
fn metric_name(key: &str) -> Option<String> {
    let (family, rest) = CONVENTIONS
        .into_iter()
        .flat_map(|convention| convention.metrics)
        .find_map(|family| Some((family, key.strip_prefix(family.prefix)?)))?;
    let renamed = family.renames.iter().find(|(from, _)| *from == rest);
    Some(match renamed {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{}{}", rest.replace('.', "_"), family.suffix),
    })
}

fn add_resource_tags(resource: &Map<String, Value>, span: &mut Span) {
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
    let text = to_text(value);
    let truncated: String = text.chars().take(MAX_TAG_CHARS).collect();
    format!("{key}:{truncated}")
}

/// Turns the remaining attributes into tags, and stores under `extra.otel` what a tag truncates.
fn finish(reader: AttributeReader, scope: &str, mut span: Span) -> Span {
    let mut stored = reader.stored;
    let (rest, warnings) = reader.fields.into_parts();
    for (key, value) in rest {
        let fits_tag = match &value {
            Value::Array(_) | Value::Object(_) => false,
            other => to_text(other).chars().nth(MAX_TAG_CHARS).is_none(),
        };
        let name = without_prefix(&key, |convention| convention.tag_prefix).unwrap_or(&key);
        if !value.is_null() {
            span.tags.push(tag_of(name, &value));
        }
        if !fits_tag {
            stored.insert(key, value);
        }
    }
    let events: Vec<Value> = reader.events.iter().map(event_json).collect();
    let mut otel = Map::new();
    for (key, value) in [
        ("scope", Value::from(scope)),
        ("attributes", Value::Object(stored)),
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

fn event_json(event: &OtelEvent) -> Value {
    json!({"name": event.name, "time_ns": event.time_ns, "attributes": event.attributes})
}
