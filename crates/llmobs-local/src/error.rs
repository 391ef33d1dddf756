//! Errors of the backend.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::StoreError;

/// Why the backend cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A store reported an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address is not a loopback address.
    #[error(
        "{0} is not a loopback address, and the local backend has no access control; use for example --listen 127.0.0.1:8126"
    )]
    NotLoopback(SocketAddr),
    /// The requested address cannot be bound.
    #[error(
        "cannot listen on {address} ({source}); stop the program that uses it, perhaps a Datadog Agent, or choose another port, for example --listen 127.0.0.1:8127"
    )]
    PortTaken {
        /// The requested address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process owns the data directory and does not answer.
    #[error(
        "another process holds the data directory {directory} but does not answer ({reason}); stop that process, or choose another --data-dir"
    )]
    OwnerUnreachable {
        /// The data directory.
        directory: String,
        /// Why the process cannot be reached.
        reason: String,
    },
    /// The platform has no directory for data.
    #[error("the default data directory is unknown ({reason}); choose one with --data-dir DIR")]
    NoDefaultDirectory {
        /// What is missing.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path} ({source}); choose another one with --data-dir DIR", path = .path.display())]
    DataDirectory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system reported another error.
    #[error("cannot {action}: {source}")]
    System {
        /// What the backend tried to do.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}
