//! What can go wrong between a question and Datadog's answer, in words that lead on.
//!
//! Every variant says what happened, `hint` says what to do. Words that an upstream sent are cut,
//! cleaned of control characters and of secrets before they are kept; the log never sees more.

mod body;

use http::StatusCode;
use thiserror::Error;

use super::transport::TransportError;
use llmobs_core::model::{SpanId, TraceId};
use llmobs_core::query::ParseError;

pub(crate) use body::upstream_words;

/// An error status, and what the upstream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// What was asked, for example `span search`.
    pub operation: &'static str,
    /// Who answered, for example `datadoghq.eu`.
    pub upstream: String,
    /// What the body said, cleaned and at most 2 KiB; may be empty.
    pub words: String,
    /// The upstream's name for the request, to quote to its support.
    pub request_id: Option<String>,
    /// The kind of credential that was sent.
    pub credential: &'static str,
}

/// Why a question has no answer.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// The upstream answered with an error status other than 429.
    #[error("{}", refusal_words(.0))]
    Status(Box<ErrorResponse>),
    /// The upstream, or this client on its behalf, allows no more requests for now.
    #[error("{}", rate_words(.operation, .upstream, *.retry_after_seconds, .words))]
    RateLimited {
        /// What was asked.
        operation: &'static str,
        /// Who limits.
        upstream: String,
        /// When to ask again, in seconds, if known.
        retry_after_seconds: Option<u64>,
        /// What the body said.
        words: String,
    },
    /// A success status without the JSON that it promises.
    #[error(
        "{upstream} answered {status} to {operation}, but with {what} instead of the promised JSON"
    )]
    Unreadable {
        /// What was asked.
        operation: &'static str,
        /// Who answered.
        upstream: String,
        /// The HTTP status.
        status: u16,
        /// What came.
        what: String,
    },
    /// No answer at all.
    #[error("{operation} got no answer from {upstream}: {error}")]
    Transport {
        /// What was asked.
        operation: &'static str,
        /// Who was asked.
        upstream: String,
        /// Why.
        error: TransportError,
    },
    /// The time of the tool call is over.
    #[error("{operation} was given up: the time of this call ({seconds} s) is over")]
    Deadline {
        /// What was asked.
        operation: &'static str,
        /// How long the call was allowed to take.
        seconds: u64,
    },
    /// A write that may or may not have happened.
    #[error("it is not known whether {operation} was carried out: {cause}")]
    OutcomeUnknown {
        /// What was asked.
        operation: &'static str,
        /// What was seen.
        cause: Box<ClientError>,
        /// Whether sending the same again does no harm.
        safe_to_repeat: bool,
    },
    /// No span of this trace is known.
    #[error("no spans found for trace {0}")]
    TraceNotFound(TraceId),
    /// The trace has no such span.
    #[error("span not found: {0}")]
    SpanNotFound(SpanId),
    /// There is no such experiment, or none that this credential may see.
    #[error("experiment not found: {0}")]
    ExperimentNotFound(String),
    /// An id that cannot stand in a path; nothing was sent.
    #[error("{operation} was not sent: one of its ids is empty or made of dots")]
    BadId {
        /// What was asked.
        operation: &'static str,
    },
    /// The query text was refused before anything was sent.
    #[error("the query cannot be sent: {} (at byte {} of it)", .0.message, .0.position)]
    BadQuery(#[from] ParseError),
    /// The upstream's search ran out of time before it found anything.
    #[error(
        "{upstream} ran out of time during {operation} before it found anything, so it is not known whether there is something"
    )]
    SearchTimedOut {
        /// What was asked.
        operation: &'static str,
        /// Who was asked.
        upstream: String,
    },
}

impl ClientError {
    /// The HTTP status behind the error, if there is one. Not-found errors are 404.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(refusal) => Some(refusal.status),
            Self::RateLimited { .. } => Some(429),
            Self::Unreadable { status, .. } => Some(*status),
            Self::OutcomeUnknown { cause, .. } => cause.status(),
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

