//! One span of any JSON dialect as a [`Span`].
//!
//! The dialects differ in where the kind and the error stand; all three spellings are read on
//! every route. A span is refused only when it cannot be placed: without ids, name or start. What
//! is there but cannot be mapped is kept as it came, in `extra` or `meta_extra`, and named in
//! `collection_errors`. Nothing is dropped.

use serde_json::{Map, Value};

use super::fields::{Fields, id_text, kind_of_json, text_of};
use super::io::io_of;
use llmobs_core::model::{
    AgentAttribution, Span, SpanError, SpanId, SpanKind, SpanLink, Status, TraceId,
};

/// What an envelope says for all its spans.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub(super) ml_app: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) scope: Option<String>,
    /// Keys of the envelope that are kept on each span.
    pub(super) extra: Map<String, Value>,
}

/// Longest id that is taken in, in bytes.
const MAX_ID: usize = 512;

/// Reads one span, or says in words that hold no text of the span why it cannot be kept.
pub(super) fn span_of(value: Value, defaults: &Defaults) -> Result<Span, String> {
    let Value::Object(map) = value else {
        return Err(format!(
            "a span must be an object, not {}",
            kind_of_json(&value)
        ));
    };
    let mut fields = Fields::new(map, "");
    let mut span = Span {
        trace_id: TraceId::from(required_id(&mut fields, "trace_id")?),
        span_id: SpanId::from(required_id(&mut fields, "span_id")?),
        parent_id: parent(&mut fields)?,
        name: match fields.take("name") {
            Some(Value::String(name)) => name,
            other => return Err(wrong("name", "text", other.as_ref())),
        },
        start_ns: start(&mut fields)?,
        duration_ns: duration(&mut fields)?,
        ..Span::default()
    };
    read_tags(&mut fields, &mut span, &defaults.tags);
    span.ml_app = fields
        .text("ml_app")
        .filter(|app| !app.is_empty())
        .or_else(|| span.tag("ml_app").map(str::to_owned))
        .or_else(|| defaults.ml_app.clone())
        .unwrap_or_default();
    if span.ml_app.is_empty() {
        fields.problem("missing_ml_app");
    }
    let some = |text: &String| !text.is_empty();
    span.session_id = fields
        .text("session_id")
        .filter(some)
        .or_else(|| span.tag("session_id").map(str::to_owned))
        .or_else(|| defaults.session_id.clone());
    span.service = fields
        .text("service")
        .filter(some)
        .or_else(|| span.tag("service").map(str::to_owned));
    read_apm(&mut fields, &mut span, defaults);
    read_metrics(&mut fields, &mut span);
    read_links(&mut fields, &mut span);
    span.agent = attribution(&mut fields);
    let status = fields.take("status");
    let meta = match fields.take("meta") {
        None => Map::new(),
        Some(Value::Object(meta)) => meta,
        other => return Err(wrong("meta", "an object", other.as_ref())),
    };
    let meta = read_meta(meta, &mut span);
    read_status(status, &mut fields, &mut span);
    let sent = fields.list("collection_errors").unwrap_or_default();
    let (extra, problems) = fields.rest();
    let (meta_extra, meta_problems) = meta.rest();
    span.collection_errors = sent
        .iter()
        .map(|note| text_of(note).into_owned())
        .chain(problems)
        .chain(meta_problems)
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

fn wrong(key: &str, wanted: &str, found: Option<&Value>) -> String {
    match found {
        None => format!("`{key}` is missing; it must be {wanted}"),
        Some(value) => format!("`{key}` must be {wanted}, not {}", kind_of_json(value)),
    }
}

fn required_id(fields: &mut Fields, key: &str) -> Result<String, String> {
    let found = fields.take(key);
    match found.as_ref().and_then(id_text) {
        Some(id) if id.is_empty() => Err(format!("`{key}` is empty")),
        Some(id) if id.len() > MAX_ID => Err(format!("`{key}` is longer than {MAX_ID} bytes")),
        Some(id) => Ok(id),
        None => Err(wrong(key, "text or a whole number", found.as_ref())),
    }
}

fn parent(fields: &mut Fields) -> Result<Option<SpanId>, String> {
    match fields.take("parent_id") {
        None => Ok(None),
        Some(value) => id_text(&value)
            .map(|id| SpanId::parse_parent(Some(&id)))
            .ok_or_else(|| wrong("parent_id", "text or a whole number", Some(&value))),
    }
}

fn start(fields: &mut Fields) -> Result<i64, String> {
    let found = fields.take("start_ns");
    let whole = |number: f64| {
        // Exactly representable and within i64: the comparison keeps the cast from saturating.
        (number.fract() == 0.0 && number.abs() < 9.2e18).then_some(number as i64)
    };
    match &found {
        Some(Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().filter(|_| !number.is_u64()).and_then(whole)),
        _ => None,
    }
    .ok_or_else(|| {
        let wanted = "a whole number of nanoseconds since 1970, for example 1795223184108091166";
        match &found {
            Some(Value::Number(_)) => format!("`start_ns` is out of range; it must be {wanted}"),
            other => wrong("start_ns", wanted, other.as_ref()),
        }
    })
}

/// Zero and below mean "still running" and are kept.
fn duration(fields: &mut Fields) -> Result<i64, String> {
    match fields.take("duration") {
        None => Ok(0),
        Some(Value::Number(number)) => Ok(number
            .as_i64()
            .unwrap_or_else(|| number.as_f64().unwrap_or_default().round() as i64)),
        other => Err(wrong("duration", "a number of nanoseconds", other.as_ref())),
    }
}

fn read_tags(fields: &mut Fields, span: &mut Span, common: &[String]) {
    match fields.take("tags") {
        None => {}
        Some(Value::Array(tags)) => {
            span.tags = tags.iter().map(|t| text_of(t).into_owned()).collect();
        }
        Some(Value::Object(tags)) => {
            span.tags = tags
                .iter()
                .map(|(key, value)| format!("{key}:{}", text_of(value)))
                .collect();
            span.tags.sort();
        }
        Some(other) => fields.unmapped("tags", other),
    }
    for tag in common {
        if !span.tags.contains(tag) {
            span.tags.push(tag.clone());
        }
    }
}

/// Datadog shows the application, the session and the service as tags too, wherever they stood.
pub(super) fn complete_tags(span: &mut Span) {
    let shown = [
        ("ml_app", Some(span.ml_app.clone())),
        ("session_id", span.session_id.clone()),
        ("service", span.service.clone()),
    ];
    for (key, value) in shown {
        if let Some(value) = value.filter(|value| !value.is_empty())
            && span.tag(key).is_none()
        {
            span.tags.push(format!("{key}:{value}"));
        }
    }
}

fn read_apm(fields: &mut Fields, span: &mut Span, defaults: &Defaults) {
    let of_dd = |dd: Option<&Value>, key: &str| {
        dd.and_then(|dd| dd.get(key))
            .and_then(id_text)
            .filter(|text| !text.is_empty())
    };
    let sent = fields.text("apm_trace_id");
    let dd = fields.peek("_dd");
    span.apm_trace_id = sent
        .or_else(|| of_dd(dd, "apm_trace_id"))
        .or_else(|| of_dd(dd, "trace_id"));
    span.scope = of_dd(dd, "scope").or_else(|| defaults.scope.clone());
}

fn read_metrics(fields: &mut Fields, span: &mut Span) {
    let metrics = match fields.take("metrics") {
        None => return,
        Some(Value::Object(metrics)) => metrics,
        Some(other) => return fields.unmapped("metrics", other),
    };
    let mut others = Map::new();
    for (name, value) in metrics {
        match value.as_f64() {
            Some(number) => {
                span.metrics.insert(name, number);
            }
            None if value.is_null() => {}
            None => {
                fields.problem(&format!("unmapped_metrics.{name}"));
                others.insert(name, value);
            }
        }
    }
    if !others.is_empty() {
        fields.put_back("metrics", Value::Object(others));
    }
}

fn read_links(fields: &mut Fields, span: &mut Span) {
    let Some(links) = fields.take("span_links") else {
        return;
    };
    let read = match &links {
        Value::Array(items) => items.iter().map(link_of).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match read {
        Some(read) => span.links = read,
        None => {
            // Those that can be read serve; all are kept.
            let items = links.as_array();
            span.links = items.into_iter().flatten().filter_map(link_of).collect();
            fields.unmapped("span_links", links);
        }
    }
}

fn link_of(link: &Value) -> Option<SpanLink> {
    let link = link.as_object()?;
    let known = ["span_id", "trace_id", "attributes"];
    if link.keys().any(|key| !known.contains(&key.as_str())) {
        return None;
    }
    let id = |key: &str| match link.get(key) {
        None | Some(Value::Null) => Some(String::new()),
        Some(value) => id_text(value),
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

/// The nearest agent, as a pair of keys.
fn attribution(fields: &mut Fields) -> Option<AgentAttribution> {
    let name = fields.text("pagent_name");
    let span_id = fields.text("pagent_span_id");
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
    for (key, side) in [("input", &mut span.input), ("output", &mut span.output)] {
        if let Some(value) = fields.take(key) {
            *side = io_of(value, raw, |at| {
                fields.problem(&format!("unmapped_meta.{key}.{at}"));
            });
        }
    }
    span.expected_output = fields.take("expected_output");
    match fields.take("metadata") {
        Some(Value::Object(metadata)) => span.metadata = metadata,
        Some(other) => fields.unmapped("metadata", other),
        None => {}
    }
    span.tool_definitions = fields.list("tool_definitions").unwrap_or_default();
    span.model_name = fields.text("model_name");
    span.model_provider = fields.text("model_provider");
    span.model_version = fields.text("model_version");
    span.intent = fields.text("intent");
    if let Some(Value::Object(sent)) = fields.take_if("agent_attribution", Value::is_object) {
        let mut inner = Fields::new(sent, "meta.agent_attribution.");
        span.agent = attribution(&mut inner).or(span.agent.take());
        fields.keep_rest("agent_attribution", inner);
    }
    fields
}

/// `meta.span.kind` (Python), `meta["span.kind"]` (JS) or `meta.kind` (HTTP API).
fn read_kind(fields: &mut Fields, span: &mut Span) {
    let nested = match fields.take_if("span", Value::is_object) {
        Some(Value::Object(sent)) => {
            let mut inner = Fields::new(sent, "meta.span.");
            let kind = inner.text("kind");
            fields.keep_rest("span", inner);
            kind
        }
        _ => None,
    };
    let kind = nested
        .or_else(|| fields.text("span.kind"))
        .or_else(|| fields.text("kind"))
        .filter(|kind| !kind.is_empty());
    match kind {
        Some(kind) => span.kind = SpanKind::from(kind),
        None => fields.problem("missing_span_kind"),
    }
}

/// `meta.error.{type,message,stack}` or the flat keys of the JS SDK.
fn read_error(fields: &mut Fields, span: &mut Span) {
    let mut error = SpanError::default();
    match fields.take("error") {
        Some(Value::Object(sent)) => {
            let mut inner = Fields::new(sent, "meta.error.");
            error = parts_of_error(&mut inner, "");
            fields.keep_rest("error", inner);
        }
        Some(Value::String(message)) => error.message = message,
        Some(other) => fields.unmapped("error", other),
        None => {}
    }
    let flat = parts_of_error(fields, "error.");
    let or = |nested: String, flat: String| if nested.is_empty() { flat } else { nested };
    let error = SpanError {
        error_type: or(error.error_type, flat.error_type),
        message: or(error.message, flat.message),
        stack: or(error.stack, flat.stack),
    };
    span.error = (!error.is_empty()).then_some(error);
}

fn parts_of_error(fields: &mut Fields, prefix: &str) -> SpanError {
    let mut part = |key: &str| fields.text(&format!("{prefix}{key}")).unwrap_or_default();
    SpanError {
        error_type: part("type"),
        message: part("message"),
        stack: part("stack"),
    }
}

/// The status as sent; a span that carries an error and no status has failed.
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
            fields.unmapped("status", other);
            Status::Ok
        }
    };
}
