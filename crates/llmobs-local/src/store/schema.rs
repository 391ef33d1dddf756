//! The tables of the SQLite store, and opening a file of them.
//!
//! ```text
//! dict     text <-> number, for apps, names and kinds (few, often repeated)
//! spans    one row per span: what SQL can narrow by. id = (ms since 2020) << 10 | n
//! content  the whole span as zstd of its JSON; a new attribute needs no new column
//! evals    the newest evaluation per target, kind and label; joined when spans are read
//! tag_keys the tag keys that some evaluation joins on
//! outbox   the latest changes in order, for an index derived from them
//! meta     the store's own id
//! ```

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Version of the tables, in `PRAGMA user_version`.
pub(super) const VERSION: i64 = 1;

/// Marks a file as ours in `PRAGMA application_id`: "LLMo".
const APPLICATION_ID: i64 = 0x4c4c_4d6f;

const TABLES: &str = "
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

/// Opens the file for its one writer, and makes the tables if it is new.
pub(super) fn open_writer(file: &Path, synchronous: &str) -> Result<Connection, StoreError> {
    let connection = Connection::open(file).map_err(|e| from_sqlite(&e))?;
    let prepare = || -> rusqlite::Result<Result<(), StoreError>> {
        connection.busy_timeout(Duration::from_secs(5))?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let owner: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && owner != APPLICATION_ID {
            return Ok(Err(damaged("it is a database of another program")));
        }
        if found > VERSION {
            return Ok(Err(StoreError::Newer {
                found,
                known: VERSION,
            }));
        }
        if tables == 0 {
            // Only before the first table: what is purged can then go back to the disk in steps.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "cache_size", -32_768)?;
        // Pages that many commits change go from the log into the file once, not every time.
        connection.pragma_update(None, "wal_autocheckpoint", 8_000)?;
        connection.pragma_update(None, "journal_size_limit", 67_108_864)?;
        if tables == 0 {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {TABLES}
                 INSERT INTO meta VALUES ('store_id', '{}');
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;",
                uuid::Uuid::new_v4()
            ))?;
        }
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Ok(()))
    };
    prepare().map_err(|e| from_sqlite(&e))??;
    Ok(connection)
}

/// Opens the file for one of its readers.
pub(super) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    connection.pragma_update(None, "mmap_size", 268_435_456)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn damaged(reason: &str) -> StoreError {
    StoreError::Damaged {
        file: super::sqlite::FILE_NAME.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What an engine error means to the caller.
pub(super) fn from_sqlite(error: &rusqlite::Error) -> StoreError {
    meaning_of(error, super::sqlite::FILE_NAME)
}

/// What an error of the engine on a file of a name means to the caller.
pub(crate) fn meaning_of(error: &rusqlite::Error, file: &str) -> StoreError {
    use rusqlite::ErrorCode;
    // A quota, a limit on the size of files, or a device that fails.
    const WRITES: [i32; 4] = [
        rusqlite::ffi::SQLITE_IOERR_WRITE,
        rusqlite::ffi::SQLITE_IOERR_FSYNC,
        rusqlite::ffi::SQLITE_IOERR_TRUNCATE,
        rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
    ];
    let told = error.sqlite_error();
    match told.map(|told| (told.code, told.extended_code)) {
        Some((ErrorCode::DiskFull, _)) => StoreError::Full,
        Some((ErrorCode::SystemIoFailure, code)) if WRITES.contains(&code) => {
            StoreError::NotWritable(error.to_string())
        }
        Some((ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen, _)) => {
            StoreError::NotWritable(error.to_string())
        }
        Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) => StoreError::Damaged {
            file: file.to_owned(),
            reason: error.to_string(),
        },
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llmobs.db");
        drop(open_writer(&file, "FULL").unwrap());
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = open_writer(&file, "FULL").unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 99, .. }));
        assert!(refused.to_string().contains("upgrade llmobs-mcp"));
    }

    #[test]
    fn a_file_of_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llmobs.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE mail (x)").unwrap();
        drop(other);
        assert!(matches!(
            open_writer(&file, "FULL"),
            Err(StoreError::Damaged { .. })
        ));
        std::fs::write(&file, vec![7u8; 8192]).unwrap();
        assert!(matches!(
            open_writer(&file, "FULL"),
            Err(StoreError::Damaged { .. })
        ));
    }
}
