//! Everything that must survive a request: one SQLite file, `authz.db` in the state folder.
//!
//! ```text
//! clients         programs that registered themselves
//! consents        open consent pages, minutes each
//! grants          what a user agreed to, with the sealed Datadog credential
//! codes           one per grant, kept after use so that a replay is noticed
//! access_tokens   hashes, an hour each
//! refresh_tokens  hashes, with what became of them
//! sign_ins        users who are at Datadog just now, at most one for each consent page
//! registrations   how Datadog knows this server
//! revocations     logins of grants that ended, until they are revoked at Datadog
//! ```
//!
//! Secrets are here as hashes or sealed; a copy of the file lets nobody in. Nothing of it is cached
//! in memory, so that several processes on one file, or one after a restart, answer alike. Writing
//! is one flushed transaction per request. Whatever ends is deleted, and SQLite overwrites it.

pub(super) mod clients;
pub(super) mod consents;
pub(super) mod grants;
pub(super) mod registrations;
pub(super) mod renewals;
pub(super) mod revocations;
pub(super) mod sign_ins;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

/// The file in the state folder.
pub(super) const FILE_NAME: &str = "authz.db";

/// Version of the tables, in `PRAGMA user_version`.
const VERSION: i64 = 2;

/// Marks a file as ours in `PRAGMA application_id`: "LLMa".
const APPLICATION_ID: i64 = 0x4c4c_4d61;

/// How long a process waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clients (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  redirects TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  used_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX clients_age ON clients (used_ms, created_ms);
CREATE TABLE consents (
  id BLOB PRIMARY KEY,
  browser BLOB NOT NULL,
  csrf BLOB NOT NULL,
  client TEXT NOT NULL,
  client_name TEXT NOT NULL,
  client_host TEXT,
  redirect TEXT NOT NULL,
  state TEXT,
  challenge TEXT NOT NULL,
  resource TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  until_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX consents_until ON consents (until_ms);
CREATE TABLE grants (
  id TEXT PRIMARY KEY,
  client TEXT NOT NULL,
  resource TEXT NOT NULL,
  scope TEXT NOT NULL,
  credential BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX grants_until ON grants (until_ms);
CREATE INDEX grants_client ON grants (client);
CREATE TABLE codes (
  hash BLOB PRIMARY KEY,
  grant_id TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  redirect TEXT NOT NULL,
  challenge TEXT NOT NULL,
  until_ms INTEGER NOT NULL,
  used_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX codes_grant ON codes (grant_id);
CREATE TABLE access_tokens (
  hash BLOB PRIMARY KEY,
  grant_id TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  until_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX access_tokens_grant ON access_tokens (grant_id);
CREATE INDEX access_tokens_until ON access_tokens (until_ms);
CREATE TABLE refresh_tokens (
  hash BLOB PRIMARY KEY,
  grant_id TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  parent BLOB,
  until_ms INTEGER NOT NULL,
  rotated_ms INTEGER,
  succeeded INTEGER NOT NULL DEFAULT 0,
  superseded INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_parent ON refresh_tokens (parent);
";

/// What version 2 added, for sign-ins at Datadog. A trigger notes the end of a grant, so that no way
/// to end one can forget the login that it held.
const TABLES_2: &str = "
ALTER TABLE grants ADD COLUMN is_login INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN renewer TEXT;
ALTER TABLE grants ADD COLUMN renewing_until_ms INTEGER NOT NULL DEFAULT 0;
CREATE TABLE sign_ins (
  state BLOB PRIMARY KEY,
  consent BLOB NOT NULL UNIQUE REFERENCES consents (id) ON DELETE CASCADE,
  browser BLOB NOT NULL,
  client_id TEXT NOT NULL,
  secrets BLOB NOT NULL,
  writes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE registrations (
  place TEXT NOT NULL,
  redirect TEXT NOT NULL,
  client_id TEXT NOT NULL,
  until_ms INTEGER NOT NULL,
  PRIMARY KEY (place, redirect)
) WITHOUT ROWID;
CREATE TABLE revocations (
  grant_id TEXT PRIMARY KEY,
  client TEXT NOT NULL,
  resource TEXT NOT NULL,
  credential BLOB NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  due_ms INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX revocations_due ON revocations (due_ms);
CREATE TRIGGER grants_end AFTER DELETE ON grants WHEN OLD.is_login BEGIN
  INSERT INTO revocations (grant_id, client, resource, credential)
    VALUES (OLD.id, OLD.client, OLD.resource, OLD.credential);
END;
";

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or the file cannot be made or opened.
    #[error(
        "{path} cannot be opened ({reason}); the state folder must be writable, LLMOBS_MCP_STATE_DIR names another",
        path = path.display()
    )]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Others could read the file, or replace it in its folder.
    #[error(
        "{path} is open to other users, who could read or replace sign-ins; close it: chmod go-rwx {path}",
        path = .0.display()
    )]
    Exposed(PathBuf),
    /// It is no file of ours.
    #[error(
        "{path} is not a database of this program; move it away, and users sign in anew",
        path = .0.display()
    )]
    Foreign(PathBuf),
    /// A later version wrote it.
    #[error(
        "{path} was written by a newer version (tables {found}, this one knows {known}); use that version, or move the file away, and users sign in anew",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It was begun with another secret key.
    #[error(
        "{path} was begun with another secret key: start with that key again, or move the file away, and users sign in anew",
        path = .0.display()
    )]
    OtherKey(PathBuf),
    /// The database failed in use.
    #[error("the store of sign-ins failed ({0})")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite's messages name tables and files, never values.
        Self::Failed(error.to_string())
    }
}

