//! Errors of commands: what is wrong and why, and a hint how to fix it.

use std::fmt::Display;

use datadog_llmobs::login::{LoginError, LoginStoreError};

use super::settings::SettingsError;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The environment, a flag's value or the config file is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The command line is wrong in a way that only the command can check.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// How to fix it, with an example.
        hint: String,
    },
    /// The command failed.
    #[error("{what}")]
    Failed {
        /// What failed and why.
        what: String,
        /// How to fix it.
        hint: String,
    },
}

impl CliError {
    /// The command line is wrong.
    pub(crate) fn usage(what: impl Display, hint: impl Into<String>) -> Self {
        Self::Usage {
            what: what.to_string(),
            hint: hint.into(),
        }
    }

    /// The command failed.
    pub(crate) fn failed(what: impl Display, hint: impl Into<String>) -> Self {
        Self::Failed {
            what: what.to_string(),
            hint: hint.into(),
        }
    }

    /// How to fix it, unless the message already says so.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => Some(hint.clone()),
        }
        .filter(|hint| !hint.is_empty())
    }

    /// The exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Usage { .. } => 2,
            Self::Failed { .. } => 1,
        }
    }
}

impl From<LoginError> for CliError {
    fn from(error: LoginError) -> Self {
        Self::failed(&error, error.hint())
    }
}

impl From<LoginStoreError> for CliError {
    fn from(error: LoginStoreError) -> Self {
        Self::failed(&error, error.hint())
    }
}
