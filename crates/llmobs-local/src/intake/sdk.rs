//! The SDKs' own form: envelopes of spans, JSON or MessagePack.
//!
//! The Python SDK sends a list with one envelope per span; others send one object with many.

use serde_json::{Map, Value};

use super::Batch;
use super::fields::{Fields, kind_of_json, text_of};
use super::span::{Defaults, span_of};
use super::update::{Update, is_partial};
use crate::http::ApiError;

/// Keys of an envelope that say nothing about its spans.
const CARRIER_KEYS: [&str; 3] = ["_dd.stage", "_dd.tracer_version", "event_type"];

/// `updating` says that the spans are kept already and these are changes to them.
pub(super) fn read(body: Value, updating: bool) -> Result<Batch, ApiError> {
    let envelopes = match body {
        Value::Array(envelopes) => envelopes,
        one @ Value::Object(_) => vec![one],
        other => {
            return Err(ApiError::bad_request(format!(
                "the body must be a list of envelopes like {{\"event_type\":\"span\",\"spans\":[…]}}, not {}",
                kind_of_json(&other)
            )));
        }
    };
    let mut batch = Batch::default();
    for (at, envelope) in envelopes.into_iter().enumerate() {
        match envelope {
            Value::Object(map) => read_envelope(map, at, updating, &mut batch),
            other => batch.refused.push(format!(
                "envelope {at} must be an object, not {}",
                kind_of_json(&other)
            )),
        }
    }
    Ok(batch)
}

fn read_envelope(map: Map<String, Value>, at: usize, updating: bool, batch: &mut Batch) {
    let mut fields = Fields::new(map, "");
    let Some(spans) = fields.list("spans") else {
        batch
            .refused
            .push(format!("envelope {at} has no list `spans`"));
        return;
    };
    for key in CARRIER_KEYS {
        fields.take(key);
    }
    let mut defaults = Defaults {
        ml_app: fields.text("ml_app"),
        session_id: fields.text("session_id"),
        tags: fields
            .list("tags")
            .unwrap_or_default()
            .iter()
            .map(|tag| text_of(tag).into_owned())
            .collect(),
        scope: fields.text("_dd.scope"),
        ..Defaults::default()
    };
    defaults.extra = fields.rest().0;
    for (number, span) in spans.into_iter().enumerate() {
        let place = || format!("envelope {at}, span {number}");
        match span {
            Value::Object(sent) if updating || is_partial(&sent) => batch.updates.push(Update {
                sent,
                defaults: defaults.clone(),
                place: place(),
            }),
            span => match span_of(span, &defaults) {
                Ok(span) => batch.spans.push(span),
                Err(reason) => batch.refused.push(format!("{}: {reason}", place())),
            },
        }
    }
}