/// The store. One connection writes, one reads; SQLite lets them work beside each other.
pub(super) struct Store {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl Store {
    /// Opens the file in a folder, and makes both if they are not there. `key_id` tells whether the
    /// credentials in it can be opened.
    pub(super) fn open(folder: &Path, key_id: [u8; 8]) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        create(folder, &path)?;
        let failed = |error: rusqlite::Error| StoreError::Open {
            path: path.clone(),
            reason: error.to_string(),
        };
        let mut writer = Connection::open(&path).map_err(failed)?;
        writer.busy_timeout(PATIENCE).map_err(failed)?;
        prepare(&mut writer, &path, key_id)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&path, flags).map_err(failed)?;
        reader.busy_timeout(PATIENCE).map_err(failed)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
        })
    }

    /// Runs `work` in a transaction of its own, where blocking is fine.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        blocking(move || {
            let mut connection = locked(&store.writer);
            // Immediate, so that two processes do not both read before one writes.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }

    /// Runs `work` on one moment of the data, where blocking is fine.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        blocking(move || Ok(work(&locked(&store.reader))?)).await
    }

    /// Deletes what is over.
    pub(super) async fn purge(self: &Arc<Self>, now_ms: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            consents::purge(connection, now_ms)?;
            grants::purge(connection, now_ms)?;
            registrations::purge(connection, now_ms)?;
            clients::purge(connection, now_ms)
        })
        .await
    }
}

fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A transaction that a panic interrupted was rolled back.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Failed("its task ended early".to_owned())),
    }
}

fn prepare(connection: &mut Connection, path: &Path, key_id: [u8; 8]) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => StoreError::Foreign(path.to_owned()),
        _ => StoreError::Open {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    };
    let settings = || -> rusqlite::Result<()> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)
    };
    settings().map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let number = |sql: &str| {
        transaction
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    if number("SELECT count(*) FROM sqlite_schema")? == 0 {
        transaction
            .execute_batch(&format!(
                "{TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
            ))
            .map_err(failed)?;
    }
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let found = number("PRAGMA user_version")?;
    if found > VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    if found < 2 {
        let sql = format!("{TABLES_2} PRAGMA user_version = 2;");
        transaction.execute_batch(&sql).map_err(failed)?;
    }
    let known: Option<Vec<u8>> = transaction
        .query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed)?;
    match known {
        Some(known) if known != key_id => return Err(StoreError::OtherKey(path.to_owned())),
        Some(_) => {}
        None => {
            transaction
                .execute(
                    "INSERT INTO meta (name, value) VALUES ('key', ?1)",
                    params![key_id.as_slice()],
                )
                .map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// Makes folder and file readable by their owner alone. SQLite gives its side files the same mode.
fn create(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path, error: &std::io::Error| StoreError::Open {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .map_err(|error| failed(folder, &error))?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| failed(path, &error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let opened = file.metadata().map_err(|error| failed(path, &error))?;
        let holder = std::fs::metadata(folder).map_err(|error| failed(folder, &error))?;
        for (path, mode, forbidden) in [
            (path, opened.mode(), 0o077),
            // Who can write to the folder can put another file in its place.
            (folder, holder.mode(), 0o022),
        ] {
            if mode & forbidden != 0 {
                return Err(StoreError::Exposed(path.to_owned()));
            }
        }
    }
    drop(file);
    Ok(())
}

#[cfg(test)]
mod tests;
