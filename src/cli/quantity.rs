//! Quantities as people write them: days and sizes.

use std::time::Duration;

/// Parses a positive number of days.
pub(crate) fn days(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<u32>() {
        Ok(days) if days > 0 => Ok(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        _ => Err("expected a positive whole number of days, for example 30".to_owned()),
    }
}

/// Unit prefixes by power of 1,000, or of 1,024 with an `i`.
const UNITS: [&str; 5] = ["", "k", "m", "g", "t"];

/// Parses a size in bytes: `1500000`, `500MB`, `20 GB`, `2GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size, for example 500MB, 20GB or 2GiB".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or_default().trim();
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let (base, unit) = match unit.strip_suffix('i') {
        Some(unit) if !unit.is_empty() => (1_024u64, unit),
        _ => (1_000, unit),
    };
    let power = UNITS
        .iter()
        .position(|prefix| *prefix == unit)
        .ok_or_else(wrong)?;
    let factor = base.checked_pow(u32::try_from(power).unwrap_or(0));
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    factor
        .and_then(|factor| number.checked_mul(factor))
        .filter(|size| *size > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1500000", Some(1_500_000))]
    #[case("500MB", Some(500_000_000))]
    #[case(" 20 gb ", Some(20_000_000_000))]
    #[case("2GiB", Some(2 << 30))]
    #[case("3k", Some(3_000))]
    #[case("7B", Some(7))]
    #[case("0", None)]
    #[case("GB", None)]
    #[case("-1GB", None)]
    #[case("1.5GB", None)]
    #[case("1iB", None)]
    #[case("5XB", None)]
    #[case("99999999999TB", None)]
    #[case("", None)]
    fn parses_sizes(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(bytes(text).ok(), expected);
    }

    #[rstest]
    #[case("30", Some(30))]
    #[case(" 1 ", Some(1))]
    #[case("0", None)]
    #[case("-3", None)]
    #[case("1.5", None)]
    #[case("a month", None)]
    fn parses_whole_days(#[case] text: &str, #[case] expected: Option<u64>) {
        let expected = expected.map(|days| Duration::from_secs(days * 86_400));
        assert_eq!(days(text).ok(), expected);
    }
}
