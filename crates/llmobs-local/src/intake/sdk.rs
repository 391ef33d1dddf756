//! The SDK dialect: envelopes of spans, as JSON or MessagePack.
//!
//! The Python SDK sends a list with one envelope per span; other SDKs send one envelope with many
//! spans.

use serde_json::{Map, Value};

use super::batch::Batch;
use super::fields::Fields;
use super::json_value::{to_text, type_name};
use super::span::{SpanDefaults, span_of};
use super::update::{SpanUpdate, is_partial};
use crate::http::ApiError;

/// Keys of an envelope that do not describe its spans.
const TRANSPORT_KEYS: [&str; 3] = ["_dd.stage", "_dd.tracer_version", "event_type"];

/// Reads envelopes. With `updating` all spans are updates of stored spans.
pub(super) fn read(body: Value, updating: bool) -> Result<Batch, ApiError> {
    let envelopes = match body {
        Value::Array(envelopes) => envelopes,
        one @ Value::Object(_) => vec![one],
        other => {
            return Err(ApiError::bad_request(format!(
                "the body must be a list of envelopes like {{\"event_type\":\"span\",\"spans\":[…]}}, not {}",
                type_name(&other)
            )));
        }
    };
    let mut batch = Batch::default();
    for (index, envelope) in envelopes.into_iter().enumerate() {
        match envelope {
            Value::Object(map) => read_envelope(map, index, updating, &mut batch),
            other => batch.refused.push(format!(
                "envelope {index} must be an object, not {}",
                type_name(&other)
            )),
        }
    }
    Ok(batch)
}

fn read_envelope(map: Map<String, Value>, index: usize, updating: bool, batch: &mut Batch) {
    let mut fields = Fields::new(map, "");
    let Some(spans) = fields.remove_list("spans") else {
        batch
            .refused
            .push(format!("envelope {index} has no list `spans`"));
        return;
    };
    for key in TRANSPORT_KEYS {
        fields.remove(key);
    }
    let mut defaults = SpanDefaults {
        ml_app: fields.remove_text("ml_app"),
        session_id: fields.remove_text("session_id"),
        tags: fields
            .remove_list("tags")
            .unwrap_or_default()
            .iter()
            .map(|tag| to_text(tag).into_owned())
            .collect(),
        scope: fields.remove_text("_dd.scope"),
        ..SpanDefaults::default()
    };
    defaults.extra = fields.into_parts().0;
    for (number, span) in spans.into_iter().enumerate() {
        let label = || format!("envelope {index}, span {number}");
        match span {
            Value::Object(sent) if updating || is_partial(&sent) => {
                batch.updates.push(SpanUpdate {
                    sent,
                    defaults: defaults.clone(),
                    label: label(),
                });
            }
            span => match span_of(span, &defaults) {
                Ok(span) => batch.spans.push(span),
                Err(reason) => batch.refused.push(format!("{}: {reason}", label())),
            },
        }
    }
}
