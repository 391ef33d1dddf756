//! The keys that an answer may show a failure under.

/// Keys of envelopes: their value is the answer, or another envelope around it.
pub(super) const ENVELOPE_KEYS: [&str; 10] = [
    "result",
    "response",
    "output",
    "body",
    "content",
    "structuredContent",
    "return_value",
    "kwargs",
    "http",
    "error_details",
];

/// Keys of envelopes that hold business data: a record in them may have the status `failed`
/// although the call succeeded.
pub(super) const DATA_ENVELOPE_KEYS: [&str; 2] = ["data", "payload"];

/// The other keys that are read, of an object or of a content part.
pub(super) const FAILURE_KEYS: &[&str] = &[
    "isError",
    "is_error",
    "success",
    "ok",
    "status_code",
    "statusCode",
    "http.status",
    "http.status_code",
    "http_status",
    "http_status_code",
    "httpStatus",
    "httpStatusCode",
    "response_code",
    "responseCode",
    "status",
    "error",
    "errorMessage",
    "error_message",
    "errors",
    "code",
    "message",
    "msg",
    "detail",
    "details",
    "reason",
    "title",
    "text",
];

/// Keys of an HTTP status in an answer.
pub(super) const HTTP_STATUS_KEYS: &[&str] = &[
    "status_code",
    "statusCode",
    "http.status",
    "http.status_code",
    "http_status",
    "http_status_code",
    "httpStatus",
    "httpStatusCode",
    "response_code",
    "responseCode",
    "status",
];

/// Keys of an HTTP status in metadata, where a bare `status` may mean anything.
pub(super) const HTTP_STATUS_METADATA_KEYS: &[&str] = &[
    "http.status",
    "http.status_code",
    "http.response.status_code",
    "http_status",
    "http_status_code",
    "status_code",
    "statusCode",
];
