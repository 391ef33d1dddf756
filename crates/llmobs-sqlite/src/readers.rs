//! A bounded pool of read-only connections.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::Schema;

/// Read-only connections to one file. A reader waits when all of them are in use.
#[derive(Debug)]
pub struct ReaderPool {
    file: PathBuf,
    schema: &'static Schema,
    max_open: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
}

impl ReaderPool {
    /// A pool of at most `max_open` connections, which are opened on first use.
    pub fn new(file: PathBuf, schema: &'static Schema, max_open: usize) -> Self {
        Self {
            file,
            schema,
            max_open,
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `work` in one read transaction, which sees one state of the data. Blocks.
    ///
    /// # Errors
    ///
    /// What `work` returns, and errors of SQLite.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut permit, idle) = self.acquire();
        let connection = match idle {
            Some(connection) => connection,
            None => self.schema.open_reader(&self.file)?,
        };
        connection.execute_batch("BEGIN")?;
        let result = work(&connection);
        if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
            permit.reusable = Some(connection);
        }
        result
    }

    /// Waits for a free connection, or for the permission to open one.
    fn acquire(&self) -> (Permit<'_>, Option<Connection>) {
        let mut state = self.lock();
        while state.idle.is_empty() && state.open >= self.max_open {
            state = self
                .returned
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let idle = state.idle.pop();
        if idle.is_none() {
            state.open += 1;
        }
        drop(state);
        let permit = Permit {
            pool: self,
            reusable: None,
        };
        (permit, idle)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one open connection. Dropping it returns the connection, or frees its slot when
/// the connection was closed by an error or a panic.
struct Permit<'a> {
    pool: &'a ReaderPool,
    reusable: Option<Connection>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.reusable.take() {
            Some(connection) => state.idle.push(connection),
            None => state.open -= 1,
        }
        drop(state);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;

    static SCHEMA: Schema = Schema {
        application_id: 0x7465_7374,
        migrations: &["CREATE TABLE numbers (n INTEGER); INSERT INTO numbers VALUES (1)"],
        incremental_vacuum: false,
        writer_pragmas: "",
        reader_pragmas: "",
        statement_cache_capacity: 8,
    };

    #[test]
    fn connections_are_reused_after_errors_and_panics() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("numbers.db");
        let writer = SCHEMA.open_writer(&file, Durability::Process).unwrap();
        let pool = ReaderPool::new(file, &SCHEMA, 1);
        let count = |pool: &ReaderPool| {
            pool.read(|reader| {
                reader.query_row("SELECT count(*) FROM numbers", [], |row| {
                    row.get::<_, i64>(0)
                })
            })
        };
        assert!(
            pool.read(|reader| reader.execute_batch("SELECT missing"))
                .is_err()
        );
        assert_eq!(count(&pool), Ok(1));
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                pool.read(|_| -> rusqlite::Result<()> { panic!("in the middle of a read") })
            });
            assert!(panicked.join().is_err());
        });
        writer
            .execute("INSERT INTO numbers VALUES (2)", [])
            .unwrap();
        assert_eq!(count(&pool), Ok(2), "each read sees the latest commit");
    }
}
