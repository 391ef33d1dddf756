//! Moves evaluators from the file of the spans to the control store.
//!
//! Up to version 0.1.0, evaluators had a table `evaluators` in `llmobs.db`, created on first use.
//! Opening such a store imports the rows into the control store and drops the table. A process that
//! dies in between imports them again on the next start.

use std::path::Path;

use rusqlite::Connection;

use crate::control::Control;
use crate::store::{FILE_NAME, StoreError, sqlite_error};
use llmobs_core::model::Evaluator;

/// Imports the evaluators of an older store. Does nothing if there is no table.
pub(crate) fn migrate(directory: &Path, control: &Control) -> Result<(), StoreError> {
    let file = directory.join(FILE_NAME);
    let Some((connection, bodies)) = read_table(&file).map_err(from_sqlite)? else {
        return Ok(());
    };
    let evaluators = bodies
        .iter()
        .map(|body| serde_json::from_str(body))
        .collect::<Result<Vec<Evaluator>, _>>()
        .map_err(|error| StoreError::Damaged {
            location: FILE_NAME.to_owned(),
            cause: format!("an evaluator in it is malformed: {error}").into(),
        })?;
    control.evaluators().import(&evaluators)?;
    connection
        .execute_batch("DROP TABLE evaluators")
        .map_err(from_sqlite)?;
    tracing::info!(
        count = evaluators.len(),
        "moved evaluators to the control store"
    );
    Ok(())
}

fn read_table(file: &Path) -> rusqlite::Result<Option<(Connection, Vec<String>)>> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    if !connection.table_exists(None, "evaluators")? {
        return Ok(None);
    }
    let bodies = connection
        .prepare("SELECT body FROM evaluators ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some((connection, bodies)))
}

fn from_sqlite(error: rusqlite::Error) -> StoreError {
    sqlite_error(error, FILE_NAME)
}

#[cfg(test)]
mod tests {
    use crate::{DataDir, LocalBackend, LocalOptions};

    /// The table of version 0.1.0, with one row as it wrote it.
    const TABLE_0_1_0: &str = r#"
        CREATE TABLE evaluators
          (name TEXT PRIMARY KEY, app TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
        INSERT INTO evaluators VALUES ('tone', 'shop', '{"eval_name":"tone",
          "created_at":"2026-10-01T00:00:00Z","updated_at":"2026-10-02T00:00:00Z",
          "target":{"application_name":"shop","enabled":true}}');"#;

    #[test]
    fn evaluators_of_version_0_1_0_move_to_the_control_store() {
        let directory = tempfile::tempdir().unwrap();
        let options = || LocalOptions::new(DataDir::Path(directory.path().to_owned()));
        drop(LocalBackend::open(options()).unwrap());
        let open_file = || rusqlite::Connection::open(directory.path().join("llmobs.db")).unwrap();
        open_file().execute_batch(TABLE_0_1_0).unwrap();
        for _ in 0..2 {
            let backend = LocalBackend::open(options()).unwrap();
            let evaluators = backend.inner.control.evaluators();
            let tone = evaluators.get("tone").unwrap().unwrap();
            assert_eq!(tone.target.application_name, "shop");
            assert_eq!(tone.created_at.as_deref(), Some("2026-10-01T00:00:00Z"));
            assert!(!open_file().table_exists(None, "evaluators").unwrap());
        }
        // A deleted evaluator does not return.
        let backend = LocalBackend::open(options()).unwrap();
        assert!(backend.inner.control.evaluators().delete("tone").unwrap());
        drop(backend);
        let backend = LocalBackend::open(options()).unwrap();
        assert!(
            backend
                .inner
                .control
                .evaluators()
                .get("tone")
                .unwrap()
                .is_none()
        );
    }
}
