//! Storage usage, and evaluations in the order of arrival.

use std::path::Path;

use rusqlite::params;

use super::super::index::index_directory;
use super::super::rows::ReadError;
use super::SqliteStore;
use crate::store::{
    EvaluationTarget, StorageUsage, StoreError, StoredEvaluation, TargetedEvaluation,
};
use llmobs_core::model::Evaluation;

impl SqliteStore {
    pub(super) fn read_usage(&self) -> Result<StorageUsage, StoreError> {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        // Without a file the log is empty.
        let log_bytes = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
        let index_bytes = index_bytes(&self.file);
        self.read(|connection| {
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            let page = number("PRAGMA page_size")?.unsigned_abs();
            let pages = number("PRAGMA page_count")?.unsigned_abs();
            let free = number("PRAGMA freelist_count")?.unsigned_abs();
            Ok(StorageUsage {
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
    ) -> Result<Vec<StoredEvaluation>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT arrival, target, body FROM evals WHERE arrival > ?1
                 ORDER BY arrival LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after.unwrap_or(i64::MIN), limit])?;
            let mut evaluations = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, body): (String, String) = (row.get(1)?, row.get(2)?);
                evaluations.push(StoredEvaluation {
                    arrival: row.get(0)?,
                    evaluation: decode_evaluation(&key, &body).map_err(ReadError::Content)?,
                });
            }
            Ok(evaluations)
        })
    }
}

/// Bytes of the files of the index. Files that are deleted meanwhile do not count.
fn index_bytes(file: &Path) -> u64 {
    let files = std::fs::read_dir(index_directory(file))
        .into_iter()
        .flatten();
    files
        .filter_map(|file| file.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Decodes an evaluation. If the key has no application, the attribute `ml_app` of the evaluation
/// names it.
pub(super) fn decode_evaluation(key: &str, body: &str) -> Result<TargetedEvaluation, String> {
    let (target, app) =
        EvaluationTarget::from_key(key).ok_or("an evaluation has an unknown target")?;
    let evaluation: Evaluation = serde_json::from_str(body)
        .map_err(|_| "the body of an evaluation is malformed".to_owned())?;
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
