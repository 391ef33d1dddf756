//! Reads a [`Span`] of any JSON dialect.
//!
//! The dialects differ in the position of the kind and the error; every route accepts all of them.
//! A span is refused only without ids, name or start. Values that cannot be mapped are stored as
//! they came, in `extra` or `meta_extra`, and named in `collection_errors`. Nothing is dropped.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::io::io_of;
use super::json_value::{id_to_text, to_text, type_name};
use llmobs_core::model::{
    AgentAttribution, Span, SpanError, SpanId, SpanKind, SpanLink, Status, TraceId,
};

/// Values of an envelope that apply to all its spans.
#[derive(Debug, Clone, Default)]
pub(super) struct SpanDefaults {
    pub(super) ml_app: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) scope: Option<String>,
    /// Further keys of the envelope, stored on each span.
    pub(super) extra: Map<String, Value>,
}

/// Longest accepted id, in bytes.
const MAX_ID_BYTES: usize = 512;

/// Reads one span. The error contains no text of the span, which is untrusted.
pub(super) fn span_of(value: Value, defaults: &SpanDefaults) -> Result<Span, String> {
    let Value::Object(map) = value else {
        return Err(format!(
            "a span must be an object, not {}",
            type_name(&value)
        ));
    };
    let mut fields = Fields::new(map, "");
    let mut span = Span {
        trace_id: TraceId::from(required_id(&mut fields, "trace_id")?),
        span_id: SpanId::from(required_id(&mut fields, "span_id")?),
        parent_id: parent(&mut fields)?,
        name: match fields.remove("name") {
            Some(Value::String(name)) => name,
            other => return Err(invalid("name", "text", other.as_ref())),
        },
        start_ns: start(&mut fields)?,
        duration_ns: duration(&mut fields)?,
        ..Span::default()
    };
    read_tags(&mut fields, &mut span, &defaults.tags);
    span.ml_app = fields
        .remove_text("ml_app")
        .filter(|app| !app.is_empty())
        .or_else(|| span.tag("ml_app").map(str::to_owned))
        .or_else(|| defaults.ml_app.clone())
        .unwrap_or_default();
    if span.ml_app.is_empty() {
        fields.report("missing_ml_app");
    }
    let is_non_empty = |text: &String| !text.is_empty();
    span.session_id = fields
        .remove_text("session_id")
        .filter(is_non_empty)
        .or_else(|| span.tag("session_id").map(str::to_owned))
        .or_else(|| defaults.session_id.clone());
    span.service = fields
        .remove_text("service")
        .filter(is_non_empty)
        .or_else(|| span.tag("service").map(str::to_owned));
    read_apm(&mut fields, &mut span, defaults);
    read_metrics(&mut fields, &mut span);
    read_links(&mut fields, &mut span);
    span.agent = attribution(&mut fields);
    let status = fields.remove("status");
    let meta = match fields.remove("meta") {
        None => Map::new(),
        Some(Value::Object(meta)) => meta,
        other => return Err(invalid("meta", "an object", other.as_ref())),
    };
    let meta = read_meta(meta, &mut span);
    read_status(status, &mut fields, &mut span);
    let sent = fields.remove_list("collection_errors").unwrap_or_default();
    let (extra, errors) = fields.into_parts();
    let (meta_extra, meta_errors) = meta.into_parts();
    span.collection_errors = sent
        .iter()
        .map(|error| to_text(error).into_owned())
        .chain(errors)
        .chain(meta_errors)
        .collect();
    span.extra = extra;
    for (key, value) in &defaults.extra {
        span.extra
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    span.meta_extra = meta_extra;
    complete_tags(&mut span);
    Ok(span)
}

fn invalid(key: &str, expected: &str, sent: Option<&Value>) -> String {
    match sent {
        None => format!("`{key}` is missing; it must be {expected}"),
        Some(value) => format!("`{key}` must be {expected}, not {}", type_name(value)),
    }
}

fn required_id(fields: &mut Fields, key: &str) -> Result<String, String> {
    let sent = fields.remove(key);
    match sent.as_ref().and_then(id_to_text) {
        Some(id) if id.is_empty() => Err(format!("`{key}` is empty")),
        Some(id) if id.len() > MAX_ID_BYTES => {
            Err(format!("`{key}` is longer than {MAX_ID_BYTES} bytes"))
        }
        Some(id) => Ok(id),
        None => Err(invalid(key, "text or a whole number", sent.as_ref())),
    }
}

fn parent(fields: &mut Fields) -> Result<Option<SpanId>, String> {
    match fields.remove("parent_id") {
        None => Ok(None),
        Some(value) => id_to_text(&value)
            .map(|id| SpanId::parse_parent(Some(&id)))
            .ok_or_else(|| invalid("parent_id", "text or a whole number", Some(&value))),
    }
}

fn start(fields: &mut Fields) -> Result<i64, String> {
    let sent = fields.remove("start_ns");
    let to_integer = |number: f64| {
        // Exactly representable and within i64: the comparison keeps the cast from saturating.
        (number.fract() == 0.0 && number.abs() < 9.2e18).then_some(number as i64)
    };
    match &sent {
        Some(Value::Number(number)) => number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|_| !number.is_u64())?;
            to_integer(number)
        }),
        _ => None,
    }
    .ok_or_else(|| {
        let expected = "a whole number of nanoseconds since 1970, for example 1795223184108091166";
        match &sent {
            Some(Value::Number(_)) => format!("`start_ns` is out of range; it must be {expected}"),
            other => invalid("start_ns", expected, other.as_ref()),
        }
    })
}

