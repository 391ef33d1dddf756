//! How long and how much the local backend keeps: days and sizes as people write them.

use std::time::Duration;

use llmobs_local::Retention;

use super::{Environment, SettingsError, file};

/// What the environment or the config file says. Flags of `local` stand over it.
pub(super) fn resolve(env: &Environment, file: &file::Values) -> Result<Retention, SettingsError> {
    Ok(Retention {
        max_age: said(
            env,
            "LLMOBS_MCP_RETAIN_DAYS",
            &file.retain_days,
            "retain_days",
            days,
        )?,
        max_bytes: said(
            env,
            "LLMOBS_MCP_RETAIN_BYTES",
            &file.retain_bytes,
            "retain_bytes",
            bytes,
        )?,
    })
}

fn said<T>(
    env: &Environment,
    variable: &str,
    in_file: &Option<String>,
    key: &str,
    read: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, SettingsError> {
    let (name, text) = match (env.get(variable), in_file) {
        (Some(text), _) => (variable.to_owned(), text),
        (None, Some(text)) => (format!("{key} in the config file"), text.clone()),
        (None, None) => return Ok(None),
    };
    match read(&text) {
        Ok(value) => Ok(Some(value)),
        Err(why) => Err(SettingsError::Value { name, why }),
    }
}

/// A number of days above zero.
pub(crate) fn days(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<u32>() {
        Ok(days) if days > 0 => Ok(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        _ => Err("a whole number of days above zero is wanted, for example 30".to_owned()),
    }
}

/// Units by the power of a thousand, or of 1,024 with an `i`.
const UNITS: [&str; 5] = ["", "k", "m", "g", "t"];

/// A size in bytes: `1500000`, `500MB`, `20 GB`, `2GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "a size is wanted, for example 500MB, 20GB or 2GiB".to_owned();
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
        .position(|known| *known == unit)
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
    fn sizes(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(bytes(text).ok(), expected);
    }

    #[rstest]
    #[case("30", Some(30))]
    #[case(" 1 ", Some(1))]
    #[case("0", None)]
    #[case("-3", None)]
    #[case("1.5", None)]
    #[case("a month", None)]
    fn whole_days(#[case] text: &str, #[case] expected: Option<u64>) {
        let expected = expected.map(|days| Duration::from_secs(days * 86_400));
        assert_eq!(days(text).ok(), expected);
    }
}
