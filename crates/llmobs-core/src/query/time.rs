//! The time grammar of `from` and `to`.
//!
//! | Form | Example |
//! |---|---|
//! | now | `now` |
//! | date math | `now-15m`, `now-7d`, `now-2M` (months), `now+1h` |
//! | time ago | `15m`, `5min`, `2 hours`, `7d` |
//! | RFC 3339; UTC without a zone; midnight UTC without a time | `2026-07-01T10:00:00Z`, `2026-07-01` |
//! | Unix time in milliseconds (13 digits) or seconds (10 digits) | `1784000000000` |
//!
//! Months and years are calendar months and years in UTC. All other units have a fixed length.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Span, Timestamp};
use thiserror::Error;

use crate::model::TimeWindow;

/// An invalid time, or a time window that ends before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}; {hint}")]
pub struct TimeError {
    /// What is wrong.
    pub message: String,
    /// How to fix it, with examples that parse.
    pub hint: &'static str,
}

const FORMS_HINT: &str = "use now-7d, 15m (15 minutes ago), 2026-07-01T10:00:00Z, 2026-07-01, or \
                          a Unix time in milliseconds such as 1784000000000";

impl TimeError {
    fn invalid(text: &str) -> Self {
        // The start is enough to recognize the argument, which may be arbitrarily long.
        let start: String = text.chars().take(40).collect();
        Self {
            message: format!("{start:?} is not a valid time"),
            hint: FORMS_HINT,
        }
    }

    fn out_of_range() -> Self {
        Self {
            message: "the time is outside the supported years -9999 to 9999".to_owned(),
            hint: FORMS_HINT,
        }
    }
}

/// A unit of a duration.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// A fixed number of milliseconds.
    Milliseconds(i64),
    /// Calendar months.
    Months,
    /// Calendar years.
    Years,
}

impl Unit {
    /// Parses a unit. Only single letters are case-sensitive: `m` is a minute, `M` a month.
    fn parse(text: &str) -> Option<Self> {
        let long = text.to_ascii_lowercase();
        Some(match (text, long.as_str()) {
            ("M", _) | (_, "mo" | "month" | "months") => Unit::Months,
            ("s", _) | (_, "sec" | "secs" | "second" | "seconds") => Unit::Milliseconds(1_000),
            ("m", _) | (_, "min" | "mins" | "minute" | "minutes") => Unit::Milliseconds(60_000),
            ("h", _) | (_, "hr" | "hrs" | "hour" | "hours") => Unit::Milliseconds(3_600_000),
            ("d", _) | (_, "day" | "days") => Unit::Milliseconds(86_400_000),
            ("w", _) | (_, "week" | "weeks") => Unit::Milliseconds(604_800_000),
            ("y", _) | (_, "year" | "years") => Unit::Years,
            _ => return None,
        })
    }

    /// Adds `amount` units to `ms`; `None` outside the calendar.
    fn shift(self, ms: i64, amount: i64) -> Option<i64> {
        let span = match self {
            Unit::Milliseconds(length) => {
                let shifted = ms.checked_add(amount.checked_mul(length)?)?;
                return Timestamp::from_millisecond(shifted).ok().map(|_| shifted);
            }
            Unit::Months => Span::new().try_months(amount).ok()?,
            Unit::Years => Span::new().try_years(amount).ok()?,
        };
        let start = Offset::UTC.to_datetime(Timestamp::from_millisecond(ms).ok()?);
        let shifted = Offset::UTC
            .to_timestamp(start.checked_add(span).ok()?)
            .ok()?;
        Some(shifted.as_millisecond())
    }
}

/// Parses a time to milliseconds since the Unix epoch. `now_ms` is the current time.
///
/// # Errors
///
/// A text of no supported form, or a time outside the years -9999 to 9999.
pub fn parse_instant(text: &str, now_ms: i64) -> Result<i64, TimeError> {
    let text = text.trim();
    if let Some(offsets) = text.strip_prefix("now") {
        return apply_offsets(offsets, now_ms).map_err(|error| error.into_time_error(text));
    }
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return unix_time(text);
    }
    if let Some((amount, unit)) = parse_time_ago(text) {
        let amount: i64 = amount.parse().map_err(|_| TimeError::out_of_range())?;
        return unit
            .shift(now_ms, -amount)
            .ok_or_else(TimeError::out_of_range);
    }
    parse_calendar_time(text).ok_or_else(|| TimeError::invalid(text))
}

/// An error in date math.
enum OffsetError {
    Invalid,
    OutOfRange,
}

impl OffsetError {
    fn into_time_error(self, text: &str) -> TimeError {
        match self {
            OffsetError::Invalid => TimeError::invalid(text),
            OffsetError::OutOfRange => TimeError::out_of_range(),
        }
    }
}

