//! The tables of the SQLite store.
//!
//! ```text
//! dict     text <-> number, for applications, names and kinds (few, often repeated)
//! spans    one row per span: the columns that SQL filters by. id = (ms since 2020) << 10 | n
//! content  the complete span as zstd-compressed JSON; a new attribute needs no new column
//! evals    the newest evaluation per target, kind and label; joined when spans are read
//! tag_keys the tag keys that evaluations join on
//! outbox   the latest changes in order, for the search index
//! meta     the id of the store
//! ```

use std::path::Path;

use llmobs_sqlite::{Durability, Schema};
use rusqlite::Connection;

use super::{StoreError, open_error, sqlite_error};

/// The file in the data directory.
pub(crate) const FILE_NAME: &str = "llmobs.db";

const VERSION_1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE dict (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE spans (
  id INTEGER PRIMARY KEY,
  trace_id TEXT NOT NULL,
  span_id TEXT NOT NULL,
  parent_id TEXT,
  session_id TEXT,
  apm_trace_id TEXT,
  app INTEGER NOT NULL,
  name INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  err INTEGER NOT NULL,
  start INTEGER NOT NULL,
  dur INTEGER NOT NULL,
  UNIQUE (trace_id, span_id)
);
CREATE INDEX spans_start ON spans (start);
CREATE INDEX spans_app_start ON spans (app, start);
CREATE INDEX spans_session ON spans (session_id, start) WHERE session_id IS NOT NULL;
CREATE INDEX spans_apm ON spans (apm_trace_id) WHERE apm_trace_id IS NOT NULL;
CREATE INDEX spans_err ON spans (start) WHERE err = 1;
CREATE TABLE content (id INTEGER PRIMARY KEY, z BLOB NOT NULL);
CREATE TABLE evals (
  id INTEGER PRIMARY KEY,
  target TEXT NOT NULL,
  kind INTEGER NOT NULL,
  label TEXT NOT NULL,
  ts INTEGER NOT NULL,
  arrival INTEGER NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (target, kind, label)
);
CREATE TABLE tag_keys (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, ref INTEGER NOT NULL);
";

/// The file of the SQLite store. Its application id reads "LLMo".
pub(super) static SCHEMA: Schema = Schema {
    application_id: 0x4c4c_4d6f,
    migrations: &[VERSION_1],
    // Lets a purge return pages to the disk in steps.
    incremental_vacuum: true,
    // With fewer checkpoints, a page that many commits change moves from the log to the file once.
    writer_pragmas: "PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 8000;
                     PRAGMA journal_size_limit = 67108864;",
    reader_pragmas: "PRAGMA cache_size = -8192; PRAGMA mmap_size = 268435456;",
    statement_cache_capacity: 64,
};

/// Opens the file for its writer, and returns the id of the store.
pub(super) fn open_writer(
    file: &Path,
    durability: Durability,
) -> Result<(Connection, String), StoreError> {
    let connection = SCHEMA
        .open_writer(file, durability)
        .map_err(|error| open_error(error, FILE_NAME))?;
    let store_id = read_or_create_store_id(&connection).map_err(from_sqlite)?;
    Ok((connection, store_id))
}

fn read_or_create_store_id(connection: &Connection) -> rusqlite::Result<String> {
    let exists = connection
        .prepare("SELECT 1 FROM meta WHERE key = 'store_id'")?
        .exists([])?;
    if !exists {
        let id = uuid::Uuid::new_v4().to_string();
        connection.execute(
            "INSERT OR IGNORE INTO meta (key, value) VALUES ('store_id', ?1)",
            [id],
        )?;
    }
    connection.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| {
        row.get(0)
    })
}

/// The meaning of an SQLite error on this file.
pub(super) fn from_sqlite(error: rusqlite::Error) -> StoreError {
    sqlite_error(error, FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_newer_schema_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        drop(open_writer(&file, Durability::Process).unwrap());
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = open_writer(&file, Durability::Process).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 99, .. }));
        assert!(refused.to_string().contains("upgrade llmobs-mcp"));
    }

    #[test]
    fn refuses_files_of_other_programs_as_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE mail (x)").unwrap();
        drop(other);
        let refused = open_writer(&file, Durability::Process);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })));
        std::fs::write(&file, vec![7u8; 8192]).unwrap();
        let refused = open_writer(&file, Durability::Process);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    }
}
