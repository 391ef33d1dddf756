//! Errors of the span store and the control store.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a store did not do what it was asked to do.
///
/// Clones share the cause: one failed commit may answer several requests.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The storage is full. Nothing of the write was stored.
    #[error(
        "the disk that holds the store is full, so nothing of this request was stored; free some space, then send the request again"
    )]
    Full,
    /// The storage cannot be written. Nothing of the write was stored.
    #[error(
        "the store cannot be written ({0}), so nothing of this request was stored; check the permissions, the quota and the free space of its storage, then send the request again"
    )]
    NotWritable(#[source] Cause),
    /// The store cannot be reached at the moment.
    #[error("the store is not available ({0}); try again in a moment")]
    Unavailable(#[source] Cause),
    /// The storage does not hold a readable store.
    #[error(
        "{location} is not a readable llmobs-mcp store ({cause}); restore it from a backup, or use another store (for local data, another --data-dir)"
    )]
    Damaged {
        /// The file, or another name of the storage.
        location: String,
        /// What is wrong with it.
        #[source]
        cause: Cause,
    },
    /// A newer version of this program wrote the store.
    #[error(
        "the store has schema version {found}, and this version of llmobs-mcp supports versions up to {supported}; upgrade llmobs-mcp, or use another store (for local data, another --data-dir)"
    )]
    Newer {
        /// The version of the store.
        found: i64,
        /// The newest version that this program supports.
        supported: i64,
    },
}

/// The cause of a [`StoreError`]: an error of the engine, or a sentence.
#[derive(Debug, Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl From<&str> for Cause {
    fn from(sentence: &str) -> Self {
        Self::new(sentence)
    }
}

impl From<String> for Cause {
    fn from(sentence: String) -> Self {
        Self::new(sentence)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
