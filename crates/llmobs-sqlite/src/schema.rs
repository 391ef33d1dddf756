//! The description of a database file, and opening it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

/// How long a connection waits for a lock that another one holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which failures an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: every commit is flushed to the disk.
    Full,
    /// Death of the process only. For temporary data.
    Process,
}

impl Durability {
    /// The value of `PRAGMA synchronous`.
    fn synchronous(self) -> &'static str {
        match self {
            Durability::Full => "FULL",
            Durability::Process => "OFF",
        }
    }
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file has tables and another application id.
    #[error("it is a database of another program")]
    ForeignFile,
    /// A newer version of the program wrote the file.
    #[error("it has schema version {found}; this program supports versions up to {supported}")]
    NewerSchema {
        /// Version of the file.
        found: i64,
        /// Newest version that this program supports.
        supported: i64,
    },
    /// SQLite reported an error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// A kind of database file.
///
/// The version of a file, in `PRAGMA user_version`, is the number of migrations that it has seen.
#[derive(Debug)]
pub struct Schema {
    /// Identifies the kind of file, in `PRAGMA application_id`.
    pub application_id: i64,
    /// SQL of each version: the first entry creates version 1, the next one turns 1 into 2.
    pub migrations: &'static [&'static str],
    /// Whether freed pages can be returned to the file system in steps. Applies to new files only.
    pub incremental_vacuum: bool,
    /// Pragmas of the writer, as SQL. WAL mode and `synchronous` are always set.
    pub writer_pragmas: &'static str,
    /// Pragmas of each reader, as SQL.
    pub reader_pragmas: &'static str,
    /// Prepared statements that a connection keeps.
    pub statement_cache_capacity: usize,
}

impl Schema {
    /// Opens a file for its writer, and creates or migrates the tables.
    ///
    /// A file of another program is left untouched.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_writer(
        &self,
        file: &Path,
        durability: Durability,
    ) -> Result<Connection, OpenError> {
        let mut connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version = self.version_of(&connection)?;
        if version == 0 && self.incremental_vacuum {
            // Has an effect before the first table only.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", durability.synchronous())?;
        connection.execute_batch(self.writer_pragmas)?;
        if version < self.supported() {
            self.migrate(&mut connection)?;
        }
        connection.set_prepared_statement_cache_capacity(self.statement_cache_capacity);
        Ok(connection)
    }

    /// Opens a file read-only. It must exist.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn open_reader(&self, file: &Path) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch(self.reader_pragmas)?;
        connection.set_prepared_statement_cache_capacity(self.statement_cache_capacity);
        Ok(connection)
    }

    fn supported(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }

    /// The version of a file; 0 when it has no tables.
    fn version_of(&self, connection: &Connection) -> Result<i64, OpenError> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        if number("SELECT count(*) FROM sqlite_schema")? == 0 {
            return Ok(0);
        }
        if number("PRAGMA application_id")? != self.application_id {
            return Err(OpenError::ForeignFile);
        }
        let found = number("PRAGMA user_version")?;
        let supported = self.supported();
        if found > supported {
            return Err(OpenError::NewerSchema { found, supported });
        }
        Ok(found)
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read again under the lock: another process may have migrated meanwhile.
        let version = usize::try_from(self.version_of(&transaction)?).unwrap_or(0);
        for sql in self.migrations.iter().skip(version) {
            transaction.execute_batch(sql)?;
        }
        transaction.pragma_update(None, "application_id", self.application_id)?;
        transaction.pragma_update(None, "user_version", self.supported())?;
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Schema = Schema {
        application_id: 0x7465_7374,
        migrations: &["CREATE TABLE notes (text TEXT NOT NULL)"],
        incremental_vacuum: true,
        writer_pragmas: "PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 65536;",
        reader_pragmas: "PRAGMA cache_size = -1024; PRAGMA mmap_size = 1048576;",
        statement_cache_capacity: 8,
    };

    const SECOND: Schema = Schema {
        migrations: &[
            "CREATE TABLE notes (text TEXT NOT NULL)",
            "ALTER TABLE notes ADD COLUMN author TEXT",
        ],
        ..FIRST
    };

    fn open(schema: &Schema, file: &Path) -> Result<Connection, OpenError> {
        schema.open_writer(file, Durability::Process)
    }

    #[test]
    fn migrates_an_older_file_and_keeps_its_rows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.db");
        let old = open(&FIRST, &file).unwrap();
        old.execute("INSERT INTO notes VALUES ('kept')", [])
            .unwrap();
        drop(old);
        drop(open(&SECOND, &file).unwrap());
        // Opening again migrates nothing.
        drop(open(&SECOND, &file).unwrap());
        let reader = SECOND.open_reader(&file).unwrap();
        let row: (String, Option<String>) = reader
            .query_row("SELECT text, author FROM notes", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(row, ("kept".to_owned(), None));
    }

    #[test]
    fn refuses_a_newer_schema() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.db");
        drop(open(&SECOND, &file).unwrap());
        let refused = open(&FIRST, &file).unwrap_err();
        assert!(matches!(
            refused,
            OpenError::NewerSchema {
                found: 2,
                supported: 1
            }
        ));
    }

    #[test]
    fn leaves_a_file_of_another_program_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mail.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE mail (x)").unwrap();
        drop(other);
        let before = std::fs::read(&file).unwrap();
        assert!(matches!(open(&FIRST, &file), Err(OpenError::ForeignFile)));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }

    #[test]
    fn reports_a_file_that_is_not_a_database_as_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.db");
        std::fs::write(&file, vec![7u8; 8192]).unwrap();
        let Err(OpenError::Sqlite(error)) = open(&FIRST, &file) else {
            panic!("opened");
        };
        assert_eq!(crate::Failure::from_error(&error), crate::Failure::Damaged);
    }
}
