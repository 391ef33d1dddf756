//! Errors of the settings.

use datadog_llmobs::login::LoginStoreError;
use datadog_llmobs::{ApiUrlError, CredentialError, SiteError};

/// An error in the settings. `name` is the flag, variable or key that holds the wrong value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Not a site, or a site that is not supported.
    #[error("{name}: {error}")]
    Site { name: String, error: SiteError },
    /// A base URL that must not receive credentials.
    #[error("{0}")]
    ApiUrl(#[from] ApiUrlError),
    /// Two sources of one secret differ.
    #[error("{one} and {other} are both set and differ")]
    Contradiction { one: String, other: String },
    /// A secret that does not fit into a header.
    #[error("{error}")]
    Credential { error: CredentialError },
    /// The file of a secret.
    #[error("{name} names a file that cannot be read: {why}")]
    SecretFile { name: String, why: String },
    /// A stored login that does not match.
    #[error("{name}: {why}")]
    Profile { name: String, why: String },
    /// The store of logins cannot be read.
    #[error("{error}")]
    Logins { error: LoginStoreError },
    /// A wrong value.
    #[error("{name}: {why}")]
    Value { name: String, why: String },
    /// The config file cannot be read.
    #[error("the config file {path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
    /// The config file is not TOML, or a key is wrong.
    #[error("the config file {path} is wrong{line}: {why}")]
    File {
        path: String,
        line: String,
        why: String,
    },
    /// This user has no home directory and no setting names the data directory.
    #[error("the data directory is unknown, because this user has no home directory")]
    NoHome,
    /// This user has no home directory and no setting names the state directory.
    #[error("the directory of stored logins is unknown, because this user has no home directory")]
    NoStateDir,
}

impl SettingsError {
    /// How to fix it, unless the message already says so.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Site { .. } | Self::ApiUrl(_) | Self::Credential { .. } | Self::Value { .. } => {
                return None;
            }
            Self::Profile { .. } => "`llmobs-mcp status` lists the stored logins".to_owned(),
            Self::Logins { error } => error.hint(),
            Self::Contradiction { one, other } => format!("unset {one} or {other}"),
            Self::SecretFile { name, .. } => {
                format!("set {name} to a readable file that holds only the secret")
            }
            Self::Unreadable { .. } | Self::File { .. } => {
                "an example of a valid file:\n    site = \"datadoghq.eu\"\n    toolsets = [\"llmobs\"]\n    read_only = true"
                    .to_owned()
            }
            Self::NoHome => "name one: --data-dir /path/to/directory".to_owned(),
            Self::NoStateDir => "name one: LLMOBS_MCP_STATE_DIR=/path/to/directory".to_owned(),
        };
        Some(hint)
    }
}