/// Applies the offsets that follow `now` to `now_ms`: any number of `-7d` or `+1h`, with optional
/// spaces.
fn apply_offsets(offsets: &str, now_ms: i64) -> Result<i64, OffsetError> {
    let mut ms = now_ms;
    let mut rest = offsets.trim_start();
    while !rest.is_empty() {
        let (sign, tail) = match (rest.strip_prefix('-'), rest.strip_prefix('+')) {
            (Some(tail), _) => (-1, tail),
            (_, Some(tail)) => (1, tail),
            _ => return Err(OffsetError::Invalid),
        };
        let (amount, tail) = split_prefix(tail.trim_start(), |c| c.is_ascii_digit());
        let (unit, tail) = split_prefix(tail.trim_start(), |c| c.is_ascii_alphabetic());
        let unit = Unit::parse(unit).ok_or(OffsetError::Invalid)?;
        if amount.is_empty() {
            return Err(OffsetError::Invalid);
        }
        let amount: i64 = amount.parse().map_err(|_| OffsetError::OutOfRange)?;
        ms = unit
            .shift(ms, sign * amount)
            .ok_or(OffsetError::OutOfRange)?;
        rest = tail.trim_start();
    }
    Ok(ms)
}

/// Splits `text` after the longest prefix whose characters all match.
fn split_prefix(text: &str, matches: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !matches(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// The amount and the unit of `15m`, `5 minutes`, `2 hours ago` or `-7d`.
fn parse_time_ago(text: &str) -> Option<(&str, Unit)> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let (amount, unit) = split_prefix(text, |c| c.is_ascii_digit());
    if amount.is_empty() {
        return None;
    }
    Some((amount, Unit::parse(unit.trim_start())?))
}

fn unix_time(digits: &str) -> Result<i64, TimeError> {
    let value = digits.parse::<i64>().ok();
    match (digits.len(), value) {
        (13, Some(ms)) => Ok(ms),
        (10, Some(seconds)) => Ok(seconds * 1_000),
        (length, _) => Err(TimeError {
            message: format!(
                "a Unix time has 13 digits (milliseconds) or 10 digits (seconds), not {length}"
            ),
            hint: FORMS_HINT,
        }),
    }
}

/// Parses RFC 3339, or a date with or without a time, in UTC.
fn parse_calendar_time(text: &str) -> Option<i64> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    // `DateTime` parses most dates but not all of them, so try `Date` first.
    let datetime = match text.parse::<Date>() {
        Ok(date) if !text.contains(['T', 't', ' ', ':']) => date.at(0, 0, 0, 0),
        _ => text.parse::<DateTime>().ok()?,
    };
    let timestamp = Offset::UTC.to_timestamp(datetime).ok()?;
    Some(timestamp.as_millisecond())
}

/// Parses a time window. `to` defaults to now. `from` defaults to `default_from` relative to the
/// end of the window, so that `to` alone, in the past, still gives a window.
///
/// # Errors
///
/// An invalid time, or `from` after `to`.
pub fn parse_window(
    from: Option<&str>,
    to: Option<&str>,
    default_from: &str,
    now_ms: i64,
) -> Result<TimeWindow, TimeError> {
    let to_ms = parse_instant(to.unwrap_or("now"), now_ms)?;
    let from_ms = match from {
        Some(from) => parse_instant(from, now_ms)?,
        None => parse_instant(default_from, to_ms.min(now_ms))?,
    };
    if from_ms > to_ms {
        return Err(TimeError {
            message: format!(
                "`from` ({}) is later than `to` ({})",
                format_rfc3339(from_ms),
                format_rfc3339(to_ms)
            ),
            hint: "swap them, or give only the start: from=now-7d, to=now",
        });
    }
    Ok(TimeWindow { from_ms, to_ms })
}

