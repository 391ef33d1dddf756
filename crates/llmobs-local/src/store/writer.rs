//! The one thread that writes, and commits what waits together.
//!
//! A commit costs a flush of the disk, whatever its size. Requests that arrive while one runs are
//! taken into the next commit together, so a hundred small senders cost little more than one. Each
//! request is written under its own savepoint: one that fails takes nothing of itself into the
//! store and none of the others down.

mod purge;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::index::Shared;
use super::recent::{Fresh, Recorded};
use super::rows::{Row, content_of, key_range};
use super::{Ack, PurgeStep, Purged, StoreError, SweepStep, Swept, TargetedEvaluation, schema};
use llmobs_core::model::{EventKind, Span};

/// Requests that may wait for the writer before senders wait themselves.
const QUEUE: usize = 64;

/// A commit takes no further request once it holds this many rows.
const ROWS_PER_COMMIT: usize = 5_000;

/// The outbox keeps this many of the latest changes, and all that the index does not have yet.
const OUTBOX_KEPT: i64 = 100_000;

/// Entries of the in-memory dictionary and key hints before they are started afresh.
const CACHE_ENTRIES: usize = 10_000;

/// Kinds of changes in the outbox. A span that is no longer there has moved to another key
/// or was purged.
pub(super) const CHANGED_SPAN: i64 = 0;
pub(super) const CHANGED_EVALUATION: i64 = 1;
/// A span under a key that was free before.
pub(super) const NEW_SPAN: i64 = 2;

/// A span to be written.
pub(super) struct NewSpan {
    fresh: Arc<Fresh>,
    content: Vec<u8>,
}

impl NewSpan {
    /// Prepares a span. Evaluations on it are not kept: they have rows of their own.
    pub(super) fn of(mut span: Span) -> std::io::Result<Self> {
        span.evaluations.clear();
        span.feedback.clear();
        let (content, bytes) = content_of(&span)?;
        Ok(Self {
            fresh: Arc::new(Fresh {
                row: Row::of(&span),
                bytes,
                span: Arc::new(span),
            }),
            content,
        })
    }
}

pub(super) enum Write {
    Spans(Vec<NewSpan>),
    Evaluations(Vec<TargetedEvaluation>),
    Purge(PurgeStep),
    Sweep(SweepStep),
    /// Gives so many free pages back to the disk.
    GiveBack(u32),
}

/// What a write did.
pub(super) struct Done {
    pub(super) ack: Ack,
    /// What it removed, for those that remove spans.
    pub(super) purged: Purged,
    /// What it removed, for those that remove evaluations.
    pub(super) swept: Swept,
}

impl Write {
    fn rows(&self) -> usize {
        match self {
            Write::Spans(spans) => spans.len(),
            Write::Evaluations(evaluations) => evaluations.len(),
            Write::Purge(step) => step.limit,
            Write::Sweep(step) => step.limit,
            // Nothing joins it: moving pages takes its time.
            Write::GiveBack(_) => ROWS_PER_COMMIT,
        }
    }
}

struct Job {
    write: Write,
    done: SyncSender<Result<Done, StoreError>>,
}

/// The hand to the writing thread. Dropping it ends the thread after the queue is empty.
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `shared` tells what the index has.
    pub(super) fn start(connection: Connection, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let mut state = State::new(connection, shared)?;
        let thread = std::thread::Builder::new()
            .name("llmobs-store-writer".to_owned())
            .spawn(move || state.run(&queue))
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Writes, and returns when it is durable.
    pub(super) fn write(&self, write: Write) -> Result<Done, StoreError> {
        let gone = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (done, result) = sync_channel(1);
        self.jobs
            .as_ref()
            .ok_or_else(gone)?
            .send(Job { write, done })
            .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has already failed its callers.
            let _ = thread.join();
        }
    }
}

struct State {
    connection: Connection,
    /// What the index has, and what it will want.
    shared: Arc<Shared>,
    /// Changes of the running transaction.
    changes: Vec<Recorded>,
    /// Number of the last change.
    seq: i64,
    /// Text to number; only what is committed or in the running transaction.
    dict: HashMap<String, i64>,
    /// For milliseconds whose keys are used up: where to look for a free one.
    full: HashMap<i64, i64>,
}

impl State {
    fn new(connection: Connection, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let mut state = Self {
            connection,
            shared,
            changes: Vec::new(),
            seq: 0,
            dict: HashMap::new(),
            full: HashMap::new(),
        };
        state.reload().map_err(|e| schema::from_sqlite(&e))?;
        Ok(state)
    }

