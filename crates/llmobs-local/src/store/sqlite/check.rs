//! Checks of the file: by SQLite, and of each row against its content.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::rows::{ReadError, SpanColumns, decode_content, key_range};
use super::SqliteStore;
use super::usage::decode_evaluation;
use crate::store::{CheckOutcome, CheckStep, EvaluationTarget, IndexProgress, StoreError};
use llmobs_core::model::EventKind;

/// Time in which the index must catch up; more is a fault.
const INDEX_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Rows checked in one step.
const ROWS_PER_STEP: i64 = 2_000;

/// How many milliseconds a key may be later than its start, beyond what the stored spans explain.
const MAX_KEY_DRIFT_MS: i64 = 60_000;

/// Maximum number of faults that one step reports.
const MAX_FAULTS: usize = 100;

impl SqliteStore {
    /// Runs any step except [`CheckStep::Index`].
    pub(super) fn check_rows(&self, step: CheckStep) -> Result<CheckOutcome, StoreError> {
        self.read(|connection| match step {
            CheckStep::Storage => check_file(connection),
            CheckStep::Spans { after } => check_spans(connection, after),
            CheckStep::Evaluations { after } => check_evaluations(connection, after),
            CheckStep::Changes => check_outbox(connection),
            CheckStep::Index => Ok(CheckOutcome::default()),
        })
    }

    /// Compares the index with the rows, once it has caught up.
    pub(super) fn check_index(&self) -> Result<CheckOutcome, StoreError> {
        let Some(check) = self.verify_index(INDEX_TIMEOUT)? else {
            let fault = match self.index.progress() {
                IndexProgress::Failed(reason) => format!("the index does not work: {reason}"),
                IndexProgress::Building { .. } | IndexProgress::UpTo(_) => {
                    "the index does not catch up with the spans".to_owned()
                }
            };
            return Ok(CheckOutcome {
                faults: vec![fault],
                ..CheckOutcome::default()
            });
        };
        let counts = [
            (check.missing, "spans are missing from the index"),
            (check.surplus, "spans in the index are not in the store"),
            (check.differing, "spans in the index differ from the store"),
        ];
        let faults = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"));
        Ok(CheckOutcome {
            checked: check.equal + check.missing + check.differing,
            next: None,
            faults: faults.collect(),
        })
    }
}

fn check_file(connection: &Connection) -> Result<CheckOutcome, ReadError> {
    let lines: Vec<String> = connection
        .prepare(&format!("PRAGMA integrity_check({MAX_FAULTS})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(CheckOutcome {
        checked: 1,
        next: None,
        faults: lines.into_iter().filter(|line| line != "ok").collect(),
    })
}

/// A row of `spans`, with the texts of its dictionary numbers, and its content.
struct StoredRow {
    id: i64,
    columns: SpanColumns,
    content: Option<Vec<u8>>,
}

