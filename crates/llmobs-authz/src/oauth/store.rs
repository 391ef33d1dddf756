//! The database of the authorization server: one SQLite file, `authz.db` in the state directory.
//!
//! ```text
//! clients         registered clients
//! consents        open consent pages, valid for minutes
//! grants          what users agreed to, with sealed Datadog credentials
//! codes           one per grant, kept after use to detect replays
//! access_tokens   hashes, valid for an hour
//! refresh_tokens  hashes, with their rotation
//! sign_ins        unfinished sign-ins at Datadog, at most one per consent page
//! registrations   client ids of this server at Datadog
//! revocations     logins of ended grants, until they are revoked at Datadog
//! ```
//!
//! Secrets are hashed or sealed: a copy of the file gives no access. Nothing is cached in memory, so that
//! several processes with one file, or one process after a restart, behave the same. Each request writes in
//! one transaction, which is flushed to the disk. Deleted data is overwritten.

pub(super) mod clients;
pub(super) mod consents;
pub(super) mod grants;
pub(super) mod registrations;
pub(super) mod renewals;
pub(super) mod revocations;
pub(super) mod sign_ins;
mod token_hash;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llmobs_sqlite::{Durability, OpenError, ReaderPool, Schema};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

use super::primitives::OauthError;

/// The name of the file in the state directory.
pub(super) const FILE_NAME: &str = "authz.db";

/// The maximum number of open read connections.
const MAX_READERS: usize = 4;

static SCHEMA: Schema = Schema {
    // "LLMa"
    application_id: 0x4c4c_4d61,
    migrations: &[TABLES_V1, CHANGES_V2],
    incremental_vacuum: false,
    writer_pragmas: "PRAGMA foreign_keys = true; PRAGMA secure_delete = true;",
    reader_pragmas: "",
    statement_cache_capacity: 32,
};

/// The tables of version 1.
const TABLES_V1: &str = "
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

/// The changes of version 2, for sign-ins at Datadog. A trigger records the login of a deleted grant, so
/// that every way to end a grant also revokes its login.
const CHANGES_V2: &str = "
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
pub enum SignInStoreError {
    /// The directory or the file cannot be created.
    #[error(
        "{path} cannot be opened ({source}); the state directory must be writable; set LLMOBS_MCP_STATE_DIR to use another one",
        path = path.display()
    )]
    CreateFile {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// SQLite cannot open the file.
    #[error(
        "{path} cannot be opened ({source}); the state directory must be writable; set LLMOBS_MCP_STATE_DIR to use another one",
        path = path.display()
    )]
    OpenDatabase {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// Other users of the machine can read the file, or replace it.
    #[error(
        "other users of this machine can access {path}, and could read or replace sign-ins; restrict it: chmod go-rwx {path}",
        path = .0.display()
    )]
    Exposed(PathBuf),
    /// Another program wrote the file.
    #[error(
        "{path} is not a database of this program; move it away to start with an empty one (users must sign in again)",
        path = .0.display()
    )]
    Foreign(PathBuf),
    /// A newer version wrote the file.
    #[error(
        "{path} was written by a newer version (schema {found}; this version supports {supported}); use that version, or move the file away (users must sign in again)",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version of the file.
        found: i64,
        /// The schema version of this program.
        supported: i64,
    },
    /// The file was created with another secret key.
    #[error(
        "{path} was created with another secret key; start with that key, or move the file away (users must sign in again)",
        path = .0.display()
    )]
    OtherKey(PathBuf),
    /// A query failed. Errors of SQLite contain names of tables and files, never values.
    #[error("the database of sign-ins failed ({0})")]
    Query(#[from] rusqlite::Error),
    /// The task of a query panicked or was cancelled.
    #[error("a query of the database of sign-ins was interrupted")]
    Interrupted,
}

impl From<SignInStoreError> for OauthError {
    fn from(error: SignInStoreError) -> Self {
        tracing::error!(%error, "a sign-in failed");
        Self::server_error()
    }
}

