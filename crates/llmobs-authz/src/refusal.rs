//! A refusal over HTTP, in the shape of the tools' errors.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// A JSON answer that says what was wrong and the mend: `{error, status, hint}`. Neither may hold what
/// the caller sent.
pub fn refusal(status: StatusCode, error: &str, hint: &str) -> Response {
    let body = json!({"error": error, "status": status.as_u16(), "hint": hint});
    (status, axum::Json(body)).into_response()
}
