//! Reads lines.

use serde_json::{Map, Value};

use super::super::batch::Batch;
use super::super::{evaluations, http_api, sdk};
use crate::http::{MAX_DEPTH, parse_json_within};
use crate::store::TargetedEvaluation;
use llmobs_core::model::Span;

/// The attribute that contains the item exactly as stored.
pub(super) const EXACT: &str = "_llmobs_mcp";

/// Deepest nesting of a line: the limit of a body, and the levels that a line adds.
const MAX_LINE_DEPTH: usize = MAX_DEPTH + 10;

/// Reads a line. The error does not quote the line, which is untrusted.
pub(crate) fn read(line: &[u8]) -> Result<Batch, String> {
    let body = parse_json_within(line, MAX_LINE_DEPTH)
        .map_err(|error| error.detail.replace("the request body", "the line"))?;
    read_body(body)
}

pub(super) fn read_body(mut body: Value) -> Result<Batch, String> {
    if let Some(exact) = remove_exact(&mut body) {
        return read_exact(exact);
    }
    let kind = body.get("data").and_then(|data| data.get("type"));
    let batch = match kind.and_then(Value::as_str) {
        Some("span") => http_api::read(body),
        Some("evaluation_metric") => evaluations::read(body),
        _ if body.get("spans").is_some() => sdk::read(body, false),
        _ => {
            return Err(
                "the line is neither {\"data\":{\"type\":\"span\",…}} nor {\"data\":{\"type\":\"evaluation_metric\",…}} nor {\"event_type\":\"span\",\"spans\":[…]}"
                    .to_owned(),
            );
        }
    };
    batch.map_err(|error| error.detail)
}

fn remove_exact(body: &mut Value) -> Option<Map<String, Value>> {
    let attributes = body.get_mut("data")?.get_mut("attributes")?;
    match attributes.as_object_mut()?.shift_remove(EXACT)? {
        Value::Object(exact) => Some(exact),
        _ => None,
    }
}

fn read_exact(mut exact: Map<String, Value>) -> Result<Batch, String> {
    // Errors of serde quote the content.
    let invalid = |what: &str| format!("`{EXACT}` does not contain {what} as llmobs-mcp writes it");
    let mut batch = Batch::default();
    if let Some(span) = exact.remove("span") {
        let span: Span = serde_json::from_value(span).map_err(|_| invalid("a span"))?;
        if span.trace_id.as_str().is_empty() || span.span_id.as_str().is_empty() {
            return Err(invalid("a span with its ids"));
        }
        batch.spans.push(span);
    } else {
        let evaluation = exact.remove("evaluation").unwrap_or_default();
        let evaluation: TargetedEvaluation =
            serde_json::from_value(evaluation).map_err(|_| invalid("an evaluation"))?;
        batch.evaluations.push(evaluation);
    }
    Ok(batch)
}
