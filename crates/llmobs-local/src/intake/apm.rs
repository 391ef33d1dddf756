//! The APM dialect, `PUT` and `POST /v0.4/traces`: the default of an SDK that found an Agent.
//!
//! An APM span may carry LLM Observability data as a MessagePack blob in `meta_struct._llmobs`.
//! Ids, start, duration and the error flag are on the APM span, all other data in the blob. APM
//! spans without the blob are accepted and not stored.

use std::collections::HashMap;

use rmpv::ValueRef;
use serde_json::{Map, Value};

use super::batch::Batch;
use super::json_value::{id_to_text, type_name};
use super::msgpack::{self, key_to_text, to_json};
use super::span::{SpanDefaults, span_of};
use crate::http::ApiError;

/// The key of the blob in `meta_struct`.
const BLOB: &str = "_llmobs";

/// Converts a MessagePack body to the JSON that [`read`] expects, with unpacked blobs and without
/// the APM data of other spans.
pub(super) fn unpack(body: &ValueRef<'_>) -> Result<Value, ApiError> {
    let ValueRef::Array(traces) = body else {
        return to_json(body);
    };
    let mut unpacked = Vec::with_capacity(traces.len());
    for trace in traces {
        unpacked.push(match trace {
            ValueRef::Array(spans) => {
                Value::Array(spans.iter().map(unpack_span).collect::<Result<_, _>>()?)
            }
            other => to_json(other)?,
        });
    }
    Ok(Value::Array(unpacked))
}

fn unpack_span(span: &ValueRef<'_>) -> Result<Value, ApiError> {
    let ValueRef::Map(entries) = span else {
        return to_json(span);
    };
    let mut map = Map::new();
    let mut has_blob = false;
    for (key, value) in entries {
        let key = key_to_text(key)?;
        let value = match value {
            ValueRef::Map(parts) if key == "meta_struct" => {
                let mut unpacked = Map::new();
                for (name, part) in parts {
                    let name = key_to_text(name)?;
                    has_blob |= name == BLOB;
                    if name == BLOB {
                        unpacked.insert(name, unpack_blob(part));
                    }
                }
                Value::Object(unpacked)
            }
            other => to_json(other)?,
        };
        map.insert(key, value);
    }
    if !has_blob {
        // A span without a blob may carry the upper half of the trace id.
        map.retain(|key, _| matches!(key.as_str(), "trace_id" | "meta"));
    }
    Ok(Value::Object(map))
}

/// A malformed blob becomes null, and [`read`] refuses its span.
fn unpack_blob(blob: &ValueRef<'_>) -> Value {
    match blob {
        ValueRef::Binary(bytes) => msgpack::parse(bytes).and_then(|value| to_json(&value)),
        other => to_json(other),
    }
    .unwrap_or_default()
}

pub(super) fn read(body: Value) -> Result<Batch, ApiError> {
    let Value::Array(traces) = body else {
        return Err(ApiError::bad_request(format!(
            "the body must be a list of traces, each a list of spans, not {}",
            type_name(&body)
        )));
    };
    let upper_halves = upper_halves(&traces);
    let mut batch = Batch::default();
    for (index, trace) in traces.into_iter().enumerate() {
        let Value::Array(spans) = trace else {
            batch
                .refused
                .push(format!("trace {index} must be a list of spans"));
            continue;
        };
        for (number, span) in spans.into_iter().enumerate() {
            match read_span(span, &upper_halves) {
                Some(Ok(span)) => batch.spans.push(span),
                Some(Err(reason)) => batch
                    .refused
                    .push(format!("trace {index}, span {number}: {reason}")),
                None => {}
            }
        }
    }
    Ok(batch)
}

/// The upper 64 bits of trace ids, by the lower 64. Only the first span of a chunk carries them.
fn upper_halves(traces: &[Value]) -> HashMap<u64, String> {
    traces
        .iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|span| {
            let half = span.get("meta")?.get("_dd.p.tid")?.as_str()?;
            let id = span.get("trace_id")?.as_u64()?;
            let hex = half.len() == 16 && half.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| (id, half.to_ascii_lowercase()))
        })
        .collect()
}

/// Reads a span; `None` if it has no blob.
fn read_span(
    span: Value,
    upper_halves: &HashMap<u64, String>,
) -> Option<Result<llmobs_core::model::Span, String>> {
    let Value::Object(mut apm) = span else {
        return Some(Err("a span must be an object".to_owned()));
    };
    let Some(Value::Object(mut parts)) = apm.remove("meta_struct") else {
        return None;
    };
    let blob = parts.remove(BLOB)?;
    let Value::Object(mut span) = blob else {
        return Some(Err(format!("`meta_struct.{BLOB}` is not valid msgpack")));
    };
    let apm_trace_id = apm.get("trace_id").and_then(Value::as_u64).map(|id| {
        // Like the SDKs: 32 hexadecimal digits, or decimal if the id has 64 bits only.
        upper_halves
            .get(&id)
            .map_or_else(|| id.to_string(), |upper| format!("{upper}{id:016x}"))
    });
    let failed = apm.get("error").and_then(Value::as_i64).unwrap_or(0) != 0;
    for (key, apm_key) in [
        ("span_id", "span_id"),
        ("start_ns", "start"),
        ("duration", "duration"),
    ] {
        if let Some(value) = apm.remove(apm_key) {
            span.insert(key.to_owned(), value);
        }
    }
    if let Some(id) = apm_trace_id {
        span.entry("trace_id")
            .or_insert_with(|| Value::from(id.clone()));
        span.insert("apm_trace_id".to_owned(), Value::from(id));
    }
    for key in ["service", "name"] {
        if let Some(value) = apm.remove(key) {
            span.entry(key).or_insert(value);
        }
    }
    span.entry("status")
        .or_insert_with(|| Value::from(if failed { "error" } else { "ok" }));
    tag_error(&mut span, failed);
    Some(span_of(Value::Object(span), &SpanDefaults::default()))
}

/// Adds the error tags that the SDKs send in the SDK dialect.
fn tag_error(span: &mut Map<String, Value>, failed: bool) {
    let error_type = span
        .get("meta")
        .and_then(|meta| meta.get("error"))
        .and_then(|error| error.get("type"))
        .and_then(id_to_text)
        .filter(|text| failed && !text.is_empty());
    if let Some(Value::Object(tags)) = span.get_mut("tags") {
        tags.entry("error")
            .or_insert_with(|| Value::from(u8::from(failed)));
        if let Some(error_type) = error_type {
            tags.entry("error_type")
                .or_insert_with(|| error_type.into());
        }
    }
}
