//! The documented HTTP API for spans, `POST /api/intake/llm-obs/v1/trace/spans`.
//!
//! Datadog accepts spans of the last 24 hours here. This backend accepts spans of any age by
//! default, so that old data can be inspected; `LocalOptions::max_span_age` sets a limit.

use serde_json::Value;

use super::batch::Batch;
use super::fields::Fields;
use super::json_value::to_text;
use super::span::{SpanDefaults, span_of};
use crate::http::ApiError;

const EXAMPLE: &str =
    r#"the body must be {"data":{"type":"span","attributes":{"ml_app":"my-app","spans":[…]}}}"#;

pub(super) fn read(body: Value) -> Result<Batch, ApiError> {
    let mut fields = Fields::new(attributes_of(body, "span", EXAMPLE)?, "");
    let spans = fields
        .remove_list("spans")
        .ok_or_else(|| ApiError::bad_request(format!("`spans` must be a list: {EXAMPLE}")))?;
    let mut defaults = SpanDefaults {
        ml_app: fields.remove_text("ml_app"),
        session_id: fields.remove_text("session_id"),
        tags: fields
            .remove_list("tags")
            .unwrap_or_default()
            .iter()
            .map(|tag| to_text(tag).into_owned())
            .collect(),
        // Not documented for this path, but SDKs send it beside their spans.
        scope: fields.remove_text("_dd.scope"),
        ..SpanDefaults::default()
    };
    // The remaining keys, such as `feedback_join_key`, apply to every span.
    defaults.extra = fields.into_parts().0;
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

/// `data.attributes` of a JSON:API body of the given type.
pub(super) fn attributes_of(
    body: Value,
    data_type: &str,
    example: &str,
) -> Result<serde_json::Map<String, Value>, ApiError> {
    let refused = || ApiError::bad_request(example);
    let Value::Object(mut body) = body else {
        return Err(refused());
    };
    let Some(Value::Object(mut data)) = body.remove("data") else {
        return Err(refused());
    };
    let sent_type = data.get("type").and_then(Value::as_str);
    if sent_type.is_some_and(|sent| sent != data_type) {
        return Err(refused());
    }
    match data.remove("attributes") {
        Some(Value::Object(attributes)) => Ok(attributes),
        _ => Err(refused()),
    }
}
