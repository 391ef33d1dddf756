//! When a request is sent again.
//!
//! Each operation declares its class. The HTTP method decides nothing, because Datadog searches by
//! POST. A write is repeated only if the first attempt certainly was not executed. Repeating an
//! idempotent write would be harmless in itself, but only its caller knows what has changed since, so
//! the error merely says that sending it again is safe.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use rand::Rng;

use super::settings::HubSettings;
use super::transport::TransportError;

/// What repeating an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationClass {
    /// It changes nothing.
    Read,
    /// It has the same effect once or twice.
    Idempotent,
    /// It has another effect if executed twice.
    NonIdempotent,
}

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum AttemptFailure {
    /// An error status.
    Status(Response<Bytes>),
    /// No response.
    Transport(TransportError),
}

impl AttemptFailure {
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status(response) => Some(response.status()),
            Self::Transport(_) => None,
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureAction {
    /// Send it again.
    Retry,
    /// Return the error: another attempt would not help.
    Fail,
    /// Return an error that says that the operation may have been executed.
    OutcomeUnknown,
}

impl OperationClass {
    /// What to do after a failed attempt of an operation of this class.
    pub(crate) fn action_after(self, failure: &AttemptFailure) -> FailureAction {
        match failure {
            AttemptFailure::Status(response) => self.action_after_status(response.status()),
            AttemptFailure::Transport(error) => {
                if self != Self::Read && !error.surely_not_executed() {
                    FailureAction::OutcomeUnknown
                } else if error.is_transient() {
                    FailureAction::Retry
                } else {
                    FailureAction::Fail
                }
            }
        }
    }

    fn action_after_status(self, status: StatusCode) -> FailureAction {
        let is_read = self == Self::Read;
        match status.as_u16() {
            429 => FailureAction::Retry,
            // 425 means that the server declined to execute the request.
            408 | 425 | 500 | 502 | 503 | 504 if is_read => FailureAction::Retry,
            408 | 500..=599 if !is_read => FailureAction::OutcomeUnknown,
            _ => FailureAction::Fail,
        }
    }
}

/// The random wait after attempt `attempt`: full jitter under an exponential ceiling.
pub(crate) fn backoff(settings: &HubSettings, attempt: u32) -> Duration {
    let doubled = settings
        .backoff_base
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    jitter(doubled.min(settings.backoff_cap))
}

/// A random duration between zero and `max`.
pub(crate) fn jitter(max: Duration) -> Duration {
    max.mul_f64(rand::rng().random_range(0.0..=1.0))
}

/// The rate limit headers of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RateLimitHeaders {
    /// The name of the rate limit bucket.
    pub(crate) name: Option<String>,
    /// The remaining requests of the bucket.
    pub(crate) remaining: Option<u64>,
    /// The time until the bucket is refilled.
    pub(crate) reset: Option<Duration>,
}

/// Longer waits are reduced to this, so that a wrong header cannot block a bucket for days.
const MAX_RESET: Duration = Duration::from_secs(3_600);

impl RateLimitHeaders {
    /// Reads `X-RateLimit-Name`, `-Remaining`, `-Reset` and `Retry-After` (seconds or a date).
    pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let reset = text("x-ratelimit-reset").and_then(|text| seconds(text, now));
        let retry_after = text(header::RETRY_AFTER.as_str()).and_then(|text| {
            seconds(text, now).or_else(|| {
                // Uses the server's clock if the response has a date, so that skew does not matter.
                let then = http_date(text)?;
                let now = response_date(headers).or_else(|| epoch_seconds(now))?;
                Some(Duration::from_secs(
                    u64::try_from(then.saturating_sub(now)).unwrap_or_default(),
                ))
            })
        });
        Self {
            name: text("x-ratelimit-name").map(|name| name.chars().take(100).collect()),
            remaining: text("x-ratelimit-remaining").and_then(|text| text.trim().parse().ok()),
            reset: reset.max(retry_after).map(|wait| wait.min(MAX_RESET)),
        }
    }
}

