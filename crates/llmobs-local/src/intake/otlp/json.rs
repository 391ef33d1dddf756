//! Decodes OTLP JSON: ids in hexadecimal, 64-bit numbers as text or as numbers, enums as numbers or
//! by name, keys in camel case or in snake case as in the protocol's files.
//!
//! The decoder is written by hand. The `with-serde` types of `opentelemetry-proto` accept camel case
//! only, reject null, and report errors without the name of the field. A pass that rewrites bodies
//! for them has to visit every message type, as this decoder does.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::decoded::{
    Export, OtelEvent, OtelLink, OtelSpan, SpanIds, span_id, start_and_end_ns, trace_id,
};
use crate::http::ApiError;
use crate::intake::json_value::{from_bytes, from_float, type_name};

const EXAMPLE: &str = r#"the body must be {"resourceSpans":[{"resource":{"attributes":[…]},"scopeSpans":[{"spans":[…]}]}]}"#;

/// The status code "error", as a number and by name.
const STATUS_ERROR: (u64, &str) = (2, "STATUS_CODE_ERROR");

/// Decodes an export.
pub(super) fn decode(body: Value) -> Result<Export, ApiError> {
    let Value::Object(mut body) = body else {
        return Err(ApiError::bad_request(EXAMPLE));
    };
    let resources = list(&mut body, "resourceSpans", "resource_spans")
        .map_err(|_| ApiError::bad_request(EXAMPLE))?;
    let mut export = Export::default();
    let mut number = 0;
    for resource in resources {
        if let Err(reason) = read_resource_spans(resource, &mut export, &mut number) {
            export.refused.push(reason);
        }
    }
    Ok(export)
}

/// `number` counts the spans of the export, for error messages.
fn read_resource_spans(sent: Value, export: &mut Export, number: &mut usize) -> Result<(), String> {
    let mut sent = object(sent, "an entry of `resourceSpans`")?;
    let resource = match remove(&mut sent, "resource", "resource") {
        None => Map::new(),
        Some(resource) => attributes(&mut object(resource, "`resource`")?)?,
    };
    let resource = Arc::new(resource);
    for scope in list(&mut sent, "scopeSpans", "scope_spans")? {
        let mut scope = object(scope, "an entry of `scopeSpans`")?;
        let name = scope
            .get("scope")
            .and_then(|scope| scope.get("name"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        for span in list(&mut scope, "spans", "spans")? {
            match read_span(span, &resource, &name) {
                Ok(span) => export.spans.push(span),
                Err(reason) => export.refused.push(format!("span {number}: {reason}")),
            }
            *number += 1;
        }
    }
    Ok(())
}

fn read_span(
    span: Value,
    resource: &Arc<Map<String, Value>>,
    scope: &str,
) -> Result<OtelSpan, String> {
    let mut span = object(span, "a span")?;
    let ids = SpanIds::read(
        &id(&mut span, "traceId", "trace_id")?,
        &id(&mut span, "spanId", "span_id")?,
        &id(&mut span, "parentSpanId", "parent_span_id")?,
    )?;
    let (start_ns, end_ns) = start_and_end_ns(
        number(&mut span, "startTimeUnixNano", "start_time_unix_nano")?,
        number(&mut span, "endTimeUnixNano", "end_time_unix_nano")?,
    )?;
    let mut status = match remove(&mut span, "status", "status") {
        None => Map::new(),
        Some(status) => object(status, "`status`")?,
    };
    let mut dropped_count = 0_u64;
    for (camel, snake) in [
        ("droppedAttributesCount", "dropped_attributes_count"),
        ("droppedEventsCount", "dropped_events_count"),
        ("droppedLinksCount", "dropped_links_count"),
    ] {
        dropped_count = dropped_count.saturating_add(number(&mut span, camel, snake)?);
    }
    let events = list(&mut span, "events", "events")?;
    let links = list(&mut span, "links", "links")?;
    Ok(OtelSpan {
        trace_id: ids.trace_id,
        span_id: ids.span_id,
        parent: ids.parent,
        name: text(&mut span, "name")?,
        start_ns,
        end_ns,
        attributes: attributes(&mut span)?,
        events: events.into_iter().map(event_of).collect::<Result<_, _>>()?,
        links: links.into_iter().map(link_of).collect::<Result<_, _>>()?,
        failed: status.get("code").is_some_and(|code| {
            code.as_u64() == Some(STATUS_ERROR.0) || code.as_str() == Some(STATUS_ERROR.1)
        }),
        status_message: text(&mut status, "message")?,
        resource: resource.clone(),
        scope: scope.to_owned(),
        dropped_count,
    })
}

fn event_of(event: Value) -> Result<OtelEvent, String> {
    let mut event = object(event, "an event")?;
    Ok(OtelEvent {
        name: text(&mut event, "name")?,
        time_ns: number(&mut event, "timeUnixNano", "time_unix_nano")?,
        attributes: attributes(&mut event)?,
    })
}

fn link_of(link: Value) -> Result<OtelLink, String> {
    let mut link = object(link, "a link")?;
    Ok(OtelLink {
        trace_id: trace_id(&id(&mut link, "traceId", "trace_id")?).unwrap_or_default(),
        span_id: span_id(&id(&mut link, "spanId", "span_id")?).unwrap_or_default(),
        attributes: attributes(&mut link)?,
    })
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(format!(
            "{what} must be an object, not {}",
            type_name(&other)
        )),
    }
}

/// Removes a key in either case; null counts as absent.
fn remove(map: &mut Map<String, Value>, camel: &str, snake: &str) -> Option<Value> {
    map.swap_remove(camel)
        .or_else(|| map.swap_remove(snake))
        .filter(|value| !value.is_null())
}

fn list(map: &mut Map<String, Value>, camel: &str, snake: &str) -> Result<Vec<Value>, String> {
    match remove(map, camel, snake) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(format!(
            "`{camel}` must be a list, not {}",
            type_name(&other)
        )),
    }
}

