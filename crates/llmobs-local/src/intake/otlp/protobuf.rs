//! Decodes OTLP protobuf.
//!
//! An empty span has two bytes on the wire and hundreds in memory. The decoder therefore counts
//! messages before it allocates any, and refuses a body with too many. Spans are decoded one by one,
//! so that an invalid span does not affect others.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value};

use super::decoded::{
    Export, OtelEvent, OtelLink, OtelSpan, SpanIds, span_id, start_and_end_ns, trace_id,
};
use crate::http::{ApiError, MAX_DEPTH};
use crate::intake::json_value::{from_bytes, from_float};
use crate::values::{MAX_VALUES, too_many_values};

/// An export with encoded spans.
#[derive(Clone, PartialEq, prost::Message)]
struct RawExport {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<RawResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<RawScope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawScope {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

/// Decodes an export.
pub(super) fn decode(body: &Bytes) -> Result<Export, ApiError> {
    let mut count = 0;
    check_messages(MessageType::Export, body, 0, &mut count)?;
    let raw = RawExport::decode(body.clone()).map_err(|error| invalid(&error.to_string()))?;
    let mut export = Export::default();
    let mut number = 0_usize;
    for raw_resource in raw.resources {
        let resource = Arc::new(map_of(raw_resource.resource.unwrap_or_default().attributes));
        for scope in raw_resource.scopes {
            let name = scope.scope.unwrap_or_default().name;
            for span in scope.spans {
                let decoded = Span::decode(span)
                    .map_err(|error| format!("is not a valid message: {error}"))
                    .and_then(|span| span_of(span, &resource, &name));
                match decoded {
                    Ok(span) => export.spans.push(span),
                    Err(reason) => export.refused.push(format!("span {number}: {reason}")),
                }
                number += 1;
            }
        }
    }
    Ok(export)
}

fn invalid(reason: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the request body is not a valid ExportTraceServiceRequest: {reason}"
    ))
}

/// Message types of an export, as far as they contain other messages.
#[derive(Debug, Clone, Copy)]
enum MessageType {
    Export,
    ResourceSpans,
    /// Its attributes are in field 1.
    Resource,
    ScopeSpans,
    /// A scope or an event: attributes are in field 3.
    ScopeOrEvent,
    /// Its attributes are in field 4.
    Link,
    Span,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
    /// A message without nested messages.
    Leaf,
}

impl MessageType {
    /// The type of a nested message; `None` for other fields.
    fn nested(self, field: u32) -> Option<MessageType> {
        Some(match (self, field) {
            (MessageType::Export, 1) => MessageType::ResourceSpans,
            (MessageType::ResourceSpans, 1) => MessageType::Resource,
            (MessageType::ResourceSpans, 2) => MessageType::ScopeSpans,
            (MessageType::ScopeSpans, 1) | (MessageType::Span, 11) => MessageType::ScopeOrEvent,
            (MessageType::ScopeSpans, 2) => MessageType::Span,
            (MessageType::Span, 13) => MessageType::Link,
            (MessageType::Span, 15) | (MessageType::Resource, 3) => MessageType::Leaf,
            (MessageType::Resource | MessageType::KeyValueList, 1)
            | (MessageType::ScopeOrEvent, 3)
            | (MessageType::Link, 4)
            | (MessageType::Span, 9) => MessageType::KeyValue,
            (MessageType::KeyValue, 2) | (MessageType::ArrayValue, 1) => MessageType::AnyValue,
            (MessageType::AnyValue, 5) => MessageType::ArrayValue,
            (MessageType::AnyValue, 6) => MessageType::KeyValueList,
            _ => return None,
        })
    }
}

/// Counts the nested messages of an encoded message. Refuses truncated bodies, and bodies with too
/// many messages or too deep nesting.
fn check_messages(
    message: MessageType,
    mut body: &[u8],
    depth: usize,
    count: &mut usize,
) -> Result<(), ApiError> {
    *count += 1;
    if *count > MAX_VALUES {
        return Err(too_many_values());
    }
    if depth > MAX_DEPTH {
        return Err(ApiError::bad_request(format!(
            "the request body is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let truncated = |_| invalid("it is truncated or corrupt");
    while !body.is_empty() {
        let (field, wire) = decode_key(&mut body).map_err(truncated)?;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut body).map_err(truncated)?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut body).map_err(truncated)?;
                usize::try_from(length).unwrap_or(usize::MAX)
            }
            WireType::StartGroup | WireType::EndGroup => {
                return Err(invalid(
                    "it contains a group, which no version of OTLP defines",
                ));
            }
        };
        let Some((field_body, rest)) = body.split_at_checked(length) else {
            return Err(invalid("it is truncated or corrupt"));
        };
        body = rest;
        if wire == WireType::LengthDelimited
            && let Some(nested) = message.nested(field)
        {
            check_messages(nested, field_body, depth + 1, count)?;
        }
    }
    Ok(())
}

