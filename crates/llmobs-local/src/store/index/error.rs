//! Errors of the index.

use crate::store::StoreError;
use crate::store::rows::ReadError;

/// Why the index cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error("tantivy failed: {0}")]
    Engine(#[from] tantivy::TantivyError),
    #[error("the files of the index cannot be used: {0}")]
    Files(#[from] std::io::Error),
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The engine panicked while reading its files.
    #[error("the files of the index are damaged")]
    DamagedFiles,
}

impl From<ReadError> for IndexError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Index(error) => IndexError::Engine(error),
            error => IndexError::Store(error.into()),
        }
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::from(error).into()
    }
}
