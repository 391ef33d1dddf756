//! The thread that writes, with group commit.
//!
//! A commit costs one flush of the disk, regardless of its size. The next commit takes all requests
//! that arrive while one runs, so a hundred small senders cost little more than one. Each request
//! has its own savepoint: a request that fails leaves nothing in the store and does not affect the
//! others.

mod purge;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::outbox::{
    CHANGED_EVALUATION, CHANGED_SPAN, NEW_SPAN, OutboxEntry, OutboxState, RecentWrite, last_change,
};
use super::rows::{SpanColumns, encode_content, key_range};
use super::schema::from_sqlite;
use super::{
    Ack, Cause, EvaluationPurgeOutcome, EvaluationPurgeStep, SpanPurgeOutcome, SpanPurgeStep,
    StoreError, TargetedEvaluation,
};
use llmobs_core::model::{EventKind, Span};

/// Requests in the queue of the writer; further senders wait.
const MAX_QUEUED: usize = 64;

/// A commit takes no further request once it has this many rows.
const MAX_ROWS_PER_COMMIT: usize = 5_000;

/// The outbox keeps at least this many of the latest changes, and all that the index has not read.
const MIN_OUTBOX_ENTRIES: i64 = 100_000;

/// Entries of the in-memory dictionary and of the key hints; beyond that they are cleared.
const MAX_CACHE_ENTRIES: usize = 10_000;

/// A span that is prepared for writing.
pub(super) struct NewSpan {
    write: Arc<RecentWrite>,
    content: Vec<u8>,
}

impl NewSpan {
    /// Prepares a span. Evaluations on it are dropped: they have rows of their own.
    pub(super) fn new(mut span: Span) -> std::io::Result<Self> {
        span.evaluations.clear();
        span.feedback.clear();
        let (content, bytes) = encode_content(&span)?;
        Ok(Self {
            write: Arc::new(RecentWrite {
                columns: SpanColumns::from_span(&span),
                bytes,
                span: Arc::new(span),
            }),
            content,
        })
    }
}

/// A request to the writer.
pub(super) enum Write {
    Spans(Vec<NewSpan>),
    Evaluations(Vec<TargetedEvaluation>),
    PurgeSpans(SpanPurgeStep),
    PurgeEvaluations(EvaluationPurgeStep),
    /// Returns free pages, at most this many, to the disk.
    ReleasePages(u32),
}

/// The result of a write.
#[derive(Default)]
pub(super) struct WriteOutcome {
    /// Sequence number of the last change.
    pub(super) seq: i64,
    /// Of [`Write::PurgeSpans`].
    pub(super) spans: SpanPurgeOutcome,
    /// Of [`Write::PurgeEvaluations`].
    pub(super) evaluations: EvaluationPurgeOutcome,
    /// Of [`Write::ReleasePages`]: whether more pages can be released.
    pub(super) more_pages: bool,
}

impl WriteOutcome {
    pub(super) fn ack(&self) -> Ack {
        Ack { seq: self.seq }
    }
}

impl Write {
    fn rows(&self) -> usize {
        match self {
            Write::Spans(spans) => spans.len(),
            Write::Evaluations(evaluations) => evaluations.len(),
            Write::PurgeSpans(step) => step.limit,
            Write::PurgeEvaluations(step) => step.limit,
            // Moving pages takes long, so the commit takes no further request.
            Write::ReleasePages(_) => MAX_ROWS_PER_COMMIT,
        }
    }
}

struct Job {
    write: Write,
    result: SyncSender<Result<WriteOutcome, StoreError>>,
}

/// The handle of the writing thread. Dropping it ends the thread when the queue is empty.
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        outbox: Arc<OutboxState>,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel(MAX_QUEUED);
        let mut state = State::new(connection, outbox)?;
        let thread = std::thread::Builder::new()
            .name("llmobs-store-writer".to_owned())
            .spawn(move || state.run(&queue))
            .map_err(|error| StoreError::Unavailable(Cause::new(error)))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Writes, and returns when the write is durable.
    pub(super) fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let stopped = || StoreError::Unavailable("the writer has stopped".into());
        let (result, receiver) = sync_channel(1);
        self.jobs
            .as_ref()
            .ok_or_else(stopped)?
            .send(Job { write, result })
            .map_err(|_| stopped())?;
        receiver.recv().map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, its callers have received errors.
            let _ = thread.join();
        }
    }
}

struct State {
    connection: Connection,
    outbox: Arc<OutboxState>,
    /// Changes of the running transaction.
    changes: Vec<OutboxEntry>,
    /// Sequence number of the last change.
    seq: i64,
    /// Numbers of texts that are committed or in the running transaction.
    dict: HashMap<String, i64>,
    /// For milliseconds without a free key: the millisecond to look for one.
    key_hints: HashMap<i64, i64>,
}