fn text(map: &mut Map<String, Value>, key: &str) -> Result<String, String> {
    match remove(map, key, key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("`{key}` must be text, not {}", type_name(&other))),
    }
}

/// An unsigned integer, as a number or as text; absent is zero.
fn number(map: &mut Map<String, Value>, camel: &str, snake: &str) -> Result<u64, String> {
    match &remove(map, camel, snake) {
        None => return Ok(0),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    }
    .ok_or_else(|| format!("`{camel}` must be a whole number, for example \"1795223184108091166\""))
}

/// An id in hexadecimal; absent is empty.
fn id(map: &mut Map<String, Value>, camel: &str, snake: &str) -> Result<Vec<u8>, String> {
    match remove(map, camel, snake) {
        None => Some(Vec::new()),
        Some(Value::String(text)) => hex::decode(text).ok(),
        Some(_) => None,
    }
    .ok_or_else(|| format!("`{camel}` must be hexadecimal digits"))
}

fn attributes(map: &mut Map<String, Value>) -> Result<Map<String, Value>, String> {
    pairs(list(map, "attributes", "attributes")?)
}

fn pairs(items: Vec<Value>) -> Result<Map<String, Value>, String> {
    let mut attributes = Map::with_capacity(items.len());
    for item in items {
        let mut pair = object(item, "an attribute")?;
        let key = text(&mut pair, "key")?;
        let value = match remove(&mut pair, "value", "value") {
            None => Value::Null,
            Some(value) => value_of(object(value, "the `value` of an attribute")?)?,
        };
        attributes.insert(key, value);
    }
    Ok(attributes)
}

