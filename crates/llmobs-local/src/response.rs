//! Responses of the backend: JSON, and errors in Datadog's format.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::store::StoreError;

/// An error in the format of Datadog's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// Adds `Retry-After` if a retry can succeed.
    pub(super) fn add_retry_after(&self, headers: &mut HeaderMap) {
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"errors": [{"title": "Generic Error", "detail": self.detail}]});
        let mut response = json_api(self.status, &body);
        self.add_retry_after(response.headers_mut());
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::NotWritable(_) | StoreError::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            StoreError::Damaged { .. } | StoreError::Newer { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

/// A response with the content type of JSON:API.
pub(super) fn json_api(status: StatusCode, body: &Value) -> Response {
    json_api_bytes(status, body.to_string().into_bytes())
}

/// A response with the content type of JSON:API, from serialized JSON.
pub(super) fn json_api_bytes(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/vnd.api+json");
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// A plain JSON response, as the Agent and the private endpoints send it.
pub(super) fn json_plain(status: StatusCode, body: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    let body = body.to_string();
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(StoreError::Full, 507)]
    #[case(StoreError::NotWritable("read only".into()), 503)]
    #[case(StoreError::Unavailable("busy".into()), 503)]
    #[case(StoreError::Newer { found: 2, supported: 1 }, 500)]
    fn store_errors_are_server_errors(#[case] error: StoreError, #[case] status: u16) {
        assert_eq!(ApiError::from(error).status.as_u16(), status);
    }
}
