//! Checking the file: by the engine, and each row against what it stands for.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::rows::{Row, key_range, span_of};
use super::upkeep::targeted;
use super::{ReadError, SqliteStore};
use crate::store::{CheckStep, Checked, EvaluationTarget, IndexProgress, StoreError};
use llmobs_core::model::EventKind;

/// How long the index may take to catch up before that is a fault.
const INDEX_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Rows looked at in one step.
const ROWS: i64 = 2_000;

/// How far a key may lie behind its start beyond what the spans that are there explain.
const RUN_ON_MS: i64 = 60_000;

/// Faults told by one step.
const FAULTS: usize = 100;

impl SqliteStore {
    /// All but the index.
    pub(super) fn check_rows(&self, step: CheckStep) -> Result<Checked, StoreError> {
        self.read(|connection| match step {
            CheckStep::File => file(connection),
            CheckStep::Spans { after } => spans(connection, after),
            CheckStep::Evaluations { after } => evaluations(connection, after),
            CheckStep::Changes => changes(connection),
            CheckStep::Index => Ok(Checked::default()),
        })
    }

    /// The index against the rows, once it has caught up.
    pub(super) fn check_index(&self) -> Result<Checked, StoreError> {
        let Some(found) = self.verify_index(INDEX_PATIENCE)? else {
            let why = match self.index_progress() {
                IndexProgress::Failed(reason) => format!("the index does not work: {reason}"),
                IndexProgress::Building { .. } | IndexProgress::UpTo(_) => {
                    "the index does not catch up with the spans".to_owned()
                }
            };
            return Ok(Checked {
                faults: vec![why],
                ..Checked::default()
            });
        };
        let told = [
            (found.missing, "spans are not in the index"),
            (found.surplus, "spans in the index are not kept"),
            (found.differing, "spans are otherwise in the index"),
        ];
        let faults = told
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"));
        Ok(Checked {
            looked_at: found.agreeing + found.missing + found.differing,
            next: None,
            faults: faults.collect(),
        })
    }
}

fn file(connection: &Connection) -> Result<Checked, ReadError> {
    let told: Vec<String> = connection
        .prepare(&format!("PRAGMA integrity_check({FAULTS})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Checked {
        looked_at: 1,
        next: None,
        faults: told.into_iter().filter(|line| line != "ok").collect(),
    })
}

/// A row of `spans` with the texts that its numbers stand for.
struct Kept {
    id: i64,
    row: Row,
    content: Option<Vec<u8>>,
}

fn spans(connection: &Connection, after: Option<i64>) -> Result<Checked, ReadError> {
    let after = after.unwrap_or(i64::MIN);
    let all: i64 = connection
        .prepare_cached("SELECT count(*) FROM spans")?
        .query_row([], |row| row.get(0))?;
    let kept: Vec<Kept> = connection
        .prepare_cached(
            "SELECT s.id, s.trace_id, s.span_id, s.parent_id, s.session_id, s.apm_trace_id,
                    a.text, n.text, k.text, s.err, s.start, s.dur, c.z
             FROM spans s LEFT JOIN content c ON c.id = s.id
             LEFT JOIN dict a ON a.id = s.app LEFT JOIN dict n ON n.id = s.name
             LEFT JOIN dict k ON k.id = s.kind
             WHERE s.id > ?1 ORDER BY s.id LIMIT ?2",
        )?
        .query_map(params![after, ROWS], |found| {
            let text = |at| -> rusqlite::Result<String> {
                Ok(found.get::<_, Option<String>>(at)?.unwrap_or_default())
            };
            Ok(Kept {
                id: found.get(0)?,
                row: Row {
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
    let whole = i64::try_from(kept.len()).unwrap_or(i64::MAX) >= ROWS;
    let next = kept.last().map(|kept| kept.id).filter(|_| whole);
    let mut checked = Checked {
        looked_at: kept.len() as u64,
        next,
        faults: Vec::new(),
    };
    let with_content = kept.iter().filter(|kept| kept.content.is_some()).count();
    let contents: i64 = connection
        .prepare_cached("SELECT count(*) FROM content WHERE id > ?1 AND id <= ?2")?
        .query_row(params![after, next.unwrap_or(i64::MAX)], |row| row.get(0))?;
    if contents.unsigned_abs() != with_content as u64 {
        checked
            .faults
            .push("there is content that belongs to no span".to_owned());
    }
    for kept in kept {
        if let Some(fault) = fault_of(&kept, all) {
            let (trace, span) = (&kept.row.trace_id, &kept.row.span_id);
            checked
                .faults
                .push(format!("span {span} of trace {trace}: {fault}"));
        }
    }
    checked.faults.truncate(FAULTS);
    Ok(checked)
}

fn fault_of(kept: &Kept, all: i64) -> Option<&'static str> {
    let Some(content) = &kept.content else {
        return Some("its content is missing");
    };
    let Ok(span) = span_of(content) else {
        return Some("its content cannot be read");
    };
    if Row::of(&span) != kept.row {
        return Some("its row and its content disagree");
    }
    // A millisecond that is full goes on in those behind it, and some of its spans may have gone.
    let start_ms = kept.row.start.div_euclid(1_000_000);
    let (first, _) = key_range(start_ms);
    let (_, last) = key_range(start_ms + all / 1_024 + RUN_ON_MS);
    (kept.id < first || kept.id > last).then_some("its key does not fit its start")
}

fn evaluations(connection: &Connection, after: Option<i64>) -> Result<Checked, ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, target, kind, label, ts, body FROM evals WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after.unwrap_or(i64::MIN), ROWS])?;
    let mut checked = Checked::default();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (key, body): (String, String) = (row.get(1)?, row.get(5)?);
        let (kind, label, ts): (i64, String, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        checked.looked_at += 1;
        last = Some(id);
        let fault = match targeted(&key, &body) {
            Err(reason) => Some(reason),
            Ok(read) => {
                let said = &read.evaluation;
                let said_kind = i64::from(said.event_kind == EventKind::Feedback);
                let same = said_kind == kind && said.label == label && said.timestamp_ms == ts;
                if !same {
                    Some("its row and its body disagree".to_owned())
                } else if !is_joined(connection, &read.target)? {
                    Some("the tag that it is joined by is not looked for".to_owned())
                } else {
                    None
                }
            }
        };
        if let Some(fault) = fault {
            checked.faults.push(format!("evaluation {id}: {fault}"));
        }
    }
    checked.next = last.filter(|_| checked.looked_at >= ROWS.unsigned_abs());
    checked.faults.truncate(FAULTS);
    Ok(checked)
}

/// Whether spans are asked for the tag of a tag join.
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

fn changes(connection: &Connection) -> Result<Checked, ReadError> {
    let (count, first, last): (i64, i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(min(seq), 1), coalesce(max(seq), 0) FROM outbox",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut faults = Vec::new();
    if last - first + 1 != count {
        faults.push(format!(
            "the list of changes has gaps: {count} of the numbers {first} to {last} are there"
        ));
    }
    Ok(Checked {
        looked_at: count.unsigned_abs(),
        next: None,
        faults,
    })
}
