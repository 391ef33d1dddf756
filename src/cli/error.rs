//! What a command can fail with, in the house style: what, why, the mend, an example.

use std::fmt::Display;

use super::settings::SettingsError;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The environment, a flag's value or the config file is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The command line is wrong in a way that only the command can see.
    #[error("{what}")]
    Usage {
        /// What was wrong.
        what: String,
        /// The mend, with an example.
        mend: String,
    },
    /// The work itself failed.
    #[error("{what}")]
    Failed {
        /// What failed and why.
        what: String,
        /// The mend.
        mend: String,
    },
}

impl CliError {
    /// The command line is wrong.
    pub(crate) fn usage(what: impl Display, mend: impl Into<String>) -> Self {
        Self::Usage {
            what: what.to_string(),
            mend: mend.into(),
        }
    }

    /// The work failed.
    pub(crate) fn failed(what: impl Display, mend: impl Into<String>) -> Self {
        Self::Failed {
            what: what.to_string(),
            mend: mend.into(),
        }
    }

    /// The mend, when it is not already in the message.
    pub(crate) fn mend(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.mend(),
            Self::Usage { mend, .. } | Self::Failed { mend, .. } => Some(mend.clone()),
        }
        .filter(|mend| !mend.is_empty())
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Usage { .. } => 2,
            Self::Failed { .. } => 1,
        }
    }
}
