//! Answers to programs: JSON, always, and never kept by anybody on the way.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::store::StoreError;

/// A refusal in OAuth's shape (RFC 6749 section 5.2). Its words are ours and hold nothing that was
/// sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OauthError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) words: String,
    pub(super) retry_after: Option<u64>,
}

impl OauthError {
    /// A refusal with status 400.
    pub(super) fn new(code: &'static str, words: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            words: words.into(),
            retry_after: None,
        }
    }

    /// Something about the request's form is wrong.
    pub(super) fn invalid_request(words: impl Into<String>) -> Self {
        Self::new("invalid_request", words)
    }

    /// Too many requests.
    pub(super) fn too_many(seconds: u64) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "temporarily_unavailable",
            words: format!("too many requests; try again in {seconds} s"),
            retry_after: Some(seconds),
        }
    }

    /// No room, for the moment.
    pub(super) fn full() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "temporarily_unavailable",
            words: "too many of these are open; try again in some minutes".to_owned(),
            retry_after: Some(300),
        }
    }

    /// Our own trouble.
    pub(super) fn server() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "server_error",
            words: "the server cannot do this at the moment; its log says why".to_owned(),
            retry_after: None,
        }
    }
}

impl From<StoreError> for OauthError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "sign-in failed");
        Self::server()
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = json!({"error": self.code, "error_description": self.words});
        let mut response = answer(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A JSON answer that nobody may keep.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (status, headers, body.to_string()).into_response()
}