/// Parses seconds, whole or fractional. A number as large as a date is epoch seconds.
fn seconds(text: &str, now: SystemTime) -> Option<Duration> {
    let number: f64 = text
        .trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    let now = epoch_seconds(now)? as f64;
    let wait = if number > 1e9 { number - now } else { number };
    Duration::try_from_secs_f64(wait.max(0.0)).ok()
}

fn response_date(headers: &HeaderMap) -> Option<i64> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()
        .map(jiff::Timestamp::as_second)
}

fn epoch_seconds(now: SystemTime) -> Option<i64> {
    now.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOW: u64 = 1_790_000_000;

    fn read(pairs: &[(&'static str, &str)]) -> RateLimitHeaders {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        RateLimitHeaders::read(&headers, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&[("x-ratelimit-reset", "7")], Some(7_000))]
    #[case(&[("x-ratelimit-reset", "1.5")], Some(1_500))]
    #[case(&[("x-ratelimit-reset", "1790000009")], Some(9_000))]
    #[case(&[("retry-after", "3")], Some(3_000))]
    #[case(&[("retry-after", "3"), ("x-ratelimit-reset", "8")], Some(8_000))]
    #[case(&[("retry-after", "Mon, 21 Sep 2026 13:33:30 GMT"), ("date", "Mon, 21 Sep 2026 13:33:20 GMT")], Some(10_000))]
    #[case(&[("retry-after", "Mon, 21 Sep 2026 13:33:20 GMT"), ("date", "Mon, 21 Sep 2026 13:33:30 GMT")], Some(0))]
    #[case(&[("retry-after", "-3")], Some(0))]
    #[case(&[("retry-after", "soon"), ("x-ratelimit-reset", "NaN")], None)]
    #[case(&[("retry-after", "99999999")], Some(3_600_000))]
    fn reads_every_format_of_reset(
        #[case] headers: &[(&'static str, &str)],
        #[case] millis: Option<u64>,
    ) {
        assert_eq!(read(headers).reset, millis.map(Duration::from_millis));
    }

    #[test]
    fn reads_bucket_and_remaining_requests() {
        let headers = read(&[
            ("x-ratelimit-name", "llm_spans"),
            ("x-ratelimit-remaining", "0"),
        ]);
        assert_eq!(headers.name.as_deref(), Some("llm_spans"));
        assert_eq!(headers.remaining, Some(0));
    }

    #[test]
    fn retries_write_only_if_surely_not_executed() {
        use OperationClass::{Idempotent, NonIdempotent, Read};
        let status = |code: u16| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            AttemptFailure::Status(response)
        };
        let timeout = AttemptFailure::Transport(TransportError::Timeout(Duration::from_secs(1)));
        let refused = AttemptFailure::Transport(TransportError::Connect("refused".into()));
        for class in [Idempotent, NonIdempotent] {
            for code in [408, 500, 503] {
                let action = class.action_after(&status(code));
                assert_eq!(action, FailureAction::OutcomeUnknown, "{code}");
            }
            assert_eq!(class.action_after(&status(429)), FailureAction::Retry);
            assert_eq!(class.action_after(&status(404)), FailureAction::Fail);
            assert_eq!(class.action_after(&timeout), FailureAction::OutcomeUnknown);
            assert_eq!(class.action_after(&refused), FailureAction::Retry);
        }
        for code in [408, 425, 429, 500, 502, 503, 504] {
            let action = Read.action_after(&status(code));
            assert_eq!(action, FailureAction::Retry, "{code}");
        }
        for code in [302, 400, 401, 403, 404, 409, 413, 422, 501] {
            let action = Read.action_after(&status(code));
            assert_eq!(action, FailureAction::Fail, "{code}");
        }
        assert_eq!(Read.action_after(&timeout), FailureAction::Retry);
        let large = AttemptFailure::Transport(TransportError::BodyTooLarge { limit: 1 });
        assert_eq!(Read.action_after(&large), FailureAction::Fail);
    }

    #[test]
    fn backoff_stays_below_doubling_ceiling() {
        let settings = HubSettings::default();
        for (attempt, ceiling) in [(1, 500), (2, 1_000), (3, 2_000), (9, 8_000), (80, 8_000)] {
            for _ in 0..50 {
                assert!(backoff(&settings, attempt) <= Duration::from_millis(ceiling));
            }
        }
    }
}