    /// When to ask again, in seconds, after too many requests.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::RateLimited {
                retry_after_seconds,
                ..
            } => *retry_after_seconds,
            _ => None,
        }
    }

    /// The same refusal, with our own reason why it could not be helped.
    pub(crate) fn because(mut self, why: &str) -> Self {
        if let Self::Status(refusal) = &mut self {
            let gap = if refusal.words.is_empty() { "" } else { "; " };
            refusal.words.push_str(&format!("{gap}{why}"));
        }
        self
    }

    /// Whether a write may or may not have happened.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Whether less would have been answered: the page was too large.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Status(refusal) => refusal.status == StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
            Self::Transport { error, .. } => matches!(error, TransportError::BodyTooLarge { .. }),
            _ => false,
        }
    }

    /// Whether it is only the caller's time that ran out: another caller may have more.
    pub(crate) fn is_out_of_time(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::RateLimited { .. })
    }

    /// What to do next, in one or two sentences.
    pub fn hint(&self) -> String {
        match self {
            Self::Status(refusal) => status_hint(refusal),
            Self::RateLimited {
                retry_after_seconds,
                ..
            } => match retry_after_seconds {
                Some(seconds) => format!(
                    "Wait {seconds} s, then ask again; ask for fewer things at a time, or narrow the window."
                ),
                None => "Wait a minute, then ask again; ask for fewer things at a time.".to_owned(),
            },
            Self::Unreadable { .. } => "Something between here and the upstream answered in its place: check the site (DD_SITE), the proxy variables (HTTPS_PROXY, NO_PROXY) and --api-url; `llmobs-mcp doctor --probe` shows what each endpoint answers.".to_owned(),
            Self::Transport { error, .. } => transport_hint(error).to_owned(),
            Self::Deadline { .. } => "Ask again: what was already read is kept for a short while. Narrow the window or lower the limit if it happens again.".to_owned(),
            Self::OutcomeUnknown { safe_to_repeat: true, .. } => "Sending the same call again is safe: it has the same effect once or twice.".to_owned(),
            Self::OutcomeUnknown { .. } => "Do not send it again before you have read the list or the item that it would have changed.".to_owned(),
            Self::TraceNotFound(_) => "Check that this is the LLM Observability trace id (32 hexadecimal digits, from search_llmobs_spans), not the APM trace id; for an APM one search with apm_trace_id. Spans are kept for a limited time.".to_owned(),
            Self::SpanNotFound(_) => "Check the span id with get_llmobs_trace: a span id counts only within its own trace.".to_owned(),
            Self::ExperimentNotFound(_) => "Check the id with list_llmobs_experiments: it is the experiment's UUID, not its name. The site and the organisation must be the ones it ran on.".to_owned(),
            Self::BadId { .. } => "Send the id as the list gave it.".to_owned(),
            Self::BadQuery(error) => error.hint.clone(),
            Self::SearchTimedOut { .. } => "Narrow the window (for example from: now-1d) or add a filter such as ml_app, then ask again.".to_owned(),
        }
    }
}