impl State {
    fn new(connection: Connection, outbox: Arc<OutboxState>) -> Result<Self, StoreError> {
        let mut state = Self {
            connection,
            outbox,
            changes: Vec::new(),
            seq: 0,
            dict: HashMap::new(),
            key_hints: HashMap::new(),
        };
        state.reload().map_err(from_sqlite)?;
        Ok(state)
    }

    /// Discards what a rolled back transaction may have left in memory.
    fn reload(&mut self) -> rusqlite::Result<()> {
        self.dict.clear();
        self.key_hints.clear();
        self.seq = last_change(&self.connection)?;
        let seq = self.seq;
        self.changes.retain(|change| change.seq <= seq);
        Ok(())
    }

    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut rows = first.write.rows();
            let mut jobs = vec![first];
            while rows < MAX_ROWS_PER_COMMIT
                && let Ok(next) = queue.try_recv()
            {
                rows += next.write.rows();
                jobs.push(next);
            }
            self.commit(jobs);
        }
    }

    /// Writes all jobs in one transaction and sends each its result.
    fn commit(&mut self, jobs: Vec<Job>) {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            let error = from_sqlite(error);
            for job in jobs {
                // If the caller has stopped waiting, its request is not acknowledged.
                let _ = job.result.send(Err(error.clone()));
            }
            return;
        }
        let mut results = Vec::with_capacity(jobs.len());
        let mut transaction_error = None;
        for job in jobs {
            let result = match &transaction_error {
                None => self.write_one(&job.write),
                Some(error) => Err(StoreError::clone(error)),
            };
            // Some errors, such as a full disk, make SQLite roll the transaction back.
            if transaction_error.is_none() && self.connection.is_autocommit() {
                transaction_error = result.as_ref().err().cloned();
            }
            results.push((result, job.result));
        }
        let committed = match transaction_error {
            Some(error) => Err(error),
            None => self.finish().map_err(|error| {
                self.roll_back("ROLLBACK");
                from_sqlite(error)
            }),
        };
        for (result, sender) in results {
            let _ = sender.send(committed.clone().and(result));
        }
    }

    /// Trims the outbox and commits.
    fn finish(&mut self) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM outbox WHERE seq <= ?1")?
            .execute([(self.seq - MIN_OUTBOX_ENTRIES).min(self.outbox.trim_seq())])?;
        // Before the commit, so that every reader that sees the commit finds its changes in memory.
        let before = self.changes.first().map(|change| change.seq - 1);
        let removed = self.outbox.recent.push(std::mem::take(&mut self.changes));
        let committed = self.connection.execute_batch("COMMIT");
        drop(removed);
        if let (Err(_), Some(before)) = (&committed, before) {
            drop(self.outbox.recent.roll_back(before));
        }
        committed
    }

    fn write_one(&mut self, write: &Write) -> Result<WriteOutcome, StoreError> {
        let mut attempt = || -> rusqlite::Result<WriteOutcome> {
            self.connection.execute_batch("SAVEPOINT job")?;
            let mut outcome = WriteOutcome::default();
            match write {
                Write::Spans(spans) => spans.iter().try_for_each(|span| self.put_span(span))?,
                Write::Evaluations(evaluations) => evaluations
                    .iter()
                    .try_for_each(|evaluation| self.put_evaluation(evaluation))?,
                Write::PurgeSpans(step) => outcome.spans = self.purge_spans(*step)?,
                Write::PurgeEvaluations(step) => {
                    outcome.evaluations = self.purge_evaluations(*step)?;
                }
                Write::ReleasePages(pages) => outcome.more_pages = self.release_pages(*pages)?,
            }
            self.connection.execute_batch("RELEASE job")?;
            outcome.seq = self.seq;
            Ok(outcome)
        };
        attempt().map_err(|error| {
            self.roll_back("ROLLBACK TO job; RELEASE job");
            from_sqlite(error)
        })
    }

    /// Undoes a failed write in memory, and in the file unless SQLite has done so.
    fn roll_back(&mut self, sql: &str) {
        let rolled_back = if self.connection.is_autocommit() {
            Ok(())
        } else {
            self.connection.execute_batch(sql)
        };
        if let Err(error) = rolled_back.and_then(|()| self.reload()) {
            // It is unknown which changes are in the tables, so readers use the tables.
            self.changes.clear();
            tracing::warn!(%error, "the local store could not roll a failed write back");
        }
    }

    fn put_span(&mut self, span: &NewSpan) -> rusqlite::Result<()> {
        let row = &span.write.columns;
        let app = self.dict_number(&row.app)?;
        let name = self.dict_number(&row.name)?;
        let kind = self.dict_number(&row.kind)?;
        let stored: Option<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT id, start FROM spans WHERE trace_id = ?1 AND span_id = ?2")?
            .query_row(params![row.trace_id, row.span_id], |found| {
                Ok((found.get(0)?, found.get(1)?))
            })
            .optional()?;
        let start_ms = row.start.div_euclid(1_000_000);
        let (id, change) = match stored {
            Some((id, start)) if start.div_euclid(1_000_000) == start_ms => (id, CHANGED_SPAN),
            Some((id, _)) => {
                // The key depends on the start, so the span moves to a new key.
                self.remove_span(id)?;
                (self.free_key(start_ms)?, NEW_SPAN)
            }
            None => (self.free_key(start_ms)?, NEW_SPAN),
        };
        self.connection
            .prepare_cached(
                "INSERT INTO spans (id, trace_id, span_id, parent_id, session_id, apm_trace_id,
                                    app, name, kind, err, start, dur)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (id) DO UPDATE SET
                   parent_id = excluded.parent_id, session_id = excluded.session_id,
                   apm_trace_id = excluded.apm_trace_id, app = excluded.app,
                   name = excluded.name, kind = excluded.kind, err = excluded.err,
                   start = excluded.start, dur = excluded.dur",
            )?
            .execute(params![
                id,
                row.trace_id,
                row.span_id,
                row.parent_id,
                row.session_id,
                row.apm_trace_id,
                app,
                name,
                kind,
                row.err,
                row.start,
                row.dur
            ])?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO content (id, z) VALUES (?1, ?2)")?
            .execute(params![id, span.content])?;
        self.record_change(change, id, Some(span.write.clone()))
    }

    fn remove_span(&mut self, id: i64) -> rusqlite::Result<()> {
        for sql in [
            "DELETE FROM spans WHERE id = ?1",
            "DELETE FROM content WHERE id = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([id])?;
        }
        self.record_change(CHANGED_SPAN, id, None)
    }

    fn put_evaluation(&mut self, targeted: &TargetedEvaluation) -> rusqlite::Result<()> {
        if let Some(key) = targeted.tag_key() {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO tag_keys (key) VALUES (?1)")?
                .execute([key])?;
        }
        let evaluation = &targeted.evaluation;
        let kind = match evaluation.event_kind {
            EventKind::Evaluation => 0,
            EventKind::Feedback => 1,
        };
        let body = serde_json::to_string(evaluation)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        let id: Option<i64> = self
            .connection
            .prepare_cached(
                "INSERT INTO evals (target, kind, label, ts, arrival, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (target, kind, label) DO UPDATE SET
                   ts = excluded.ts, arrival = excluded.arrival, body = excluded.body
                 WHERE excluded.ts >= evals.ts
                 RETURNING id",
            )?
            .query_row(
                params![
                    targeted.key(),
                    kind,
                    evaluation.label,
                    evaluation.timestamp_ms,
                    self.seq + 1,
                    body
                ],
                |row| row.get(0),
            )
            .optional()?;
        match id {
            Some(id) => self.record_change(CHANGED_EVALUATION, id, None),
            None => Ok(()),
        }
    }

    fn record_change(
        &mut self,
        kind: i64,
        id: i64,
        write: Option<Arc<RecentWrite>>,
    ) -> rusqlite::Result<()> {
        self.seq += 1;
        self.connection
            .prepare_cached("INSERT INTO outbox (seq, kind, ref) VALUES (?1, ?2, ?3)")?
            .execute([self.seq, kind, id])?;
        self.changes.push(OutboxEntry {
            seq: self.seq,
            kind,
            id,
            write,
        });
        Ok(())
    }

    fn dict_number(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.dict.get(text) {
            return Ok(*id);
        }
        let stored: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM dict WHERE text = ?1")?
            .query_row([text], |row| row.get(0))
            .optional()?;
        let id = match stored {
            Some(id) => id,
            None => self
                .connection
                .prepare_cached("INSERT INTO dict (text) VALUES (?1)")?
                .insert([text])?,
        };
        if self.dict.len() >= MAX_CACHE_ENTRIES {
            self.dict.clear();
        }
        self.dict.insert(text.to_owned(), id);
        Ok(id)
    }

    /// The next free key of a millisecond, or of a following one when its 1,024 keys are used.
    fn free_key(&mut self, start_ms: i64) -> rusqlite::Result<i64> {
        let mut ms = self.key_hints.get(&start_ms).copied().unwrap_or(start_ms);
        loop {
            let (first, last) = key_range(ms);
            let used: Option<i64> = self
                .connection
                .prepare_cached("SELECT max(id) FROM spans WHERE id BETWEEN ?1 AND ?2")?
                .query_row([first, last], |row| row.get(0))?;
            match used {
                None => return Ok(first),
                Some(id) if id < last => return Ok(id + 1),
                Some(_) => {
                    ms += 1;
                    if self.key_hints.len() >= MAX_CACHE_ENTRIES {
                        self.key_hints.clear();
                    }
                    self.key_hints.insert(start_ms, ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{FILE_NAME, SCHEMA, open_writer};
    use super::*;
    use llmobs_core::model::{Span, SpanId, TraceId};
    use llmobs_sqlite::Durability;

    fn rows(ids: std::ops::Range<i64>, size: usize) -> Write {
        let noise = |n: i64| -> String {
            let mut state = n.unsigned_abs() + 1;
            std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
            })
            .take(size)
            .collect()
        };
        let spans = ids.map(|n| Span {
            trace_id: TraceId::from("t"),
            span_id: SpanId::from(n.to_string()),
            start_ns: n,
            name: noise(n),
            ..Span::default()
        });
        Write::Spans(spans.map(|span| NewSpan::new(span).unwrap()).collect())
    }

    /// A writer on a new file after some SQL, and its outbox state without an index.
    fn writer_after(
        sql: &str,
    ) -> (
        tempfile::TempDir,
        std::path::PathBuf,
        Writer,
        Arc<OutboxState>,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        let (connection, _) = open_writer(&file, Durability::Process).unwrap();
        connection.execute_batch(sql).unwrap();
        let outbox = Arc::new(OutboxState::default());
        outbox.keep_none();
        let writer = Writer::start(connection, outbox.clone()).unwrap();
        (directory, file, writer, outbox)
    }

    #[test]
    fn full_disk_is_reported_and_stores_nothing() {
        let (_directory, file, writer, _) = writer_after("PRAGMA max_page_count = 200");
        let count = || -> i64 {
            let reader = SCHEMA.open_reader(&file).unwrap();
            reader
                .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))
                .unwrap()
        };
        writer.write(rows(0..10, 10)).unwrap();
        let refused = writer.write(rows(10..400, 10_000)).err().unwrap();
        assert!(matches!(refused, StoreError::Full), "{refused}");
        assert_eq!(count(), 10);
        writer.write(rows(10..12, 10)).unwrap();
        assert_eq!(count(), 12);
    }

    #[test]
    fn recent_changes_hold_committed_changes_only() {
        // With a row in `refuse`, every commit that contains a change fails.
        let (_directory, file, writer, outbox) = writer_after(
            "PRAGMA foreign_keys = ON; CREATE TABLE refuse (x); CREATE TABLE none (x PRIMARY KEY);
                 CREATE TABLE broken (x REFERENCES none DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER breaks AFTER INSERT ON outbox WHEN EXISTS (SELECT 1 FROM refuse)
                 BEGIN INSERT INTO broken VALUES (1); END;",
        );
        let other = Connection::open(&file).unwrap();
        // The changes after one, with the starts of the written spans.
        let recent = |after: i64, last: i64| -> Option<Vec<(i64, i64)>> {
            let commits = outbox.recent.between(after, last)?;
            let changes = commits.iter().flat_map(|commit| commit.iter());
            let start = |change: &OutboxEntry| change.write.as_ref().unwrap().columns.start;
            Some(changes.map(|change| (change.seq, start(change))).collect())
        };
        writer.write(rows(0..2, 1)).unwrap();
        other.execute("INSERT INTO refuse VALUES (1)", []).unwrap();
        assert!(writer.write(rows(2..5, 1)).is_err());
        assert_eq!(recent(0, 2), Some(vec![(1, 0), (2, 1)]));
        assert_eq!(recent(0, 3), None);
        other.execute("DELETE FROM refuse", []).unwrap();
        writer.write(rows(7..9, 1)).unwrap();
        assert_eq!(recent(2, 4), Some(vec![(3, 7), (4, 8)]));
    }

    #[test]
    fn outbox_is_trimmed() {
        let last = MIN_OUTBOX_ENTRIES + 5;
        let (_directory, file, writer, _) = writer_after(&format!(
            "INSERT INTO outbox VALUES ({last}, 0, 1), (7, 0, 1)"
        ));
        let outcome = writer.write(rows(0..3, 1)).unwrap();
        assert_eq!(outcome.seq, MIN_OUTBOX_ENTRIES + 8);
        let reader = SCHEMA.open_reader(&file).unwrap();
        let first: i64 = reader
            .query_row("SELECT min(seq) FROM outbox", [], |row| row.get(0))
            .unwrap();
        assert_eq!(first, MIN_OUTBOX_ENTRIES + 5);
    }
}
