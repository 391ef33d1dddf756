//! Errors of SQLite as errors of a store.

use llmobs_sqlite::{Failure, OpenError};

use super::{Cause, StoreError};

/// The meaning of an SQLite error on the file `file`.
pub(crate) fn sqlite_error(error: rusqlite::Error, file: &str) -> StoreError {
    match Failure::from_error(&error) {
        Failure::DiskFull => StoreError::Full,
        Failure::NotWritable => StoreError::NotWritable(Cause::new(error)),
        Failure::Damaged => StoreError::Damaged {
            location: file.to_owned(),
            cause: Cause::new(error),
        },
        Failure::Unavailable => StoreError::Unavailable(Cause::new(error)),
    }
}

/// The meaning of a failure to open the file `file`.
pub(crate) fn open_error(error: OpenError, file: &str) -> StoreError {
    match error {
        OpenError::Sqlite(error) => sqlite_error(error, file),
        OpenError::NewerSchema { found, supported } => StoreError::Newer { found, supported },
        OpenError::ForeignFile => StoreError::Damaged {
            location: file.to_owned(),
            cause: Cause::new(error),
        },
    }
}
