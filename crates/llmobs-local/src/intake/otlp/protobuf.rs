//! OTLP as protobuf.
//!
//! A decoded message takes many times the bytes of an encoded one: an empty span is two bytes on
//! the wire and hundreds in memory. So the messages are counted first, and too many are refused
//! before any is made. Each span is decoded on its own, so that a broken one costs only itself.

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

use super::wire::{Event, Export, Ids, Link, OtelSpan, float, span_id, times, trace_id};
use crate::http::{ApiError, MAX_DEPTH};
use crate::values::{MAX_VALUES, too_many_values};

/// An export whose spans are still encoded.
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
    measure(Shape::Export, body, 0, &mut count)?;
    let raw = RawExport::decode(body.clone()).map_err(|error| broken(&error.to_string()))?;
    let mut export = Export::default();
    let mut number = 0_usize;
    for part in raw.resources {
        let resource = Arc::new(map_of(part.resource.unwrap_or_default().attributes));
        for scope in part.scopes {
            let name = scope.scope.unwrap_or_default().name;
            for span in scope.spans {
                let read = Span::decode(span)
                    .map_err(|error| format!("is not a valid message: {error}"))
                    .and_then(|span| span_of(span, &resource, &name));
                match read {
                    Ok(span) => export.spans.push(span),
                    Err(reason) => export.refused.push(format!("span {number}: {reason}")),
                }
                number += 1;
            }
        }
    }
    Ok(export)
}

fn broken(reason: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the request body is not a valid ExportTraceServiceRequest: {reason}"
    ))
}

/// The messages that an export is made of, as far as they nest.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Export,
    ResourceSpans,
    /// A resource: its attributes stand in field 1.
    Resource,
    ScopeSpans,
    /// A scope or an event: attributes stand in field 3.
    Attributes3,
    /// A link: attributes stand in field 4.
    Attributes4,
    Span,
    KeyValue,
    AnyValue,
    /// A list of values.
    Values,
    /// A list of keys with values.
    KeyValues,
    /// Nothing nests in it.
    Leaf,
}

impl Shape {
    fn within(self, field: u32) -> Option<Shape> {
        Some(match (self, field) {
            (Shape::Export, 1) => Shape::ResourceSpans,
            (Shape::ResourceSpans, 1) => Shape::Resource,
            (Shape::ResourceSpans, 2) => Shape::ScopeSpans,
            (Shape::ScopeSpans, 1) | (Shape::Span, 11) => Shape::Attributes3,
            (Shape::ScopeSpans, 2) => Shape::Span,
            (Shape::Span, 13) => Shape::Attributes4,
            (Shape::Span, 15) | (Shape::Resource, 3) => Shape::Leaf,
            (Shape::Resource | Shape::KeyValues, 1)
            | (Shape::Attributes3, 3)
            | (Shape::Attributes4, 4)
            | (Shape::Span, 9) => Shape::KeyValue,
            (Shape::KeyValue, 2) | (Shape::Values, 1) => Shape::AnyValue,
            (Shape::AnyValue, 5) => Shape::Values,
            (Shape::AnyValue, 6) => Shape::KeyValues,
            _ => return None,
        })
    }
}

/// Counts the messages of an encoded one, and refuses what is cut, too many or too deep.
fn measure(shape: Shape, mut body: &[u8], depth: usize, count: &mut usize) -> Result<(), ApiError> {
    *count += 1;
    if *count > MAX_VALUES {
        return Err(too_many_values());
    }
    if depth > MAX_DEPTH {
        return Err(ApiError::bad_request(format!(
            "the request body is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let cut = |_| broken("it is cut or damaged");
    while !body.is_empty() {
        let (field, wire) = decode_key(&mut body).map_err(cut)?;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut body).map_err(cut)?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut body).map_err(cut)?;
                usize::try_from(length).unwrap_or(usize::MAX)
            }
            WireType::StartGroup | WireType::EndGroup => {
                return Err(broken("it holds a group, which no version of OTLP has"));
            }
        };
        let Some((part, rest)) = body.split_at_checked(length) else {
            return Err(broken("it is cut or damaged"));
        };
        body = rest;
        if wire == WireType::LengthDelimited
            && let Some(inner) = shape.within(field)
        {
            measure(inner, part, depth + 1, count)?;
        }
    }
    Ok(())
}

fn span_of(
    span: Span,
    resource: &Arc<Map<String, Value>>,
    scope: &str,
) -> Result<OtelSpan, String> {
    let ids = Ids::read(&span.trace_id, &span.span_id, &span.parent_span_id)?;
    let (start_ns, end_ns) = times(span.start_time_unix_nano, span.end_time_unix_nano)?;
    let status = span.status.unwrap_or_default();
    let left_out = [
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
        left_out: left_out.into_iter().map(u64::from).sum(),
    })
}

fn event_of(event: span::Event) -> Event {
    Event {
        name: event.name,
        time_ns: event.time_unix_nano,
        attributes: map_of(event.attributes),
    }
}

/// A link that names nothing keeps empty ids.
fn link_of(link: span::Link) -> Link {
    Link {
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
        Some(Any::DoubleValue(number)) => float(number),
        Some(Any::ArrayValue(list)) => {
            let items = list.values.into_iter().map(|item| value_of(Some(item)));
            Value::Array(items.collect())
        }
        Some(Any::KvlistValue(list)) => Value::Object(map_of(list.values)),
        Some(Any::BytesValue(bytes)) => crate::intake::msgpack::binary(&bytes),
        // An index into a table that traces do not have.
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
    fn a_broken_span_costs_only_itself() {
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
    fn a_body_of_empty_messages_is_refused_before_they_are_made() {
        let body = export_of(&vec![Vec::new(); MAX_VALUES]);
        let refused = decode(&body).unwrap_err();
        assert_eq!(refused.status, http::StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn deep_or_cut_or_grouped_bodies_are_refused() {
        // A list in a list in a list, as the value of an attribute.
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
        let whole = export_of(&[span().encode_to_vec()]);
        assert!(decode(&whole.slice(..whole.len() - 1)).is_err());
        assert!(decode(&Bytes::from_static(&[0x0b])).is_err());
        assert!(decode(&Bytes::from_static(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert!(decode(&Bytes::new()).unwrap().spans.is_empty());
    }

    #[test]
    fn a_number_that_is_not_finite_is_kept_under_its_name() {
        let nan = AnyValue {
            value: Some(Any::DoubleValue(f64::NAN)),
        };
        assert_eq!(value_of(Some(nan)), Value::from("NaN"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&Bytes::from(bytes));
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..60, byte: u8) {
            let mut body = export_of(&[span().encode_to_vec()]).to_vec();
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
            let _ = decode(&Bytes::from(body));
        }
    }
}