fn span_of(
    span: Span,
    resource: &Arc<Map<String, Value>>,
    scope: &str,
) -> Result<OtelSpan, String> {
    let ids = SpanIds::read(&span.trace_id, &span.span_id, &span.parent_span_id)?;
    let (start_ns, end_ns) = start_and_end_ns(span.start_time_unix_nano, span.end_time_unix_nano)?;
    let status = span.status.unwrap_or_default();
    let dropped_counts = [
        span.dropped_attributes_count,
        span.dropped_events_count,
        span.dropped_links_count,
    ];
    Ok(OtelSpan {
        trace_id: ids.trace_id,
        span_id: ids.span_id,
        parent: ids.parent,
        name: span.name,
        start_ns,
        end_ns,
        attributes: map_of(span.attributes),
        events: span.events.into_iter().map(event_of).collect(),
        links: span.links.into_iter().map(link_of).collect(),
        failed: status.code == StatusCode::Error as i32,
        status_message: status.message,
        resource: resource.clone(),
        scope: scope.to_owned(),
        dropped_count: dropped_counts.into_iter().map(u64::from).sum(),
    })
}

fn event_of(event: span::Event) -> OtelEvent {
    OtelEvent {
        name: event.name,
        time_ns: event.time_unix_nano,
        attributes: map_of(event.attributes),
    }
}

/// An invalid or missing id of a link becomes empty.
fn link_of(link: span::Link) -> OtelLink {
    OtelLink {
        trace_id: trace_id(&link.trace_id).unwrap_or_default(),
        span_id: span_id(&link.span_id).unwrap_or_default(),
        attributes: map_of(link.attributes),
    }
}

fn map_of(attributes: Vec<KeyValue>) -> Map<String, Value> {
    attributes
        .into_iter()
        .map(|pair| (pair.key, value_of(pair.value)))
        .collect()
}

fn value_of(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None => Value::Null,
        Some(Any::StringValue(text)) => Value::String(text),
        Some(Any::BoolValue(flag)) => Value::Bool(flag),
        Some(Any::IntValue(number)) => Value::from(number),
        Some(Any::DoubleValue(number)) => from_float(number),
        Some(Any::ArrayValue(list)) => {
            let items = list.values.into_iter().map(|item| value_of(Some(item)));
            Value::Array(items.collect())
        }
        Some(Any::KvlistValue(list)) => Value::Object(map_of(list.values)),
        Some(Any::BytesValue(bytes)) => from_bytes(&bytes),
        // An index into a string table, which traces do not have.
        Some(Any::StringValueStrindex(index)) => Value::from(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn export_of(spans: &[Vec<u8>]) -> Bytes {
        let scope = RawScope {
            scope: None,
            spans: spans.iter().cloned().map(Bytes::from).collect(),
        };
        let resource = RawResource {
            resource: None,
            scopes: vec![scope],
        };
        let export = RawExport {
            resources: vec![resource],
        };
        Bytes::from(export.encode_to_vec())
    }

    fn span() -> Span {
        Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "chat".to_owned(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            ..Span::default()
        }
    }

    #[test]
    fn invalid_span_does_not_affect_others() {
        let mut nameless = span().encode_to_vec();
        // A name that is not UTF-8, and a span without ids.
        nameless.extend([0x2a, 1, 0xff]);
        let idless = Span::default().encode_to_vec();
        let body = export_of(&[nameless, span().encode_to_vec(), idless]);
        let export = decode(&body).unwrap();
        assert_eq!(export.spans.len(), 1);
        assert_eq!(export.refused.len(), 2, "{:?}", export.refused);
        assert!(export.refused[0].starts_with("span 0: is not a valid message"));
        assert!(export.refused[1].starts_with("span 2: `traceId`"));
    }

    #[test]
    fn refuses_too_many_empty_messages_before_decoding() {
        let body = export_of(&vec![Vec::new(); MAX_VALUES]);
        let refused = decode(&body).unwrap_err();
        assert_eq!(refused.status, http::StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn refuses_deep_truncated_and_grouped_bodies() {
        // An attribute with lists nested 10,000 levels deep.
        let field = |number: u8, inner: &[u8]| {
            let mut outer = vec![number << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend(inner);
            outer
        };
        let value = (0..10_000).fold(Vec::new(), |inner, _| field(5, &field(1, &inner)));
        let mut deep = span().encode_to_vec();
        deep.extend(field(9, &field(2, &value)));
        let refused = decode(&export_of(&[deep])).unwrap_err();
        assert!(refused.detail.contains("nested deeper"));
        let complete = export_of(&[span().encode_to_vec()]);
        assert!(decode(&complete.slice(..complete.len() - 1)).is_err());
        assert!(decode(&Bytes::from_static(&[0x0b])).is_err());
        assert!(decode(&Bytes::from_static(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert!(decode(&Bytes::new()).unwrap().spans.is_empty());
    }

    #[test]
    fn stores_nan_by_name() {
        let nan = AnyValue {
            value: Some(Any::DoubleValue(f64::NAN)),
        };
        assert_eq!(value_of(Some(nan)), Value::from("NaN"));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = decode(&Bytes::from(bytes));
        }

        #[test]
        fn changed_byte_does_not_panic(at in 0_usize..60, byte: u8) {
            let mut body = export_of(&[span().encode_to_vec()]).to_vec();
            if let Some(changed) = body.get_mut(at) {
                *changed = byte;
            }
            let _ = decode(&Bytes::from(body));
        }
    }
}
