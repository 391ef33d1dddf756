//! Errors of the client, each with a hint.
//!
//! The message of an upstream is cleaned of control characters and secrets and truncated before an
//! error stores it; logs contain no more than that.

mod body;

use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use super::transport::TransportError;
use llmobs_core::model::{SpanId, TraceId};
use llmobs_core::query::ParseError;

pub(crate) use body::upstream_message;

/// How often a request was sent before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// The number of attempts, at least 1.
    pub count: u32,
    /// The time from the first attempt to the failure of the last one.
    pub elapsed: Duration,
}

impl Attempts {
    /// ` after 3 attempts in 2.1 s`, or nothing after a single attempt.
    fn suffix(self) -> String {
        if self.count < 2 {
            return String::new();
        }
        format!(
            " after {} attempts in {:.1} s",
            self.count,
            self.elapsed.as_secs_f64()
        )
    }
}

/// A response with an error status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// The operation, for example `span search`.
    pub operation: &'static str,
    /// The name of the upstream, for example `datadoghq.eu`.
    pub upstream: String,
    /// The message of the body, cleaned and at most 2 KiB; may be empty.
    pub message: String,
    /// The upstream's id of the request, for its support.
    pub request_id: Option<String>,
    /// The kind of credential that was sent.
    pub credential: &'static str,
    /// The attempts before and including this one.
    pub attempts: Attempts,
}

/// Why an operation failed.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// The upstream returned an error status other than 429.
    #[error("{}", status_message(.0))]
    Status(Box<ErrorResponse>),
    /// The upstream, or this client on its behalf, accepts no more requests for now.
    #[error("{}", rate_limit_message(.operation, .upstream, *.retry_after_seconds, .message, *.attempts))]
    RateLimited {
        /// The operation.
        operation: &'static str,
        /// The name of the upstream.
        upstream: String,
        /// When to retry, in seconds, if known.
        retry_after_seconds: Option<u64>,
        /// The message of the body.
        message: String,
        /// The attempts before the rate limit stopped the call; `count` is 0 if none was sent.
        attempts: Attempts,
    },
    /// A success status with an unexpected body.
    #[error(
        "{upstream} returned {status} to {operation}, but with {found} instead of the expected JSON"
    )]
    Unreadable {
        /// The operation.
        operation: &'static str,
        /// The name of the upstream.
        upstream: String,
        /// The HTTP status.
        status: u16,
        /// What the body is.
        found: String,
    },
    /// No response.
    #[error("{operation} got no response from {upstream}{}: {source}", .attempts.suffix())]
    Transport {
        /// The operation.
        operation: &'static str,
        /// The name of the upstream.
        upstream: String,
        /// Why.
        source: TransportError,
        /// The attempts.
        attempts: Attempts,
    },
    /// The deadline of the tool call passed.
    #[error("{operation} was cancelled: the call reached its time limit of {seconds} s")]
    Deadline {
        /// The operation.
        operation: &'static str,
        /// The time limit of the call.
        seconds: u64,
    },
    /// A write that may or may not have been executed.
    #[error("it is unknown whether {operation} was executed: {source}")]
    OutcomeUnknown {
        /// The operation.
        operation: &'static str,
        /// What happened.
        source: Box<ClientError>,
        /// Whether the operation is idempotent.
        safe_to_repeat: bool,
    },
    /// The trace has no spans.
    #[error("no spans found for trace {0}")]
    TraceNotFound(TraceId),
    /// The trace has no such span.
    #[error("span not found: {0}")]
    SpanNotFound(SpanId),
    /// There is no such experiment, or the credential may not read it.
    #[error("experiment not found: {0}")]
    ExperimentNotFound(String),
    /// An id that a path cannot contain; nothing was sent.
    #[error("{operation} was not sent: an id is empty or consists of dots")]
    BadId {
        /// The operation.
        operation: &'static str,
    },
    /// The query is malformed; nothing was sent.
    #[error("the query cannot be sent: {} (at byte {} of it)", .0.message, .0.position)]
    BadQuery(#[from] ParseError),
    /// The upstream's search timed out before it found anything.
    #[error(
        "{operation} timed out at {upstream} before it found anything, so it is unknown whether there are results"
    )]
    SearchTimedOut {
        /// The operation.
        operation: &'static str,
        /// The name of the upstream.
        upstream: String,
    },
}

