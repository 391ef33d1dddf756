//! Numbers in a query, with an optional time unit.

use std::fmt;

/// A number in a query: `5`, `-0.5`, `1e3`, `20ms`. Always finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// The number before its unit.
    pub value: f64,
    /// The unit, if the query gives one.
    pub unit: Option<TimeUnit>,
}

/// A time unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// `ns`
    Nanoseconds,
    /// `us` or `μs`
    Microseconds,
    /// `ms`
    Milliseconds,
    /// `s`
    Seconds,
    /// `m`
    Minutes,
    /// `h`
    Hours,
}

/// Every spelling of a unit. Longer suffixes precede the suffixes that they end with. "Micro" has
/// two code points: the micro sign and the Greek letter.
const SUFFIXES: [(&str, TimeUnit); 8] = [
    ("ns", TimeUnit::Nanoseconds),
    ("us", TimeUnit::Microseconds),
    ("\u{b5}s", TimeUnit::Microseconds),
    ("\u{3bc}s", TimeUnit::Microseconds),
    ("ms", TimeUnit::Milliseconds),
    ("s", TimeUnit::Seconds),
    ("m", TimeUnit::Minutes),
    ("h", TimeUnit::Hours),
];

impl TimeUnit {
    /// The length of one unit in nanoseconds.
    pub fn nanoseconds(self) -> f64 {
        match self {
            TimeUnit::Nanoseconds => 1.0,
            TimeUnit::Microseconds => 1e3,
            TimeUnit::Milliseconds => 1e6,
            TimeUnit::Seconds => 1e9,
            TimeUnit::Minutes => 60e9,
            TimeUnit::Hours => 3_600e9,
        }
    }

    /// The suffix that `Display` writes.
    pub fn as_str(self) -> &'static str {
        match self {
            TimeUnit::Nanoseconds => "ns",
            TimeUnit::Microseconds => "us",
            TimeUnit::Milliseconds => "ms",
            TimeUnit::Seconds => "s",
            TimeUnit::Minutes => "m",
            TimeUnit::Hours => "h",
        }
    }
}

impl Number {
    /// Parses the complete text as a number; `None` if it is not a number or exceeds a float.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, unit) = SUFFIXES
            .into_iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, Some(unit))))
            .unwrap_or((text, None));
        let value = decimal(digits)?;
        Some(Self { value, unit })
    }

    /// The number converted to `unit`. A number without a unit is already in that unit.
    pub fn in_unit(self, unit: TimeUnit) -> f64 {
        match self.unit {
            Some(from) if from != unit => self.value * from.nanoseconds() / unit.nanoseconds(),
            _ => self.value,
        }
    }
}

/// Parses a decimal number. Unlike the standard library, it refuses `inf`, `infinity` and `nan`,
/// which are words in a query.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    if !text.chars().all(is_part) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The shortest decimal that parses to the same float.
        write!(f, "{}", self.value)?;
        f.write_str(self.unit.map_or("", TimeUnit::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_every_unit_to_nanoseconds() {
        for (text, nanoseconds) in [
            ("7", 7.0),
            ("7ns", 7.0),
            ("7us", 7e3),
            ("7µs", 7e3),
            ("7μs", 7e3),
            ("1.5ms", 1.5e6),
            ("5s", 5e9),
            ("2m", 120e9),
            ("1h", 3.6e12),
            ("1e3s", 1e12),
        ] {
            let number = Number::parse(text).unwrap();
            assert_eq!(number.in_unit(TimeUnit::Nanoseconds), nanoseconds, "{text}");
        }
    }

    #[test]
    fn converts_to_the_unit_of_the_value() {
        assert_eq!(
            Number::parse("250ms").unwrap().in_unit(TimeUnit::Seconds),
            0.25
        );
        assert_eq!(Number::parse("2").unwrap().in_unit(TimeUnit::Seconds), 2.0);
    }

    #[test]
    fn refuses_words_and_too_large_numbers() {
        for text in [
            "", "s", "inf", "nan", "infinity", "1e999", "5d", "0x10", "1_000", "5 s",
        ] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}
