//! The authorization modes of the MCP endpoint over HTTP.

use std::fmt;
use std::str::FromStr;

/// How the server authorizes callers over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// No authorization: every program that reaches the address calls with the server's credential.
    None,
    /// Each request brings its own Datadog credential.
    DatadogHeaders,
    /// Callers send a shared secret and call with the server's credential.
    StaticBearer,
    /// Users sign in at this server and call with their own Datadog credentials.
    OAuth,
}

/// A text that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the mode must be none, datadog-headers, static-bearer or oauth, for example --auth static-bearer"
)]
pub struct UnknownAuthMode;

impl AuthMode {
    /// Every mode.
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

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AuthMode {
    type Err = UnknownAuthMode;

    fn from_str(text: &str) -> Result<Self, UnknownAuthMode> {
        let text = text.trim();
        Self::ALL
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(UnknownAuthMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_of_modes() {
        for mode in AuthMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert!(UnknownAuthMode.to_string().contains(mode.name()));
        }
        assert_eq!(" OAuth ".parse(), Ok(AuthMode::OAuth));
        assert_eq!("basic".parse::<AuthMode>(), Err(UnknownAuthMode));
    }
}
