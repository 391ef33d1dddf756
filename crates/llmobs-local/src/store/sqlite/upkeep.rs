//! How much room the file takes, and the evaluations in the order they came.

use std::path::Path;

use rusqlite::params;

use super::super::index::folder_beside;
use super::{ReadError, SqliteStore};
use crate::store::{ArrivedEvaluation, EvaluationTarget, StoreError, TargetedEvaluation, Usage};
use llmobs_core::model::Evaluation;

impl SqliteStore {
    pub(super) fn read_usage(&self) -> Result<Usage, StoreError> {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        // No log is an empty one.
        let log_bytes = std::fs::metadata(log).map_or(0, |found| found.len());
        let index_bytes = index_bytes(&self.file);
        self.read(|connection| {
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            let page = number("PRAGMA page_size")?.unsigned_abs();
            let pages = number("PRAGMA page_count")?.unsigned_abs();
            let free = number("PRAGMA freelist_count")?.unsigned_abs();
            Ok(Usage {
                used_bytes: pages.saturating_sub(free) * page,
                free_bytes: free * page,
                log_bytes,
                index_bytes,
                oldest_start_ns: connection.query_row(
                    "SELECT min(start) FROM spans",
                    [],
                    |row| row.get(0),
                )?,
                last_change: number("SELECT coalesce(max(seq), 0) FROM outbox")?,
            })
        })
    }

    pub(super) fn read_evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ArrivedEvaluation>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT arrival, target, body FROM evals WHERE arrival > ?1
                 ORDER BY arrival LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after.unwrap_or(i64::MIN), limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, body): (String, String) = (row.get(1)?, row.get(2)?);
                found.push(ArrivedEvaluation {
                    arrival: row.get(0)?,
                    evaluation: targeted(&key, &body).map_err(ReadError::Content)?,
                });
            }
            Ok(found)
        })
    }
}

/// Bytes of the index's files; those that go while they are counted count as nothing.
fn index_bytes(file: &Path) -> u64 {
    let files = std::fs::read_dir(folder_beside(file)).into_iter().flatten();
    files
        .filter_map(|file| file.ok()?.metadata().ok())
        .map(|found| found.len())
        .sum()
}

/// An evaluation from its row. The application that its key does not hold is among its other keys,
/// as it was sent.
pub(super) fn targeted(key: &str, body: &str) -> Result<TargetedEvaluation, String> {
    let (target, app) =
        EvaluationTarget::of_key(key).ok_or("an evaluation is about something unknown")?;
    let evaluation: Evaluation = serde_json::from_str(body)
        .map_err(|_| "an evaluation cannot be read from its row".to_owned())?;
    let sent = evaluation.extra.get("ml_app").and_then(|app| app.as_str());
    let ml_app = if app.is_empty() {
        sent.unwrap_or_default().to_owned()
    } else {
        app
    };
    Ok(TargetedEvaluation {
        target,
        ml_app,
        evaluation,
    })
}
