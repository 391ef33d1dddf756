//! Errors of the store of logins, each with a hint.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::super::cause::ErrorCause;

/// Why logins cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginStoreError {
    /// The file or its directory failed.
    #[error("the login file {path} cannot be {verb}: {source}", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// `read`, `written` or `locked`.
        verb: &'static str,
        /// The error of the system.
        source: ErrorCause,
    },
    /// Other users can read the file, or can have replaced it.
    #[error("the login file {path} was ignored because {reason}", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Which permission or property is wrong.
        reason: &'static str,
    },
    /// The file is malformed, or a newer version wrote it.
    #[error("the login file {path} is damaged or was written by a newer version", path = .0.display())]
    Damaged(PathBuf),
    /// Another process does not release the lock.
    #[error("another process has held the lock {path} for {seconds} seconds", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The time waited.
        seconds: u64,
    },
    /// The tokens are in the system keyring, which did not return them.
    #[error("the system keyring did not return the login: {0}")]
    Keyring(String),
}

impl LoginStoreError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            Self::File { .. } => {
                "check the permissions of the directory, or set another one: LLMOBS_MCP_STATE_DIR=/path/to/directory".to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "restrict the permissions and sign in again, because other users may have read the tokens: chmod 700 {directory} && chmod 600 {path}",
                directory = path.parent().unwrap_or(Path::new(".")).display(),
                path = path.display(),
            ),
            Self::Damaged(path) => format!("remove {} and sign in again: llmobs-mcp login", path.display()),
            Self::Locked { .. } => "stop the llmobs-mcp process that hangs, then try again".to_owned(),
            Self::Keyring(_) => {
                "unlock the keyring, or sign in again and store the tokens in a file: llmobs-mcp login --storage file"
                    .to_owned()
            }
        }
    }
}