/// Zero and negative values mean that the span is still running, and are stored.
fn duration(fields: &mut Fields) -> Result<i64, String> {
    match fields.remove("duration") {
        None => Ok(0),
        Some(Value::Number(number)) => Ok(number
            .as_i64()
            .unwrap_or_else(|| number.as_f64().unwrap_or_default().round() as i64)),
        other => Err(invalid(
            "duration",
            "a number of nanoseconds",
            other.as_ref(),
        )),
    }
}

fn read_tags(fields: &mut Fields, span: &mut Span, common: &[String]) {
    match fields.remove("tags") {
        None => {}
        Some(Value::Array(tags)) => {
            span.tags = tags.iter().map(|t| to_text(t).into_owned()).collect();
        }
        Some(Value::Object(tags)) => {
            span.tags = tags
                .iter()
                .map(|(key, value)| format!("{key}:{}", to_text(value)))
                .collect();
            span.tags.sort();
        }
        Some(other) => fields.insert_unmapped("tags", other),
    }
    for tag in common {
        if !span.tags.contains(tag) {
            span.tags.push(tag.clone());
        }
    }
}

/// Adds tags for application, session and service, which Datadog also shows as tags.
pub(super) fn complete_tags(span: &mut Span) {
    let values = [
        ("ml_app", Some(span.ml_app.clone())),
        ("session_id", span.session_id.clone()),
        ("service", span.service.clone()),
    ];
    for (key, value) in values {
        if let Some(value) = value.filter(|value| !value.is_empty())
            && span.tag(key).is_none()
        {
            span.tags.push(format!("{key}:{value}"));
        }
    }
}

fn read_apm(fields: &mut Fields, span: &mut Span, defaults: &SpanDefaults) {
    let text_in = |dd: Option<&Value>, key: &str| {
        dd.and_then(|dd| dd.get(key))
            .and_then(id_to_text)
            .filter(|text| !text.is_empty())
    };
    let sent = fields.remove_text("apm_trace_id");
    let dd = fields.get("_dd");
    span.apm_trace_id = sent
        .or_else(|| text_in(dd, "apm_trace_id"))
        .or_else(|| text_in(dd, "trace_id"));
    span.scope = text_in(dd, "scope").or_else(|| defaults.scope.clone());
}

fn read_metrics(fields: &mut Fields, span: &mut Span) {
    let metrics = match fields.remove("metrics") {
        None => return,
        Some(Value::Object(metrics)) => metrics,
        Some(other) => return fields.insert_unmapped("metrics", other),
    };
    let mut others = Map::new();
    for (name, value) in metrics {
        match value.as_f64() {
            Some(number) => {
                span.metrics.insert(name, number);
            }
            None if value.is_null() => {}
            None => {
                fields.report(&format!("unmapped_metrics.{name}"));
                others.insert(name, value);
            }
        }
    }
    if !others.is_empty() {
        fields.insert("metrics", Value::Object(others));
    }
}

fn read_links(fields: &mut Fields, span: &mut Span) {
    let Some(links) = fields.remove("span_links") else {
        return;
    };
    let read = match &links {
        Value::Array(items) => items.iter().map(link_of).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match read {
        Some(read) => span.links = read,
        None => {
            // Valid links become links; the field is stored in full.
            let items = links.as_array();
            span.links = items.into_iter().flatten().filter_map(link_of).collect();
            fields.insert_unmapped("span_links", links);
        }
    }
}

fn link_of(link: &Value) -> Option<SpanLink> {
    let link = link.as_object()?;
    let mapped = ["span_id", "trace_id", "attributes"];
    if link.keys().any(|key| !mapped.contains(&key.as_str())) {
        return None;
    }
    let id = |key: &str| match link.get(key) {
        None | Some(Value::Null) => Some(String::new()),
        Some(value) => id_to_text(value),
    };
    Some(SpanLink {
        span_id: id("span_id")?,
        trace_id: id("trace_id")?,
        attributes: match link.get("attributes") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(attributes)) => attributes.clone(),
            Some(_) => return None,
        },
    })
}

