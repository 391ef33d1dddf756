//! A decoded OTLP trace export, from either encoding, before it is mapped.

use serde_json::{Map, Value};

/// The spans of one export, and the reasons for those that were refused.
#[derive(Debug, Default)]
pub(super) struct Export {
    pub(super) spans: Vec<OtelSpan>,
    /// One line per refused span.
    pub(super) refused: Vec<String>,
}

/// One OpenTelemetry span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OtelSpan {
    /// 32 hexadecimal digits.
    pub(super) trace_id: String,
    /// Decimal.
    pub(super) span_id: String,
    /// Decimal; `None` on a root span.
    pub(super) parent: Option<String>,
    pub(super) name: String,
    pub(super) start_ns: i64,
    /// Zero if the span has not ended.
    pub(super) end_ns: i64,
    pub(super) attributes: Map<String, Value>,
    pub(super) events: Vec<OtelEvent>,
    pub(super) links: Vec<OtelLink>,
    /// Whether the status code is "error", not "OK" or "unset".
    pub(super) failed: bool,
    pub(super) status_message: String,
    /// Attributes of the resource that produced the span.
    pub(super) resource: std::sync::Arc<Map<String, Value>>,
    /// Name of the instrumentation scope.
    pub(super) scope: String,
    /// Number of attributes, events and links that the sender dropped.
    pub(super) dropped_count: u64,
}

/// A span event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OtelEvent {
    pub(super) name: String,
    pub(super) time_ns: u64,
    pub(super) attributes: Map<String, Value>,
}

/// A link to another span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OtelLink {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) attributes: Map<String, Value>,
}

/// The validated ids of a span.
pub(super) struct SpanIds {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent: Option<String>,
}

impl SpanIds {
    /// Reads the three ids of a span. The error names the invalid one.
    pub(super) fn read(trace: &[u8], span: &[u8], parent: &[u8]) -> Result<Self, String> {
        Ok(Self {
            trace_id: trace_id(trace).ok_or("`traceId` must be 16 bytes that are not all zero")?,
            span_id: span_id(span).ok_or("`spanId` must be 8 bytes that are not all zero")?,
            parent: match parent {
                // Some senders write zeros for a missing parent.
                [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
                bytes => Some(span_id(bytes).ok_or("`parentSpanId` must be 8 bytes or absent")?),
            },
        })
    }
}

/// The start and end of a span in signed nanoseconds. The error names the invalid one.
pub(super) fn start_and_end_ns(start: u64, end: u64) -> Result<(i64, i64), String> {
    let signed = |what: &str, ns: u64| {
        i64::try_from(ns).map_err(|_| format!("`{what}` is out of range: nanoseconds since 1970"))
    };
    if start == 0 {
        return Err("`startTimeUnixNano` is missing; it is nanoseconds since 1970".to_owned());
    }
    Ok((
        signed("startTimeUnixNano", start)?,
        signed("endTimeUnixNano", end)?,
    ))
}

/// A trace id as 32 hexadecimal digits.
pub(super) fn trace_id(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let number = u128::from_be_bytes(bytes);
    (number != 0).then(|| format!("{number:032x}"))
}

/// A span id in decimal, as LLM Observability writes it.
pub(super) fn span_id(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 8] = bytes.try_into().ok()?;
    let number = u64::from_be_bytes(bytes);
    (number != 0).then(|| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_trace_ids_in_hexadecimal_and_span_ids_in_decimal() {
        let ids = SpanIds::read(&[0xff; 16], &[0xff; 8], &[0; 8]).unwrap();
        assert_eq!(ids.trace_id, "f".repeat(32));
        assert_eq!(ids.span_id, "18446744073709551615");
        assert_eq!(ids.parent, None);
        assert!(SpanIds::read(&[0; 16], &[1; 8], &[]).is_err());
        assert!(SpanIds::read(&[1; 16], &[1; 7], &[]).is_err());
        assert!(SpanIds::read(&[1; 16], &[1; 8], &[1]).is_err());
    }
}