    /// Forgets what a rolled back transaction may have left in memory.
    fn reload(&mut self) -> rusqlite::Result<()> {
        self.dict.clear();
        self.full.clear();
        self.seq =
            self.connection
                .query_row("SELECT coalesce(max(seq), 0) FROM outbox", [], |row| {
                    row.get(0)
                })?;
        let seq = self.seq;
        self.changes.retain(|change| change.seq <= seq);
        Ok(())
    }

    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut rows = first.write.rows();
            let mut jobs = vec![first];
            while rows < ROWS_PER_COMMIT
                && let Ok(next) = queue.try_recv()
            {
                rows += next.write.rows();
                jobs.push(next);
            }
            self.commit(jobs);
        }
    }

    /// Writes all jobs in one transaction and tells each its result.
    fn commit(&mut self, jobs: Vec<Job>) {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            for job in jobs {
                // The caller may have gone; its request is then not acknowledged.
                let _ = job.done.send(Err(schema::from_sqlite(&error)));
            }
            return;
        }
        let mut answers = Vec::with_capacity(jobs.len());
        let mut lost = None;
        for job in jobs {
            let answer = match &lost {
                None => self.one(&job.write),
                Some(error) => Err(StoreError::clone(error)),
            };
            // Some errors (a full disk) make the engine undo the whole transaction at once.
            if lost.is_none() && self.connection.is_autocommit() {
                lost = answer.as_ref().err().cloned();
            }
            answers.push((answer, job.done));
        }
        let committed = match lost {
            Some(error) => Err(error),
            None => self.finish().map_err(|error| {
                self.roll_back("ROLLBACK");
                schema::from_sqlite(&error)
            }),
        };
        for (answer, done) in answers {
            let _ = done.send(committed.clone().and(answer));
        }
    }

    fn finish(&mut self) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM outbox WHERE seq <= ?1")?
            .execute([(self.seq - OUTBOX_KEPT).min(self.shared.forgettable())])?;
        // Before the commit: whoever sees it finds its changes there.
        let before = self.changes.first().map(|change| change.seq - 1);
        let gone = self.shared.recent.put(std::mem::take(&mut self.changes));
        let committed = self.connection.execute_batch("COMMIT");
        drop(gone);
        if let (Err(_), Some(before)) = (&committed, before) {
            drop(self.shared.recent.take_back(before));
        }
        committed
    }

    fn one(&mut self, write: &Write) -> Result<Done, StoreError> {
        let mut attempt = || -> rusqlite::Result<Done> {
            self.connection.execute_batch("SAVEPOINT job")?;
            let (mut purged, mut swept) = (Purged::default(), Swept::default());
            match write {
                Write::Spans(spans) => spans.iter().try_for_each(|new| self.put_new(new))?,
                Write::Evaluations(evaluations) => evaluations
                    .iter()
                    .try_for_each(|evaluation| self.put_evaluation(evaluation))?,
                Write::Purge(step) => purged = self.purge(*step)?,
                Write::Sweep(step) => swept = self.sweep(*step)?,
                Write::GiveBack(pages) => purged.more = self.give_back(*pages)?,
            }
            self.connection.execute_batch("RELEASE job")?;
            Ok(Done {
                ack: Ack { seq: self.seq },
                purged,
                swept,
            })
        };
        attempt().map_err(|error| {
            self.roll_back("ROLLBACK TO job; RELEASE job");
            schema::from_sqlite(&error)
        })
    }

    /// Undoes a failed write in the file, unless the engine has done so, and in memory.
    fn roll_back(&mut self, sql: &str) {
        let undone = if self.connection.is_autocommit() {
            Ok(())
        } else {
            self.connection.execute_batch(sql)
        };
        if let Err(error) = undone.and_then(|()| self.reload()) {
            // What cannot be told apart is read from the tables.
            self.changes.clear();
            tracing::warn!(%error, "the store could not undo a failed write");
        }
    }

    fn put_new(&mut self, new: &NewSpan) -> rusqlite::Result<()> {
        let row = &new.fresh.row;
        let app = self.number_of(&row.app)?;
        let name = self.number_of(&row.name)?;
        let kind = self.number_of(&row.kind)?;
        let known: Option<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT id, start FROM spans WHERE trace_id = ?1 AND span_id = ?2")?
            .query_row(params![row.trace_id, row.span_id], |found| {
                Ok((found.get(0)?, found.get(1)?))
            })
            .optional()?;
        let start_ms = row.start.div_euclid(1_000_000);
        let (id, change) = match known {
            Some((id, start)) if start.div_euclid(1_000_000) == start_ms => (id, CHANGED_SPAN),
            Some((id, _)) => {
                // Its key would lie about its time.
                self.remove(id)?;
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
            .execute(params![id, new.content])?;
        self.changed(change, id, Some(new.fresh.clone()))
    }

    fn remove(&mut self, id: i64) -> rusqlite::Result<()> {
        for sql in [
            "DELETE FROM spans WHERE id = ?1",
            "DELETE FROM content WHERE id = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([id])?;
        }
        self.changed(CHANGED_SPAN, id, None)
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
            Some(id) => self.changed(CHANGED_EVALUATION, id, None),
            None => Ok(()),
        }
    }

    fn changed(&mut self, kind: i64, id: i64, fresh: Option<Arc<Fresh>>) -> rusqlite::Result<()> {
        self.seq += 1;
        self.connection
            .prepare_cached("INSERT INTO outbox (seq, kind, ref) VALUES (?1, ?2, ?3)")?
            .execute([self.seq, kind, id])?;
        self.changes.push(Recorded {
            seq: self.seq,
            kind,
            id,
            fresh,
        });
        Ok(())
    }

    fn number_of(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.dict.get(text) {
            return Ok(*id);
        }
        let known: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM dict WHERE text = ?1")?
            .query_row([text], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => self
                .connection
                .prepare_cached("INSERT INTO dict (text) VALUES (?1)")?
                .insert([text])?,
        };
        if self.dict.len() >= CACHE_ENTRIES {
            self.dict.clear();
        }
        self.dict.insert(text.to_owned(), id);
        Ok(id)
    }

    /// The next free key of a millisecond; of the following ones when its 1,024 are used up.
    fn free_key(&mut self, start_ms: i64) -> rusqlite::Result<i64> {
        let mut ms = self.full.get(&start_ms).copied().unwrap_or(start_ms);
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
                    if self.full.len() >= CACHE_ENTRIES {
                        self.full.clear();
                    }
                    self.full.insert(start_ms, ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmobs_core::model::{Span, SpanId, TraceId};

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
        Write::Spans(spans.map(|span| NewSpan::of(span).unwrap()).collect())
    }

    /// A writer on a new file that was prepared by some SQL, and what it shares with an index.
    fn prepared(sql: &str) -> (tempfile::TempDir, std::path::PathBuf, Writer, Arc<Shared>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llmobs.db");
        let connection = schema::open_writer(&file, "OFF").unwrap();
        connection.execute_batch(sql).unwrap();
        let shared = Arc::new(Shared::without_index());
        let writer = Writer::start(connection, shared.clone()).unwrap();
        (folder, file, writer, shared)
    }

    #[test]
    fn a_full_disk_is_told_and_takes_nothing_half() {
        let (_folder, file, writer, _) = prepared("PRAGMA max_page_count = 200");
        let count = || -> i64 {
            let reader = schema::open_reader(&file).unwrap();
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
    fn changes_at_hand_are_only_those_that_were_committed() {
        // Once there is a row in `refuse`, no commit with a change in it succeeds.
        let (_folder, file, writer, shared) = prepared(
            "PRAGMA foreign_keys = ON; CREATE TABLE refuse (x); CREATE TABLE none (x PRIMARY KEY);
                 CREATE TABLE broken (x REFERENCES none DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER breaks AFTER INSERT ON outbox WHEN EXISTS (SELECT 1 FROM refuse)
                 BEGIN INSERT INTO broken VALUES (1); END;",
        );
        let other = Connection::open(&file).unwrap();
        // The changes after one, and the starts of the spans that they wrote.
        let at_hand = |after: i64, upto: i64| -> Option<Vec<(i64, i64)>> {
            let commits = shared.recent.between(after, upto)?;
            let changes = commits.iter().flat_map(|commit| commit.iter());
            let start = |change: &Recorded| change.fresh.as_ref().unwrap().row.start;
            Some(changes.map(|change| (change.seq, start(change))).collect())
        };
        writer.write(rows(0..2, 1)).unwrap();
        other.execute("INSERT INTO refuse VALUES (1)", []).unwrap();
        assert!(writer.write(rows(2..5, 1)).is_err());
        assert_eq!(at_hand(0, 2), Some(vec![(1, 0), (2, 1)]));
        assert_eq!(at_hand(0, 3), None);
        other.execute("DELETE FROM refuse", []).unwrap();
        writer.write(rows(7..9, 1)).unwrap();
        assert_eq!(at_hand(2, 4), Some(vec![(3, 7), (4, 8)]));
    }

    #[test]
    fn the_outbox_stays_bounded() {
        let last = OUTBOX_KEPT + 5;
        let (_folder, file, writer, _) = prepared(&format!(
            "INSERT INTO outbox VALUES ({last}, 0, 1), (7, 0, 1)"
        ));
        let done = writer.write(rows(0..3, 1)).unwrap();
        assert_eq!(done.ack.seq, OUTBOX_KEPT + 8);
        let reader = schema::open_reader(&file).unwrap();
        let first: i64 = reader
            .query_row("SELECT min(seq) FROM outbox", [], |row| row.get(0))
            .unwrap();
        assert_eq!(first, OUTBOX_KEPT + 5);
    }
}