impl ClientError {
    /// The HTTP status behind the error, if there is one. Not-found errors are 404.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(response) => Some(response.status),
            Self::RateLimited { .. } => Some(429),
            Self::Unreadable { status, .. } => Some(*status),
            Self::OutcomeUnknown { source, .. } => source.status(),
            Self::TraceNotFound(_) | Self::SpanNotFound(_) | Self::ExperimentNotFound(_) => {
                Some(404)
            }
            Self::BadId { .. } => Some(400),
            Self::Transport { .. }
            | Self::Deadline { .. }
            | Self::BadQuery(_)
            | Self::SearchTimedOut { .. } => None,
        }
    }

    /// When to retry, in seconds, after a rate limit.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::RateLimited {
                retry_after_seconds,
                ..
            } => *retry_after_seconds,
            _ => None,
        }
    }

    /// Adds our own reason to the message of an error response.
    pub(crate) fn with_reason(mut self, reason: &str) -> Self {
        if let Self::Status(response) = &mut self {
            if !response.message.is_empty() {
                response.message.push_str("; ");
            }
            response.message.push_str(reason);
        }
        self
    }

    /// Whether a write may or may not have been executed.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Whether a smaller page could succeed.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Status(response) => response.status == StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
            Self::Transport { source, .. } => {
                matches!(source, TransportError::BodyTooLarge { .. })
            }
            _ => false,
        }
    }

    /// Whether only this caller ran out of time; another caller may have a later deadline.
    pub(crate) fn is_out_of_time(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::RateLimited { .. })
    }

    /// How to fix it, in one or two sentences.
    pub fn hint(&self) -> String {
        match self {
            Self::Status(response) => status_hint(response),
            Self::RateLimited {
                retry_after_seconds,
                ..
            } => match retry_after_seconds {
                Some(seconds) => format!(
                    "Wait {seconds} s, then retry. Request less at a time, or narrow the time window."
                ),
                None => "Wait a minute, then retry. Request less at a time.".to_owned(),
            },
            Self::Transport { source, .. } => transport_hint(source).to_owned(),
            Self::BadQuery(error) => error.hint.clone(),
            other => constant_hint(other).to_owned(),
        }
    }
}

/// The hints that do not depend on the contents of the error.
fn constant_hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreadable { .. } => {
            "A proxy or another server may have responded in place of the upstream. Check the site (DD_SITE), the proxy variables (HTTPS_PROXY, NO_PROXY) and --api-url; `llmobs-mcp doctor --probe` shows the response of each endpoint."
        }
        ClientError::Deadline { .. } => {
            "Retry: pages that were already read are cached for a short time. If it happens again, narrow the time window or lower the limit."
        }
        ClientError::OutcomeUnknown {
            safe_to_repeat: true,
            ..
        } => "Sending the same call again is safe: it has the same effect once or twice.",
        ClientError::OutcomeUnknown { .. } => {
            "Before you send it again, read the list or the entry that it would have changed."
        }
        ClientError::TraceNotFound(_) => {
            "Check that this is the LLM Observability trace id (32 hexadecimal digits, from search_llmobs_spans) and not the APM trace id; for an APM trace id, search with apm_trace_id. Spans are kept for a limited time."
        }
        ClientError::SpanNotFound(_) => {
            "Check the span id with get_llmobs_trace: a span id is valid only within its own trace."
        }
        ClientError::ExperimentNotFound(_) => {
            "Check the id with list_llmobs_experiments: it is the UUID of the experiment, not its name. The site and the organisation must be those that the experiment ran on."
        }
        ClientError::BadId { .. } => "Pass the id exactly as the list returned it.",
        ClientError::SearchTimedOut { .. } => {
            "Narrow the time window (for example from: now-1d) or add a filter such as ml_app, then retry."
        }
        _ => "`llmobs-mcp doctor --probe` shows the response of each endpoint.",
    }
}

fn status_message(response: &ErrorResponse) -> String {
    let ErrorResponse {
        status,
        operation,
        upstream,
        message,
        ..
    } = response;
    let reason = StatusCode::from_u16(*status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map(|reason| format!(" ({})", reason.to_lowercase()))
        .unwrap_or_default();
    let attempts = response.attempts.suffix();
    let mut text = format!("{upstream} returned {status}{reason} to {operation}{attempts}");
    if (300..400).contains(status) {
        text.push_str(", a redirect, which is not followed");
    }
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
    }
    if let Some(id) = &response.request_id {
        text.push_str(&format!(" [request id {id}]"));
    }
    text
}

fn rate_limit_message(
    operation: &str,
    upstream: &str,
    retry_after_seconds: Option<u64>,
    message: &str,
    attempts: Attempts,
) -> String {
    let retry =
        retry_after_seconds.map_or(String::new(), |seconds| format!("; retry in {seconds} s"));
    let message = if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    };
    let attempts = attempts.suffix();
    format!(
        "rate_limited: {upstream} returned 429 (too many requests) to {operation}{attempts}{message}{retry}"
    )
}

fn status_hint(response: &ErrorResponse) -> String {
    let credential = response.credential;
    match response.status {
        400 => "Check the query and the values of the filters: the message names what was not accepted.".to_owned(),
        401 if credential == "no credential" => "No credential was sent. Set DD_API_KEY and DD_APPLICATION_KEY (or DD_ACCESS_TOKEN), and DD_SITE if the site is not datadoghq.com.".to_owned(),
        401 => format!("The {credential} was not accepted. Check that it is complete, not revoked, and belongs to the site in DD_SITE; `llmobs-mcp doctor` tests it."),
        403 => format!("The {credential} lacks the permission. Grant its owner the LLM Observability permissions (read, and write for changes), or widen the scopes of the key. A key of another site gives the same error."),
        404 if is_on_this_machine(&response.upstream) => "Check the id. If every call returns 404, --api-url may name the MCP address instead of the local backend: `llmobs-mcp demo` prints both, for example --api-url http://127.0.0.1:8126.".to_owned(),
        404 => "Check the id. If every call returns 404, LLM Observability may not be enabled for this organisation or site (DD_SITE).".to_owned(),
        409 => "An entry of that name exists already, or it was changed in the meantime. Read it, then retry.".to_owned(),
        413 => "Request less: a smaller limit, a narrower time window, or single spans by id.".to_owned(),
        422 => "A value was not accepted: the message names it. Correct it and retry.".to_owned(),
        300..=399 => "Check DD_SITE and --api-url: the API does not redirect, so a proxy or a sign-in page may have responded.".to_owned(),
        500..=599 => "The upstream has a problem. Retry in a minute; a narrower time window is easier to answer.".to_owned(),
        _ => "`llmobs-mcp doctor --probe` shows the response of each endpoint.".to_owned(),
    }
}

