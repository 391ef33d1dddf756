//! JSON responses to OAuth clients, which no cache may store.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// An OAuth error response (RFC 6749 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The value of `error`.
    pub code: &'static str,
    /// The value of `error_description`. It never contains what the client sent.
    pub description: String,
    /// The value of the header `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl OauthError {
    /// An error with status 400.
    pub fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            description: description.into(),
            retry_after: None,
        }
    }

    /// `invalid_request`: a malformed request.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// Status 429: a rate limit was exceeded.
    pub fn rate_limited(seconds: u64) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "temporarily_unavailable",
            description: format!("too many requests; try again in {seconds} s"),
            retry_after: Some(seconds),
        }
    }

    /// Status 503: the server stores the maximum number of these objects.
    pub fn capacity_reached() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "temporarily_unavailable",
            description: "too many requests are open; try again in a few minutes".to_owned(),
            retry_after: Some(300),
        }
    }

    /// Status 500: an internal error, whose details are in the server's log only.
    pub fn server_error() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "server_error",
            description: "internal error; see the server's log".to_owned(),
            retry_after: None,
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = json!({"error": self.code, "error_description": self.description});
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A JSON response with `Cache-Control: no-store`.
pub fn json_response(status: StatusCode, body: &Value) -> Response {
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, fixed("application/json")),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ];
    (status, headers, body.to_string()).into_response()
}
