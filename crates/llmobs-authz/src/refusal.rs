//! HTTP responses that refuse a request, in the form of the tools' errors.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// A JSON response `{error, status, hint}`: what is wrong, and how to fix it. Neither text may contain
/// what the caller sent.
pub fn refusal(status: StatusCode, error: &str, hint: &str) -> Response {
    let body = json!({"error": error, "status": status.as_u16(), "hint": hint});
    (status, axum::Json(body)).into_response()
}
