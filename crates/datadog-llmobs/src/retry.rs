//! When a request is sent again, and when never.
//!
//! The class stands at each operation's definition; the HTTP method decides nothing, because
//! Datadog searches by POST. A write is never repeated unless the first attempt surely did not
//! execute: an idempotent one would do no harm, but only its caller knows what else has happened
//! since, so there the error merely says that sending it again is safe.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};
use rand::Rng;

use super::settings::HubSettings;
use super::transport::TransportError;

/// What repeating an operation would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationClass {
    /// It changes nothing.
    Read,
    /// It changes something, and twice is the same as once.
    Idempotent,
    /// Twice is not the same as once.
    NonIdempotent,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure<'a> {
    /// An error status.
    Status(StatusCode),
    /// No answer.
    Transport(&'a TransportError),
}

/// What a failed attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be sent again.
    Again,
    /// It failed, and sending it again would not help or is not allowed.
    Failed,
    /// It may have been executed.
    Unknown,
}

impl OperationClass {
    /// Judges a failed attempt.
    pub(crate) fn judge(self, failure: Failure<'_>) -> Verdict {
        let read = self == Self::Read;
        match failure {
            Failure::Status(StatusCode::TOO_MANY_REQUESTS) => Verdict::Again,
            Failure::Status(status) => match status.as_u16() {
                408 | 500 | 502 | 503 | 504 if read => Verdict::Again,
                // "Too early": the server declined to execute it.
                425 if read => Verdict::Again,
                408 | 500..=599 if !read => Verdict::Unknown,
                _ => Verdict::Failed,
            },
            Failure::Transport(error) if read || error.surely_not_executed() => {
                if error.is_transient() {
                    Verdict::Again
                } else {
                    Verdict::Failed
                }
            }
            Failure::Transport(_) => Verdict::Unknown,
        }
    }
}

/// A random wait before attempt `attempt + 1`: full jitter under an exponential ceiling.
pub(crate) fn backoff(settings: &HubSettings, attempt: u32) -> Duration {
    let doubled = settings
        .backoff_base
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    jitter(doubled.min(settings.backoff_cap))
}

/// A random time from nothing to `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random_range(0.0..=1.0))
}

/// What an answer says of the rate limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RateHeaders {
    /// The bucket that the request counted for.
    pub(crate) name: Option<String>,
    /// Requests left in it.
    pub(crate) remaining: Option<u64>,
    /// Time until it is full again.
    pub(crate) reset: Option<Duration>,
}

/// The longest wait that is believed: a wrong header must not shut the gate for days.
const LONGEST_RESET: Duration = Duration::from_secs(3_600);

impl RateHeaders {
    /// Reads `X-RateLimit-Name`, `-Remaining`, `-Reset` and `Retry-After` (seconds or a date).
    pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let reset = text("x-ratelimit-reset").and_then(|text| seconds(text, now));
        let retry_after = text(header::RETRY_AFTER.as_str()).and_then(|text| {
            seconds(text, now).or_else(|| {
                // The server's own clock, where it tells it, so that skew does not matter.
                let then = http_date(text)?;
                let now = text_date(headers).or_else(|| epoch_seconds(now))?;
                Some(Duration::from_secs(
                    u64::try_from(then.saturating_sub(now)).unwrap_or_default(),
                ))
            })
        });
        Self {
            name: text("x-ratelimit-name").map(|name| name.chars().take(100).collect()),
            remaining: text("x-ratelimit-remaining").and_then(|text| text.trim().parse().ok()),
            reset: reset.max(retry_after).map(|wait| wait.min(LONGEST_RESET)),
        }
    }
}

/// Seconds, whole or with decimals; a number as large as a date is one (epoch seconds).
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

fn text_date(headers: &HeaderMap) -> Option<i64> {
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

    fn read(pairs: &[(&'static str, &str)]) -> RateHeaders {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        RateHeaders::read(&headers, UNIX_EPOCH + Duration::from_secs(NOW))
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
    fn every_form_of_a_rate_limit_is_read(
        #[case] headers: &[(&'static str, &str)],
        #[case] millis: Option<u64>,
    ) {
        assert_eq!(read(headers).reset, millis.map(Duration::from_millis));
    }

    #[test]
    fn the_bucket_and_what_is_left_are_read() {
        let headers = read(&[
            ("x-ratelimit-name", "llm_spans"),
            ("x-ratelimit-remaining", "0"),
        ]);
        assert_eq!(headers.name.as_deref(), Some("llm_spans"));
        assert_eq!(headers.remaining, Some(0));
    }

    #[test]
    fn a_write_is_repeated_only_if_it_surely_did_not_execute() {
        use OperationClass::{Idempotent, NonIdempotent, Read};
        let timeout = TransportError::Timeout(Duration::from_secs(1));
        let refused = TransportError::Connect("refused".into());
        let status = |code| Failure::Status(StatusCode::from_u16(code).unwrap());
        for class in [Idempotent, NonIdempotent] {
            assert_eq!(class.judge(status(500)), Verdict::Unknown);
            assert_eq!(class.judge(status(503)), Verdict::Unknown);
            assert_eq!(class.judge(status(408)), Verdict::Unknown);
            assert_eq!(class.judge(status(429)), Verdict::Again);
            assert_eq!(class.judge(status(404)), Verdict::Failed);
            assert_eq!(class.judge(Failure::Transport(&timeout)), Verdict::Unknown);
            assert_eq!(class.judge(Failure::Transport(&refused)), Verdict::Again);
        }
        for code in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(Read.judge(status(code)), Verdict::Again, "{code}");
        }
        for code in [302, 400, 401, 403, 404, 409, 413, 422, 501] {
            assert_eq!(Read.judge(status(code)), Verdict::Failed, "{code}");
        }
        assert_eq!(Read.judge(Failure::Transport(&timeout)), Verdict::Again);
        let large = TransportError::BodyTooLarge { limit: 1 };
        assert_eq!(Read.judge(Failure::Transport(&large)), Verdict::Failed);
    }

    #[test]
    fn the_wait_stays_under_a_ceiling_that_doubles() {
        let settings = HubSettings::default();
        for (attempt, ceiling) in [(1, 500), (2, 1_000), (3, 2_000), (9, 8_000), (80, 8_000)] {
            for _ in 0..50 {
                assert!(backoff(&settings, attempt) <= Duration::from_millis(ceiling));
            }
        }
    }
}
