//! The meaning of an SQLite error.

use rusqlite::{ErrorCode, ffi};

/// Extended codes of I/O errors on writes: a quota, a limit on file sizes, or a failing device.
const WRITE_ERRORS: [i32; 4] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_SHMSIZE,
];

/// What an SQLite error means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The disk is full. SQLite has rolled the transaction back.
    DiskFull,
    /// The file cannot be written: permissions, a quota, or a failing device.
    NotWritable,
    /// The file is not a database, or is damaged.
    Damaged,
    /// Any other error. It may pass, for example when another process holds the lock.
    Unavailable,
}

impl Failure {
    /// Classifies an error.
    pub fn from_error(error: &rusqlite::Error) -> Self {
        let Some(error) = error.sqlite_error() else {
            return Self::Unavailable;
        };
        match error.code {
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::SystemIoFailure if WRITE_ERRORS.contains(&error.extended_code) => {
                Self::NotWritable
            }
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                Self::NotWritable
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged,
            _ => Self::Unavailable,
        }
    }
}