/// The nearest agent, from its name and span id.
fn attribution(fields: &mut Fields) -> Option<AgentAttribution> {
    let name = fields.remove_text("pagent_name");
    let span_id = fields.remove_text("pagent_span_id");
    (name.is_some() || span_id.is_some()).then(|| AgentAttribution {
        name: name.unwrap_or_default(),
        span_id: SpanId::parse_parent(span_id.as_deref()),
    })
}

fn read_meta(meta: Map<String, Value>, span: &mut Span) -> Fields {
    let mut fields = Fields::new(meta, "meta.");
    read_kind(&mut fields, span);
    read_error(&mut fields, span);
    let raw = span.kind == SpanKind::Experiment;
    for (key, io) in [("input", &mut span.input), ("output", &mut span.output)] {
        if let Some(value) = fields.remove(key) {
            *io = io_of(value, raw, |inner| {
                fields.report(&format!("unmapped_meta.{key}.{inner}"));
            });
        }
    }
    span.expected_output = fields.remove("expected_output");
    match fields.remove("metadata") {
        Some(Value::Object(metadata)) => span.metadata = metadata,
        Some(other) => fields.insert_unmapped("metadata", other),
        None => {}
    }
    span.tool_definitions = fields.remove_list("tool_definitions").unwrap_or_default();
    span.model_name = fields.remove_text("model_name");
    span.model_provider = fields.remove_text("model_provider");
    span.model_version = fields.remove_text("model_version");
    span.intent = fields.remove_text("intent");
    if let Some(Value::Object(sent)) = fields.remove_if("agent_attribution", Value::is_object) {
        let mut inner = Fields::new(sent, "meta.agent_attribution.");
        span.agent = attribution(&mut inner).or(span.agent.take());
        fields.insert_rest("agent_attribution", inner);
    }
    fields
}

/// `meta.span.kind` (Python), `meta["span.kind"]` (JS) or `meta.kind` (HTTP API).
fn read_kind(fields: &mut Fields, span: &mut Span) {
    let nested = match fields.remove_if("span", Value::is_object) {
        Some(Value::Object(sent)) => {
            let mut inner = Fields::new(sent, "meta.span.");
            let kind = inner.remove_text("kind");
            fields.insert_rest("span", inner);
            kind
        }
        _ => None,
    };
    let kind = nested
        .or_else(|| fields.remove_text("span.kind"))
        .or_else(|| fields.remove_text("kind"))
        .filter(|kind| !kind.is_empty());
    match kind {
        Some(kind) => span.kind = SpanKind::from(kind),
        None => fields.report("missing_span_kind"),
    }
}

/// `meta.error.{type,message,stack}`, or the flat keys of the JS SDK.
fn read_error(fields: &mut Fields, span: &mut Span) {
    let mut error = SpanError::default();
    match fields.remove("error") {
        Some(Value::Object(sent)) => {
            let mut inner = Fields::new(sent, "meta.error.");
            error = remove_error(&mut inner, "");
            fields.insert_rest("error", inner);
        }
        Some(Value::String(message)) => error.message = message,
        Some(other) => fields.insert_unmapped("error", other),
        None => {}
    }
    let flat = remove_error(fields, "error.");
    let either = |nested: String, flat: String| if nested.is_empty() { flat } else { nested };
    let error = SpanError {
        error_type: either(error.error_type, flat.error_type),
        message: either(error.message, flat.message),
        stack: either(error.stack, flat.stack),
    };
    span.error = (!error.is_empty()).then_some(error);
}

fn remove_error(fields: &mut Fields, prefix: &str) -> SpanError {
    let mut text = |key: &str| {
        let text = fields.remove_text(&format!("{prefix}{key}"));
        text.unwrap_or_default()
    };
    SpanError {
        error_type: text("type"),
        message: text("message"),
        stack: text("stack"),
    }
}

/// The status as sent; a span with an error and without a status has failed.
fn read_status(status: Option<Value>, fields: &mut Fields, span: &mut Span) {
    let text = match &status {
        Some(Value::String(text)) => Some(text.to_ascii_lowercase()),
        _ => None,
    };
    span.status = match (text.as_deref(), status) {
        (Some("ok"), _) => Status::Ok,
        (Some("error"), _) => Status::Error,
        (_, None) if span.error.is_some() => Status::Error,
        (_, None) => Status::Ok,
        (_, Some(other)) => {
            fields.insert_unmapped("status", other);
            Status::Ok
        }
    };
}