/// Formats a time as RFC 3339 with milliseconds, in UTC: `2026-07-01T10:00:00.000Z`. A time
/// outside the calendar is clamped to it.
pub fn format_rfc3339(ms: i64) -> String {
    let nearest = if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(nearest);
    format!("{timestamp:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// 2026-03-31T12:00:00Z.
    const NOW: i64 = 1_774_958_400_000;

    fn parsed(text: &str) -> String {
        format_rfc3339(parse_instant(text, NOW).unwrap())
    }

    #[rstest]
    #[case("now", "2026-03-31T12:00:00.000Z")]
    #[case(" now ", "2026-03-31T12:00:00.000Z")]
    #[case("now-30s", "2026-03-31T11:59:30.000Z")]
    #[case("now-15m", "2026-03-31T11:45:00.000Z")]
    #[case("now-24h", "2026-03-30T12:00:00.000Z")]
    #[case("now-7d", "2026-03-24T12:00:00.000Z")]
    #[case("now-2w", "2026-03-17T12:00:00.000Z")]
    #[case("now-2M", "2026-01-31T12:00:00.000Z")]
    #[case("now-1M", "2026-02-28T12:00:00.000Z")]
    #[case("now-1y", "2025-03-31T12:00:00.000Z")]
    #[case("now+1h", "2026-03-31T13:00:00.000Z")]
    #[case("now - 1d + 1h", "2026-03-30T13:00:00.000Z")]
    #[case("15m", "2026-03-31T11:45:00.000Z")]
    #[case("2M", "2026-01-31T12:00:00.000Z")]
    #[case("5min", "2026-03-31T11:55:00.000Z")]
    #[case("2hours", "2026-03-31T10:00:00.000Z")]
    #[case("5 minutes", "2026-03-31T11:55:00.000Z")]
    #[case("5 Minutes ago", "2026-03-31T11:55:00.000Z")]
    #[case("-7d", "2026-03-24T12:00:00.000Z")]
    #[case("2026-07-01T10:00:00Z", "2026-07-01T10:00:00.000Z")]
    #[case("2026-07-01T10:00:00.1239Z", "2026-07-01T10:00:00.123Z")]
    #[case("2026-07-01t12:00:00+02:00", "2026-07-01T10:00:00.000Z")]
    #[case("2026-07-01T10:00:00", "2026-07-01T10:00:00.000Z")]
    #[case("2026-07-01 10:00", "2026-07-01T10:00:00.000Z")]
    #[case("2026-07-01", "2026-07-01T00:00:00.000Z")]
    #[case("1784000000000", "2026-07-14T03:33:20.000Z")]
    #[case("1784000000", "2026-07-14T03:33:20.000Z")]
    fn parses_every_form(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parsed(text), expected);
    }

    #[rstest]
    #[case("")]
    #[case("yesterday")]
    #[case("now-")]
    #[case("now-7")]
    #[case("now-d")]
    #[case("now7d")]
    #[case("now-7x")]
    #[case("now/d")]
    #[case("now-99999999999999999999d")]
    #[case("now-9999999999999M")]
    #[case("now-20000y")]
    #[case("9223372036854775807d")]
    #[case("12345")]
    #[case("1784000000000000000")]
    #[case("2026-13-01")]
    #[case("2026-02-30")]
    #[case("2026-07")]
    #[case("10:00")]
    #[case("é")]
    fn refuses_other_forms_with_examples(#[case] text: &str) {
        let error = parse_instant(text, NOW).unwrap_err();
        assert!(error.to_string().contains("now-7d"), "{error}");
        assert!(error.to_string().len() < 300, "{error}");
    }

    #[test]
    fn every_example_in_the_hint_parses() {
        for text in [
            "now-7d",
            "15m",
            "2026-07-01T10:00:00Z",
            "2026-07-01",
            "1784000000000",
        ] {
            assert!(FORMS_HINT.contains(text));
            assert!(parse_instant(text, NOW).is_ok(), "{text}");
        }
    }

    #[test]
    fn window_defaults_to_now_and_default_start() {
        let day = 86_400_000;
        let ends = |from, to| {
            let window = parse_window(from, to, "now-1d", NOW).unwrap();
            (NOW - window.from_ms, NOW - window.to_ms)
        };
        assert_eq!(ends(None, None), (day, 0));
        assert_eq!(ends(Some("now-7d"), None), (7 * day, 0));
        assert_eq!(ends(None, Some("now-30d")), (31 * day, 30 * day));
        assert_eq!(ends(None, Some("now+1d")), (day, -day));
        assert_eq!(ends(Some("now"), Some("now")), (0, 0));
    }

    #[test]
    fn refuses_reversed_window() {
        let error = parse_window(Some("now"), Some("now-1d"), "now-1d", NOW).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`from` (2026-03-31T12:00:00.000Z) is later than `to` (2026-03-30T12:00:00.000Z); \
             swap them, or give only the start: from=now-7d, to=now"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), now in any::<i64>()) {
            let _ = parse_instant(&text, now);
            let _ = parse_window(Some(&text), None, "now-1d", now);
        }

        #[test]
        fn nothing_overflows(
            text in "(now ?[+-])?[0-9]{1,20} ?(s|m|h|d|w|M|y|months|years)?", now in any::<i64>()
        ) {
            let _ = parse_instant(&text, now);
            let _ = parse_window(None, Some(&text), "now-1d", now);
        }

        #[test]
        fn formatted_time_round_trips(ms in -62_135_596_800_000_i64..253_402_207_200_000) {
            prop_assert_eq!(parse_instant(&format_rfc3339(ms), 0), Ok(ms));
        }

        #[test]
        fn formats_every_time(ms in any::<i64>()) {
            let _ = format_rfc3339(ms);
        }
    }
}