fn refusal_words(refusal: &ErrorResponse) -> String {
    let ErrorResponse {
        status,
        operation,
        upstream,
        words,
        ..
    } = refusal;
    let meaning = StatusCode::from_u16(*status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map(|reason| format!(" ({})", reason.to_lowercase()))
        .unwrap_or_default();
    let mut text = format!("{upstream} answered {status}{meaning} to {operation}");
    if (300..400).contains(status) {
        text.push_str(", a redirect, which is not followed");
    }
    if !words.is_empty() {
        text.push_str(": ");
        text.push_str(words);
    }
    if let Some(id) = &refusal.request_id {
        text.push_str(&format!(" [request id {id}]"));
    }
    text
}

fn rate_words(operation: &str, upstream: &str, seconds: Option<u64>, words: &str) -> String {
    let when = seconds.map_or(String::new(), |seconds| {
        format!("; it allows them again in {seconds} s")
    });
    let words = if words.is_empty() {
        String::new()
    } else {
        format!(" ({words})")
    };
    format!("rate_limited: {upstream} answers 429 (too many requests) to {operation}{words}{when}")
}

fn status_hint(refusal: &ErrorResponse) -> String {
    let credential = refusal.credential;
    match refusal.status {
        400 => "Check the query text and the values of the filters: the message above says what was not accepted.".to_owned(),
        401 if credential == "no credential" => "No credential was sent. Set DD_API_KEY and DD_APPLICATION_KEY (or DD_ACCESS_TOKEN), and DD_SITE if the site is not datadoghq.com.".to_owned(),
        401 => format!("The {credential} was not accepted. Check that it is complete, not revoked, and was made on the site that DD_SITE names; `llmobs-mcp doctor` tries it."),
        403 => format!("The {credential} may not do this. Give its owner the LLM Observability permissions (read, and write for changes), or widen the key's scopes; a key of another site gives the same answer."),
        404 => "Check the id. If every call gives 404, LLM Observability may not be enabled for this organisation or site (DD_SITE).".to_owned(),
        409 => "Something of that name exists already, or it was changed in the meantime: read it, then try again.".to_owned(),
        413 => "Ask for less: a smaller limit, a narrower window, or single spans by id.".to_owned(),
        422 => "A value was not accepted: the message above says which; correct it and send again.".to_owned(),
        300..=399 => "Check DD_SITE, or --api-url: the API does not redirect; a proxy or a sign-in page may stand in between.".to_owned(),
        500..=599 => "The upstream has trouble. Ask again in a minute; a narrower window is easier to answer.".to_owned(),
        _ => "`llmobs-mcp doctor --probe` shows what each endpoint answers.".to_owned(),
    }
}

fn transport_hint(error: &TransportError) -> &'static str {
    match error {
        TransportError::Dns => "Check DD_SITE and the network; behind a proxy set HTTPS_PROXY.",
        TransportError::Connect(_) | TransportError::ConnectTimeout => {
            "Check the network, the proxy variables (HTTPS_PROXY, NO_PROXY), and that the upstream is running."
        }
        TransportError::Tls(_) => {
            "Check the system's CA certificates and clock; behind a proxy that opens TLS, name the file of its certificate: --ca-file FILE (or LLMOBS_MCP_CA_FILE)."
        }
        TransportError::NotSent(_) => "Use https, or http on this machine only.",
        TransportError::Timeout(_) => {
            "Ask again; narrow the window or lower the limit if it happens again."
        }
        TransportError::Interrupted(_) => "Ask again in a moment.",
        TransportError::BodyTooLarge { .. } => {
            "Ask for less: a smaller limit, a narrower window, or single spans by id."
        }
        TransportError::BadEncoding => {
            "Something between here and the upstream spoils the answer: check the proxy."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, words: &str) -> ClientError {
        ClientError::Status(Box::new(ErrorResponse {
            status,
            operation: "span search",
            upstream: "datadoghq.eu".into(),
            words: words.into(),
            request_id: Some("r-1".into()),
            credential: "API key and application key",
        }))
    }

    #[test]
    fn a_refusal_says_who_what_and_why() {
        assert_eq!(
            refusal(403, "missing permission").to_string(),
            "datadoghq.eu answered 403 (forbidden) to span search: missing permission [request id r-1]"
        );
        assert!(refusal(404, "").to_string().contains("404 (not found)"));
        assert!(refusal(302, "").to_string().contains("not followed"));
    }

    #[test]
    fn every_status_has_a_mend() {
        for status in [302, 400, 401, 403, 404, 409, 413, 418, 422, 500, 502, 599] {
            let error = refusal(status, "");
            assert_eq!(error.status(), Some(status));
            assert!(error.hint().len() > 20, "{status}");
        }
    }

    #[test]
    fn the_words_that_clients_branch_on_stay() {
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