fn is_on_this_machine(upstream: &str) -> bool {
    ["127.", "localhost", "[::1]"]
        .iter()
        .any(|prefix| upstream.starts_with(prefix))
}

fn transport_hint(error: &TransportError) -> &'static str {
    match error {
        TransportError::Dns => {
            "Check DD_SITE (for example datadoghq.eu) and the network; behind a proxy, set HTTPS_PROXY."
        }
        TransportError::Connect(_) | TransportError::ConnectTimeout => {
            "Check that the upstream is running (a local backend starts with `llmobs-mcp local`, sample data with `llmobs-mcp demo`), the network, and the proxy variables (HTTPS_PROXY, NO_PROXY)."
        }
        TransportError::Tls(_) => {
            "Check the CA certificates and the clock of this machine. Behind a proxy that inspects TLS, name its certificate file: --ca-file FILE (or LLMOBS_MCP_CA_FILE)."
        }
        TransportError::NotSent(_) => {
            "Use https; http works for addresses of this machine only, for example --api-url http://127.0.0.1:8126."
        }
        TransportError::Timeout(_) => {
            "Retry. If it happens again, narrow the time window or lower the limit."
        }
        TransportError::Interrupted(_) => "Retry in a moment.",
        TransportError::BodyTooLarge { .. } => {
            "Request less: a smaller limit, a narrower time window, or single spans by id."
        }
        TransportError::BadEncoding => "Check the proxy: it may damage responses.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    const ONE_ATTEMPT: Attempts = Attempts {
        count: 1,
        elapsed: Duration::from_millis(100),
    };

    fn error_response(status: u16, message: &str, attempts: Attempts) -> ClientError {
        ClientError::Status(Box::new(ErrorResponse {
            status,
            operation: "span search",
            upstream: "datadoghq.eu".into(),
            message: message.into(),
            request_id: Some("r-1".into()),
            credential: "API key and application key",
            attempts,
        }))
    }

    #[test]
    fn names_upstream_operation_and_message() {
        assert_eq!(
            error_response(403, "missing permission", ONE_ATTEMPT).to_string(),
            "datadoghq.eu returned 403 (forbidden) to span search: missing permission [request id r-1]"
        );
        let not_found = error_response(404, "", ONE_ATTEMPT).to_string();
        assert!(not_found.contains("404 (not found)"));
        let redirect = error_response(302, "", ONE_ATTEMPT).to_string();
        assert!(redirect.contains("not followed"));
    }

    #[test]
    fn names_attempts_after_retries() {
        let attempts = Attempts {
            count: 3,
            elapsed: Duration::from_millis(2_140),
        };
        let message = error_response(503, "", attempts).to_string();
        assert!(
            message.contains("to span search after 3 attempts in 2.1 s"),
            "{message}"
        );
    }

    #[test]
    fn keeps_transport_error_as_source() {
        let error = ClientError::Transport {
            operation: "span search",
            upstream: "datadoghq.eu".into(),
            source: TransportError::Dns,
            attempts: ONE_ATTEMPT,
        };
        let source = error.source().unwrap().downcast_ref::<TransportError>();
        assert_eq!(source, Some(&TransportError::Dns));
    }

    #[test]
    fn every_status_has_a_hint() {
        for status in [302, 400, 401, 403, 404, 409, 413, 418, 422, 500, 502, 599] {
            let error = error_response(status, "", ONE_ATTEMPT);
            assert_eq!(error.status(), Some(status));
            assert!(error.hint().len() > 20, "{status}");
        }
    }

    #[test]
    fn hint_of_404_on_this_machine_names_backend_address() {
        let mut error = error_response(404, "", ONE_ATTEMPT);
        assert!(error.hint().contains("DD_SITE"));
        if let ClientError::Status(response) = &mut error {
            response.upstream = "127.0.0.1:8787".into();
        }
        assert!(error.hint().contains("--api-url http://127.0.0.1:8126"));
    }

    #[test]
    fn not_found_messages_are_stable() {
        assert_eq!(
            ClientError::TraceNotFound("abc".into()).to_string(),
            "no spans found for trace abc"
        );
        assert_eq!(
            ClientError::SpanNotFound("7".into()).to_string(),
            "span not found: 7"
        );
        assert_eq!(ClientError::SpanNotFound("7".into()).status(), Some(404));
    }
}
