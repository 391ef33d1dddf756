//! The documented HTTP API for spans, `POST /api/intake/llm-obs/v1/trace/spans`.
//!
//! Datadog takes spans at most 24 hours old here. By default this backend takes any age, so that
//! old data can be looked at; `LocalOptions::max_span_age` sets a limit.

use serde_json::Value;

use super::Batch;
use super::fields::{Fields, text_of};
use super::span::{Defaults, span_of};
use crate::http::ApiError;

const EXAMPLE: &str =
    r#"the body must be {"data":{"type":"span","attributes":{"ml_app":"my-app","spans":[…]}}}"#;

pub(super) fn read(body: Value) -> Result<Batch, ApiError> {
    let mut fields = Fields::new(attributes_of(body, "span", EXAMPLE)?, "");
    let spans = fields
        .list("spans")
        .ok_or_else(|| ApiError::bad_request(format!("`spans` must be a list: {EXAMPLE}")))?;
    let mut defaults = Defaults {
        ml_app: fields.text("ml_app"),
        session_id: fields.text("session_id"),
        tags: fields
            .list("tags")
            .unwrap_or_default()
            .iter()
            .map(|tag| text_of(tag).into_owned())
            .collect(),
        // Not documented here, but SDKs say it so beside their spans.
        scope: fields.text("_dd.scope"),
        ..Defaults::default()
    };
    // What is left, `feedback_join_key` among it, holds for every span.
    defaults.extra = fields.rest().0;
    let mut batch = Batch::default();
    for (number, span) in spans.into_iter().enumerate() {
        match span_of(span, &defaults) {
            Ok(span) if span.ml_app.is_empty() => batch.refused.push(format!(
                "span {number}: `ml_app` is missing, on the span and beside `spans`"
            )),
            Ok(span) => batch.spans.push(span),
            Err(reason) => batch.refused.push(format!("span {number}: {reason}")),
        }
    }
    Ok(batch)
}

/// `data.attributes` of a JSON:API body of the type wanted.
pub(super) fn attributes_of(
    body: Value,
    wanted: &str,
    example: &str,
) -> Result<serde_json::Map<String, Value>, ApiError> {
    let refused = || ApiError::bad_request(example);
    let Value::Object(mut body) = body else {
        return Err(refused());
    };
    let Some(Value::Object(mut data)) = body.remove("data") else {
        return Err(refused());
    };
    let typed = data.get("type").and_then(Value::as_str);
    if typed.is_some_and(|found| found != wanted) {
        return Err(refused());
    }
    match data.remove("attributes") {
        Some(Value::Object(attributes)) => Ok(attributes),
        _ => Err(refused()),
    }
}