fn value_of(map: Map<String, Value>) -> Result<Value, String> {
    let Some((key, value)) = map.into_iter().next() else {
        return Ok(Value::Null);
    };
    let value = match (key.as_str(), value) {
        ("stringValue" | "string_value", Value::String(text)) => Some(Value::String(text)),
        ("boolValue" | "bool_value", Value::Bool(flag)) => Some(Value::Bool(flag)),
        ("intValue" | "int_value", Value::Number(number)) => number.as_i64().map(Value::from),
        ("intValue" | "int_value", Value::String(text)) => {
            text.parse::<i64>().ok().map(Value::from)
        }
        ("doubleValue" | "double_value", Value::Number(number)) => Some(Value::Number(number)),
        // NaN and infinities, which JSON cannot hold, are sent by name.
        ("doubleValue" | "double_value", Value::String(text)) => text.parse().ok().map(from_float),
        ("bytesValue" | "bytes_value", Value::String(text)) => {
            let standard = base64::engine::general_purpose::STANDARD;
            let bytes = standard.decode(text).ok();
            bytes.map(|bytes| from_bytes(&bytes))
        }
        ("arrayValue" | "array_value", Value::Object(mut inner)) => {
            let items = list(&mut inner, "values", "values")?;
            let items = items
                .into_iter()
                .map(|item| value_of(object(item, "a value in a list")?));
            Some(Value::Array(items.collect::<Result<_, _>>()?))
        }
        ("kvlistValue" | "kvlist_value", Value::Object(mut inner)) => {
            let items = list(&mut inner, "values", "values")?;
            Some(Value::Object(pairs(items)?))
        }
        _ => None,
    };
    value
        .ok_or_else(|| "the `value` of an attribute has another type than its key names".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn export(span: &Value) -> Export {
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span, 5, span]}]}]});
        decode(body).unwrap()
    }

    #[test]
    fn reads_every_attribute_type() {
        let span = json!({"traceId": "0AF7651916CD43DD8448EB211C80319C", "span_id": "b7ad6b7169203331",
            "startTimeUnixNano": 5, "endTimeUnixNano": "9", "status": {"code": 2}, "attributes": [
            {"key": "s", "value": {"stringValue": "x"}}, {"key": "i", "value": {"intValue": "-7"}},
            {"key": "j", "value": {"intValue": 8}}, {"key": "d", "value": {"doubleValue": 0.5}},
            {"key": "n", "value": {"doubleValue": "NaN"}}, {"key": "b", "value": {"boolValue": true}},
            {"key": "y", "value": {"bytesValue": "/wA="}}, {"key": "e", "value": {}},
            {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}},
            {"key": "m", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": 1}}]}}}]});
        let export = export(&span);
        assert_eq!(
            export.refused,
            ["span 1: a span must be an object, not a number"]
        );
        let span = &export.spans[0];
        assert_eq!(span.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.span_id, "13235353014750950193");
        assert_eq!((span.start_ns, span.end_ns, span.failed), (5, 9, true));
        assert_eq!(
            Value::Object(span.attributes.clone()),
            json!({"s": "x", "i": -7, "j": 8, "d": 0.5, "n": "NaN", "b": true,
                "y": {"$base64": "/wA="}, "e": null, "l": ["a"], "m": {"k": 1}})
        );
    }

    #[test]
    fn invalid_span_is_refused_with_field_name() {
        let good = json!({"traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331", "startTimeUnixNano": "5"});
        for (key, value, words) in [
            ("traceId", json!("xyz"), "`traceId`"),
            ("spanId", json!(5), "`spanId`"),
            ("startTimeUnixNano", json!(-1), "`startTimeUnixNano`"),
            ("startTimeUnixNano", json!(u64::MAX), "out of range"),
            ("attributes", json!({}), "`attributes`"),
            (
                "attributes",
                json!([{"key": "a", "value": {"intValue": "x"}}]),
                "type",
            ),
            ("events", json!([1]), "an event"),
            ("links", json!("none"), "`links`"),
            ("status", json!(2), "`status`"),
            ("name", json!(2), "`name`"),
        ] {
            let mut span = good.clone();
            span[key] = value;
            let refused = export(&span).refused;
            assert_eq!(refused.len(), 3, "{key}");
            assert!(refused[0].contains(words), "{refused:?}");
        }
        assert_eq!(export(&good).spans.len(), 2);
        for body in [json!([]), json!({"resourceSpans": 5})] {
            assert!(decode(body).is_err());
        }
    }
}
