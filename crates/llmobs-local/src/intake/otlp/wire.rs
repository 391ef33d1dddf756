//! An OTLP trace export once decoded, from either encoding, before it is given a meaning.

use serde_json::{Map, Number, Value};

/// The spans of one export, and what could not be read as a span.
#[derive(Debug, Default)]
pub(super) struct Export {
    pub(super) spans: Vec<OtelSpan>,
    /// Why spans were refused, one line each.
    pub(super) refused: Vec<String>,
}

/// One span as OpenTelemetry means it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OtelSpan {
    /// 32 hexadecimal digits.
    pub(super) trace_id: String,
    /// Decimal.
    pub(super) span_id: String,
    /// Decimal; `None` on the root of a trace.
    pub(super) parent: Option<String>,
    pub(super) name: String,
    pub(super) start_ns: i64,
    /// Zero when the span had not ended.
    pub(super) end_ns: i64,
    pub(super) attributes: Map<String, Value>,
    pub(super) events: Vec<Event>,
    pub(super) links: Vec<Link>,
    /// Whether the status code is "error". "OK" and "unset" are both good.
    pub(super) failed: bool,
    pub(super) status_message: String,
    /// Attributes of the resource that sent it.
    pub(super) resource: std::sync::Arc<Map<String, Value>>,
    /// Name of the instrumentation.
    pub(super) scope: String,
    /// How many attributes, events and links the sender left out.
    pub(super) left_out: u64,
}

/// Something that happened within a span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) time_ns: u64,
    pub(super) attributes: Map<String, Value>,
}

/// A link to another span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Link {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) attributes: Map<String, Value>,
}

/// The ids of a span, checked.
pub(super) struct Ids {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent: Option<String>,
}

impl Ids {
    /// Reads the three ids of a span, or says which is wrong.
    pub(super) fn read(trace: &[u8], span: &[u8], parent: &[u8]) -> Result<Self, String> {
        Ok(Self {
            trace_id: trace_id(trace).ok_or("`traceId` must be 16 bytes that are not all zero")?,
            span_id: span_id(span).ok_or("`spanId` must be 8 bytes that are not all zero")?,
            parent: match parent {
                // Some senders write zeros for "none".
                [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
                bytes => Some(span_id(bytes).ok_or("`parentSpanId` must be 8 bytes or absent")?),
            },
        })
    }
}

/// The start and end of a span in signed nanoseconds, or what is wrong with them.
pub(super) fn times(start: u64, end: u64) -> Result<(i64, i64), String> {
    let fit = |what: &str, ns: u64| {
        i64::try_from(ns).map_err(|_| format!("`{what}` is out of range: nanoseconds since 1970"))
    };
    if start == 0 {
        return Err("`startTimeUnixNano` is missing; it is nanoseconds since 1970".to_owned());
    }
    Ok((
        fit("startTimeUnixNano", start)?,
        fit("endTimeUnixNano", end)?,
    ))
}

/// A trace id as 32 hexadecimal digits.
pub(super) fn trace_id(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let number = u128::from_be_bytes(bytes);
    (number != 0).then(|| format!("{number:032x}"))
}

/// A span id as LLM Observability writes it: decimal.
pub(super) fn span_id(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 8] = bytes.try_into().ok()?;
    let number = u64::from_be_bytes(bytes);
    (number != 0).then(|| number.to_string())
}

/// A floating point number; one that JSON cannot hold is its name.
pub(super) fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_hexadecimal_traces_and_decimal_spans() {
        let ids = Ids::read(&[0xff; 16], &[0xff; 8], &[0; 8]).unwrap();
        assert_eq!(ids.trace_id, "f".repeat(32));
        assert_eq!(ids.span_id, "18446744073709551615");
        assert_eq!(ids.parent, None);
        assert!(Ids::read(&[0; 16], &[1; 8], &[]).is_err());
        assert!(Ids::read(&[1; 16], &[1; 7], &[]).is_err());
        assert!(Ids::read(&[1; 16], &[1; 8], &[1]).is_err());
    }
}
