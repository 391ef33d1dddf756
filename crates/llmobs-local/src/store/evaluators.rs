//! Where evaluators are kept: a table of their own beside the spans, one row per name.
//!
//! They are few and change rarely, so one connection behind a mutex serves reads and writes; the
//! spans' writer and this one take turns by SQLite's own lock.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::schema::{from_sqlite, open_writer};
use super::sqlite::FILE_NAME;
use super::{Durability, StoreError};
use llmobs_core::model::Evaluator;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS evaluators
  (name TEXT PRIMARY KEY, app TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID";

/// Evaluators by name. Methods block; what a write acknowledged survives the process.
pub struct EvaluatorStore {
    connection: Mutex<Connection>,
}

impl EvaluatorStore {
    /// Opens the table in a folder that holds the span store.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, StoreError> {
        let connection = open_writer(&folder.join(FILE_NAME), durability.synchronous())?;
        connection
            .execute_batch(TABLE)
            .map_err(|e| from_sqlite(&e))?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them by name, or those of one application.
    pub fn list(&self, app: Option<&str>) -> Result<Vec<Evaluator>, StoreError> {
        let connection = self.lock();
        let bodies = || -> rusqlite::Result<Vec<String>> {
            connection
                .prepare_cached(
                    "SELECT body FROM evaluators WHERE ?1 IS NULL OR app = ?1 ORDER BY name",
                )?
                .query_map(params![app], |row| row.get(0))?
                .collect()
        };
        bodies()
            .map_err(|e| from_sqlite(&e))?
            .iter()
            .map(|body| read(body))
            .collect()
    }

    /// One of them, if kept.
    pub fn get(&self, name: &str) -> Result<Option<Evaluator>, StoreError> {
        let body: Option<String> = self
            .lock()
            .query_row(
                "SELECT body FROM evaluators WHERE name = ?1",
                [name],
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| from_sqlite(&e))?;
        body.map(|body| read(&body)).transpose()
    }

    /// Creates or replaces one; its times are set from `now`, RFC 3339. Gives it as it is kept.
    pub fn put(&self, mut evaluator: Evaluator, now: &str) -> Result<Evaluator, StoreError> {
        let connection = self.lock();
        let mut write = || -> rusqlite::Result<()> {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let known: Option<String> = connection
                .query_row(
                    "SELECT body FROM evaluators WHERE name = ?1",
                    [&evaluator.eval_name],
                    |row| row.get(0),
                )
                .optional()?;
            let made = known
                .and_then(|body| read(&body).ok())
                .and_then(|known| known.created_at);
            evaluator.created_at = Some(made.unwrap_or_else(|| now.to_owned()));
            evaluator.updated_at = Some(now.to_owned());
            let body = serde_json::to_string(&evaluator)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            connection.execute(
                "INSERT OR REPLACE INTO evaluators (name, app, body) VALUES (?1, ?2, ?3)",
                params![evaluator.eval_name, evaluator.target.application_name, body],
            )?;
            connection.execute_batch("COMMIT")
        };
        let written = write();
        if written.is_err() && !connection.is_autocommit() {
            // The write has failed already; what failed is told.
            let _ = connection.execute_batch("ROLLBACK");
        }
        drop(connection);
        written.map_err(|e| from_sqlite(&e))?;
        Ok(evaluator)
    }

    /// Forgets one; whether there was one.
    pub fn delete(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = self
            .lock()
            .execute("DELETE FROM evaluators WHERE name = ?1", [name])
            .map_err(|e| from_sqlite(&e))?;
        Ok(deleted > 0)
    }
}

fn read(body: &str) -> Result<Evaluator, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Damaged {
        file: FILE_NAME.to_owned(),
        reason: format!("an evaluator in it cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    fn named(name: &str, app: &str) -> Evaluator {
        let mut evaluator = Evaluator {
            eval_name: name.into(),
            ..Evaluator::default()
        };
        evaluator.target.application_name = app.into();
        evaluator
    }

    #[test]
    fn evaluators_survive_a_restart_and_keep_when_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let spans = SqliteStore::open(folder.path(), Durability::Full).unwrap();
        let open = || EvaluatorStore::open(folder.path(), Durability::Full).unwrap();
        let store = open();
        store.put(named("b", "shop"), "then").unwrap();
        store.put(named("a", "bank"), "then").unwrap();
        drop(store);
        let store = open();
        let again = store.put(named("b", "shop"), "now").unwrap();
        assert_eq!(again.created_at.as_deref(), Some("then"));
        assert_eq!(
            store.get("b").unwrap().unwrap().updated_at.as_deref(),
            Some("now")
        );
        let names = |app| -> Vec<String> {
            let found = store.list(app).unwrap();
            found
                .into_iter()
                .map(|evaluator| evaluator.eval_name)
                .collect()
        };
        assert_eq!(names(None), ["a", "b"]);
        assert_eq!(names(Some("shop")), ["b"]);
        assert!(store.delete("b").unwrap() && !store.delete("b").unwrap());
        drop(spans);
    }
}
