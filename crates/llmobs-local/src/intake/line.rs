//! One line of an export: a body of the documented intake, whole.
//!
//! So a line can be sent to Datadog's HTTP API as it is, and lines that others wrote can be read
//! here. What the documented form cannot say exactly stands beside it under [`EXACT`]: the writer
//! reads each line back, and adds that only where something would be lost.

mod write;

use serde_json::{Map, Value};

use super::{Batch, evaluations, http_api, sdk};
use crate::http::parse_json_within;
use crate::store::TargetedEvaluation;
use llmobs_core::model::Span;

pub(crate) use write::{evaluation_line, span_line};

/// The attribute that holds exactly what is kept.
const EXACT: &str = "_llmobs_mcp";

/// Deepest nesting of a line: that of a body that is taken in, and what a line puts around it.
const MAX_DEPTH: usize = super::super::http::MAX_DEPTH + 10;

/// Reads a line, or says why it cannot be.
pub(crate) fn read(line: &[u8]) -> Result<Batch, String> {
    let body = parse_json_within(line, MAX_DEPTH)
        .map_err(|error| error.detail.replace("the request body", "it"))?;
    read_body(body)
}

fn read_body(mut body: Value) -> Result<Batch, String> {
    if let Some(exact) = take_exact(&mut body) {
        return read_exact(exact);
    }
    let kind = body.get("data").and_then(|data| data.get("type"));
    let read = match kind.and_then(Value::as_str) {
        Some("span") => http_api::read(body),
        Some("evaluation_metric") => evaluations::read(body),
        _ if body.get("spans").is_some() => sdk::read(body, false),
        _ => {
            return Err(
                "it is neither {\"data\":{\"type\":\"span\",…}} nor {\"data\":{\"type\":\"evaluation_metric\",…}} nor {\"event_type\":\"span\",\"spans\":[…]}"
                    .to_owned(),
            );
        }
    };
    read.map_err(|error| error.detail)
}

fn take_exact(body: &mut Value) -> Option<Map<String, Value>> {
    let attributes = body.get_mut("data")?.get_mut("attributes")?;
    match attributes.as_object_mut()?.shift_remove(EXACT)? {
        Value::Object(exact) => Some(exact),
        _ => None,
    }
}

fn read_exact(mut exact: Map<String, Value>) -> Result<Batch, String> {
    // The words of the library would quote the content.
    let wrong = |what: &str| format!("`{EXACT}` does not hold {what} as this program writes it");
    let mut batch = Batch::default();
    if let Some(span) = exact.remove("span") {
        let span: Span = serde_json::from_value(span).map_err(|_| wrong("a span"))?;
        if span.trace_id.as_str().is_empty() || span.span_id.as_str().is_empty() {
            return Err(wrong("a span with its ids"));
        }
        batch.spans.push(span);
    } else {
        let evaluation = exact.remove("evaluation").unwrap_or_default();
        let evaluation: TargetedEvaluation =
            serde_json::from_value(evaluation).map_err(|_| wrong("an evaluation"))?;
        batch.evaluations.push(evaluation);
    }
    Ok(batch)
}

#[cfg(test)]
mod tests;