/// The store. It has one connection for writing; in WAL mode it does not block readers.
pub(super) struct SignInStore {
    writer: Mutex<Connection>,
    readers: ReaderPool,
}

impl SignInStore {
    /// Opens the file in a directory, and creates both if they are missing. `key_id` identifies the key of
    /// the sealed credentials.
    pub(super) fn open(directory: &Path, key_id: [u8; 8]) -> Result<Self, SignInStoreError> {
        let path = directory.join(FILE_NAME);
        create_file(directory, &path)?;
        let mut writer = SCHEMA
            .open_writer(&path, Durability::Full)
            .map_err(|error| open_error(&path, error))?;
        let is_right_key =
            check_key(&mut writer, key_id).map_err(|error| open_error(&path, error.into()))?;
        if !is_right_key {
            return Err(SignInStoreError::OtherKey(path));
        }
        Ok(Self {
            writer: Mutex::new(writer),
            readers: ReaderPool::new(path, &SCHEMA, MAX_READERS),
        })
    }

    /// Runs `work` in a write transaction, on a thread that may block.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SignInStoreError> {
        let store = self.clone();
        run_blocking(move || {
            let mut connection = lock(&store.writer);
            // Immediate, so that two processes do not both read before one writes.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }

    /// Runs `work` in a read transaction, on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SignInStoreError> {
        let store = self.clone();
        run_blocking(move || Ok(store.readers.read(work)?)).await
    }

    /// Deletes expired rows.
    pub(super) async fn purge(self: &Arc<Self>, now_ms: i64) -> Result<(), SignInStoreError> {
        self.write(move |connection| {
            consents::purge(connection, now_ms)?;
            grants::purge(connection, now_ms)?;
            registrations::purge(connection, now_ms)?;
            clients::purge(connection, now_ms)
        })
        .await
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic rolls the transaction back, so a poisoned connection is usable.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SignInStoreError> + Send + 'static,
) -> Result<T, SignInStoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(SignInStoreError::Interrupted),
    }
}

fn open_error(path: &Path, error: OpenError) -> SignInStoreError {
    let path = path.to_owned();
    match error {
        OpenError::ForeignFile => SignInStoreError::Foreign(path),
        OpenError::NewerSchema { found, supported } => SignInStoreError::Newer {
            path,
            found,
            supported,
        },
        OpenError::Sqlite(source) => match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => SignInStoreError::Foreign(path),
            _ => SignInStoreError::OpenDatabase { path, source },
        },
    }
}

/// Whether the credentials in the file are sealed with this key. A new file records the key.
fn check_key(connection: &mut Connection, key_id: [u8; 8]) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let recorded: Option<Vec<u8>> = transaction
        .query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| {
            row.get(0)
        })
        .optional()?;
    if let Some(recorded) = recorded {
        return Ok(recorded == key_id);
    }
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES ('key', ?1)",
        params![key_id.as_slice()],
    )?;
    transaction.commit()?;
    Ok(true)
}

/// Creates the directory and the file, accessible by their owner only. SQLite gives its other files the same
/// mode.
fn create_file(directory: &Path, path: &Path) -> Result<(), SignInStoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| SignInStoreError::CreateFile { path, source }
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(failed(directory))?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(failed(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let file_mode = file.metadata().map_err(failed(path))?.mode();
        let directory_mode = std::fs::metadata(directory)
            .map_err(failed(directory))?
            .mode();
        for (path, mode, forbidden) in [
            (path, file_mode, 0o077),
            // A user who can write to the directory can replace the file.
            (directory, directory_mode, 0o022),
        ] {
            if mode & forbidden != 0 {
                return Err(SignInStoreError::Exposed(path.to_owned()));
            }
        }
    }
    drop(file);
    Ok(())
}

#[cfg(test)]
mod tests;