fn check_spans(connection: &Connection, after: Option<i64>) -> Result<CheckOutcome, ReadError> {
    let after = after.unwrap_or(i64::MIN);
    let all: i64 = connection
        .prepare_cached("SELECT count(*) FROM spans")?
        .query_row([], |row| row.get(0))?;
    let rows: Vec<StoredRow> = connection
        .prepare_cached(
            "SELECT s.id, s.trace_id, s.span_id, s.parent_id, s.session_id, s.apm_trace_id,
                    a.text, n.text, k.text, s.err, s.start, s.dur, c.z
             FROM spans s LEFT JOIN content c ON c.id = s.id
             LEFT JOIN dict a ON a.id = s.app LEFT JOIN dict n ON n.id = s.name
             LEFT JOIN dict k ON k.id = s.kind
             WHERE s.id > ?1 ORDER BY s.id LIMIT ?2",
        )?
        .query_map(params![after, ROWS_PER_STEP], |found| {
            let text = |at| -> rusqlite::Result<String> {
                Ok(found.get::<_, Option<String>>(at)?.unwrap_or_default())
            };
            Ok(StoredRow {
                id: found.get(0)?,
                columns: SpanColumns {
                    trace_id: found.get(1)?,
                    span_id: found.get(2)?,
                    parent_id: found.get(3)?,
                    session_id: found.get(4)?,
                    apm_trace_id: found.get(5)?,
                    app: text(6)?,
                    name: text(7)?,
                    kind: text(8)?,
                    err: found.get(9)?,
                    start: found.get(10)?,
                    dur: found.get(11)?,
                },
                content: found.get(12)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= ROWS_PER_STEP;
    let next = rows.last().map(|row| row.id).filter(|_| is_full);
    let mut outcome = CheckOutcome {
        checked: rows.len() as u64,
        next,
        faults: Vec::new(),
    };
    let with_content = rows.iter().filter(|row| row.content.is_some()).count();
    let contents: i64 = connection
        .prepare_cached("SELECT count(*) FROM content WHERE id > ?1 AND id <= ?2")?
        .query_row(params![after, next.unwrap_or(i64::MAX)], |row| row.get(0))?;
    if contents.unsigned_abs() != with_content as u64 {
        outcome
            .faults
            .push("there is content without a span".to_owned());
    }
    for row in rows {
        if let Some(fault) = row_fault(&row, all) {
            let (trace, span) = (&row.columns.trace_id, &row.columns.span_id);
            outcome
                .faults
                .push(format!("span {span} of trace {trace}: {fault}"));
        }
    }
    outcome.faults.truncate(MAX_FAULTS);
    Ok(outcome)
}

fn row_fault(stored: &StoredRow, all: i64) -> Option<&'static str> {
    let Some(content) = &stored.content else {
        return Some("its content is missing");
    };
    let Ok(span) = decode_content(content) else {
        return Some("its content cannot be read");
    };
    if SpanColumns::from_span(&span) != stored.columns {
        return Some("its columns differ from its content");
    }
    // Spans of a full millisecond use keys of the following ones, and some spans may be removed.
    let start_ms = stored.columns.start.div_euclid(1_000_000);
    let (first, _) = key_range(start_ms);
    let (_, last) = key_range(start_ms + all / 1_024 + MAX_KEY_DRIFT_MS);
    (stored.id < first || stored.id > last).then_some("its key does not match its start")
}

fn check_evaluations(
    connection: &Connection,
    after: Option<i64>,
) -> Result<CheckOutcome, ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, target, kind, label, ts, body FROM evals WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after.unwrap_or(i64::MIN), ROWS_PER_STEP])?;
    let mut outcome = CheckOutcome::default();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (key, body): (String, String) = (row.get(1)?, row.get(5)?);
        let (kind, label, ts): (i64, String, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        outcome.checked += 1;
        last = Some(id);
        let fault = match decode_evaluation(&key, &body) {
            Err(reason) => Some(reason),
            Ok(targeted) => {
                let body = &targeted.evaluation;
                let body_kind = i64::from(body.event_kind == EventKind::Feedback);
                let is_equal = body_kind == kind && body.label == label && body.timestamp_ms == ts;
                if !is_equal {
                    Some("its columns differ from its body".to_owned())
                } else if !is_joined(connection, &targeted.target)? {
                    Some("the key of its tag is not in the list of joined tags".to_owned())
                } else {
                    None
                }
            }
        };
        if let Some(fault) = fault {
            outcome.faults.push(format!("evaluation {id}: {fault}"));
        }
    }
    outcome.next = last.filter(|_| outcome.checked >= ROWS_PER_STEP.unsigned_abs());
    outcome.faults.truncate(MAX_FAULTS);
    Ok(outcome)
}

/// Whether reading spans looks up the tag of a tag join.
fn is_joined(connection: &Connection, target: &EvaluationTarget) -> rusqlite::Result<bool> {
    let EvaluationTarget::Tag { key, .. } = target else {
        return Ok(true);
    };
    let found: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM tag_keys WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

fn check_outbox(connection: &Connection) -> Result<CheckOutcome, ReadError> {
    let (count, first, last): (i64, i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(min(seq), 1), coalesce(max(seq), 0) FROM outbox",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut faults = Vec::new();
    if last - first + 1 != count {
        faults.push(format!(
            "the list of changes has gaps: {count} of the numbers {first} to {last} are present"
        ));
    }
    Ok(CheckOutcome {
        checked: count.unsigned_abs(),
        next: None,
        faults,
    })
}
