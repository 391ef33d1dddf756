//! How the crates of this workspace open, migrate and read their SQLite files.
//!
//! - [`Schema`] describes a file: application id, migrations, pragmas. It opens the file for its
//!   one writer, or for a reader.
//! - [`ReaderPool`] provides a bounded number of read-only connections.
//! - [`Failure`] says what an error of SQLite means to a caller.
//!
//! Every file is in WAL mode, so that readers and the writer do not block each other.

mod failure;
mod readers;
mod schema;

pub use failure::Failure;
pub use readers::ReaderPool;
pub use schema::{Durability, OpenError, Schema};
