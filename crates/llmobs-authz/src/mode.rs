//! The modes: how MCP callers over HTTP are told from strangers.

use std::fmt;
use std::str::FromStr;

/// How callers over HTTP are authorised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: whoever reaches the address calls with the server's own credentials.
    None,
    /// Each request brings its own Datadog credentials.
    DatadogHeaders,
    /// A shared secret stands in front of the server's own credentials.
    StaticBearer,
    /// Users sign in here and give their own Datadog credentials.
    OAuth,
}

/// A name that is no mode's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mode is one of none, datadog-headers, static-bearer and oauth, such as --auth static-bearer"
)]
pub struct UnknownMode;

impl Mode {
    /// Every mode, the simplest first.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::DatadogHeaders,
        Self::StaticBearer,
        Self::OAuth,
    ];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::DatadogHeaders => "datadog-headers",
            Self::StaticBearer => "static-bearer",
            Self::OAuth => "oauth",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let text = text.trim();
        Self::ALL
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(UnknownMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert!(UnknownMode.to_string().contains(mode.name()));
        }
        assert_eq!(" OAuth ".parse(), Ok(Mode::OAuth));
        assert_eq!("basic".parse::<Mode>(), Err(UnknownMode));
    }
}
