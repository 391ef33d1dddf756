//! The SQLite store: the record of truth.
//!
//! One writer thread with group commit, a few readers that each see one consistent moment.

mod check;
mod upkeep;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::index::{self, Index, IndexCheck, IndexProgress, Shared, View};
use super::join::Joiner;
use super::rows::span_of;
use super::schema::{from_sqlite, open_reader, open_writer};
use super::writer::{Done, NewSpan, Write, Writer};
use super::{
    Ack, ArrivedEvaluation, CheckStep, Checked, Outcome, Position, PurgeStep, Purged, Search,
    SpanStore, StoreError, StoreStats, SweepStep, Swept, TargetedEvaluation, TraceContexts, Usage,
    Visit, narrow,
};
use llmobs_core::analysis::aggregate::RowAggregator;
use llmobs_core::model::{Span, SpanId, TraceId};
use llmobs_core::query::{Query, SpanContext};

/// The file in the data folder.
pub(crate) const FILE_NAME: &str = "llmobs.db";

/// Readers that may be open at once; further ones wait.
const READERS: usize = 4;

/// Free pages given back in one transaction: some 8 MB.
const PAGES_GIVEN_BACK: u32 = 2_000;

/// How much a write has to survive before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: every commit is flushed to the disk.
    Full,
    /// Death of the process only: for data that is thrown away anyway.
    Process,
}

impl Durability {
    /// The value of `PRAGMA synchronous`.
    pub(super) fn synchronous(self) -> &'static str {
        match self {
            Durability::Full => "FULL",
            Durability::Process => "OFF",
        }
    }
}

/// Spans in one SQLite file.
pub struct SqliteStore {
    file: PathBuf,
    store_id: String,
    // Dropped in this order: the index follows the writer.
    writer: Writer,
    index: Index,
    readers: Mutex<Readers>,
    returned: Condvar,
}

struct Readers {
    idle: Vec<Connection>,
    open: usize,
}

impl SqliteStore {
    /// Opens the store in a folder that exists, and makes it if there is none.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, StoreError> {
        let file = folder.join(FILE_NAME);
        let connection = open_writer(&file, durability.synchronous())?;
        let store_id: String = connection
            .query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| {
                row.get(0)
            })
            .map_err(|e| from_sqlite(&e))?;
        let shared = Arc::new(Shared::new());
        let writer = Writer::start(connection, shared.clone())?;
        Ok(Self {
            writer,
            index: Index::start(&file, &store_id, shared)?,
            file,
            store_id,
            readers: Mutex::new(Readers {
                idle: Vec::new(),
                open: 0,
            }),
            returned: Condvar::new(),
        })
    }

    /// The id that this store was given when it was made.
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    fn write(&self, write: Write) -> Result<Done, StoreError> {
        let done = self.writer.write(write)?;
        self.index.written(done.ack);
        Ok(done)
    }

    /// What the index has, if it helps with a search.
    fn view_for(&self, search: &Search) -> Option<Arc<View>> {
        if index::is_worth_it(search) {
            self.index.view()
        } else {
            None
        }
    }

    /// How far the index is behind the spans.
    pub fn index_progress(&self) -> IndexProgress {
        self.index.progress()
    }

    /// Waits until the index has everything that was acknowledged before; whether it has.
    pub fn settle(&self, timeout: Duration) -> bool {
        let last = self.read(|connection| Ok(index::last_change(connection)?));
        last.is_ok_and(|last| self.index.wait_for(last, timeout))
    }

    /// Holds the index against the rows, after it has caught up; `None` while it has not.
    ///
    /// # Errors
    ///
    /// Rows or index that cannot be read.
    pub fn verify_index(&self, patience: Duration) -> Result<Option<IndexCheck>, StoreError> {
        if !self.settle(patience) {
            return Ok(None);
        }
        let Some(view) = self.index.view() else {
            return Ok(None);
        };
        self.read(|connection| index::verify(connection, &view))
    }

    /// Builds the index anew, behind the searches.
    pub fn rebuild_index(&self) {
        self.index.rebuild();
    }

    fn lock_readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a reader, within one read transaction.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let reader = Reader::borrow(self)?;
        let result = match &reader.connection {
            Some(connection) => connection
                .execute_batch("BEGIN")
                .map_err(ReadError::from)
                .and_then(|()| work(connection)),
            None => Err(ReadError::Content("no reader".to_owned())),
        };
        result.map_err(StoreError::from)
    }
}

/// A reader on loan; goes back, whatever happens to its borrower.
struct Reader<'a> {
    store: &'a SqliteStore,
    connection: Option<Connection>,
}

impl<'a> Reader<'a> {
    fn borrow(store: &'a SqliteStore) -> Result<Self, StoreError> {
        let mut readers = store.lock_readers();
        while readers.idle.is_empty() && readers.open >= READERS {
            readers = store
                .returned
                .wait(readers)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let idle = readers.idle.pop();
        if idle.is_none() {
            readers.open += 1;
        }
        drop(readers);
        let mut reader = Self {
            store,
            connection: idle,
        };
        if reader.connection.is_none() {
            reader.connection = Some(open_reader(&store.file).map_err(|e| from_sqlite(&e))?);
        }
        Ok(reader)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let usable = self.connection.take().filter(|connection| {
            connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok()
        });
        let mut readers = self.store.lock_readers();
        match usable {
            Some(connection) => readers.idle.push(connection),
            None => readers.open -= 1,
        }
        drop(readers);
        self.store.returned.notify_one();
    }
}

/// Why rows, or the index over them, cannot be read.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Content(String),
    Index(tantivy::TantivyError),
}

impl From<tantivy::TantivyError> for ReadError {
    fn from(error: tantivy::TantivyError) -> Self {
        ReadError::Index(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => from_sqlite(&error),
            ReadError::Content(reason) => StoreError::Damaged {
                file: FILE_NAME.to_owned(),
                reason,
            },
            ReadError::Index(error) => StoreError::Unavailable(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sqlite(error)
    }
}

/// One span, without its evaluations.
fn load_bare(connection: &Connection, id: i64) -> Result<Span, ReadError> {
    connection
        .prepare_cached("SELECT z FROM content WHERE id = ?1")?
        .query_row([id], |row| Ok(span_of(row.get_ref(0)?.as_blob()?)))?
        .map_err(ReadError::Content)
}

/// One span with its evaluations.
pub(super) fn load_span(
    connection: &Connection,
    joiner: &Joiner,
    id: i64,
) -> Result<Span, ReadError> {
    let mut span = load_bare(connection, id)?;
    joiner.join(connection, &mut span)?;
    Ok(span)
}

fn load_trace(
    connection: &Connection,
    joiner: &Joiner,
    trace: &TraceId,
) -> Result<Vec<Span>, ReadError> {
    let ids: Vec<i64> = connection
        .prepare_cached("SELECT id FROM spans WHERE trace_id = ?1 ORDER BY start, id")?
        .query_map([trace.as_str()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ids.into_iter()
        .map(|id| load_span(connection, joiner, id))
        .collect()
}

impl SpanStore for SqliteStore {
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let rows = spans
            .into_iter()
            .map(NewSpan::of)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok(self.write(Write::Spans(rows))?.ack)
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        Ok(self.write(Write::Evaluations(evaluations))?.ack)
    }

    fn search(&self, search: &Search, each: Visit<'_>) -> Result<Outcome, StoreError> {
        // Before the transaction: what the index has, the rows then have, too.
        let view = self.view_for(search);
        self.read(|connection| Delivery::of(connection, search, each)?.run(view, &self.index))
    }

    fn gather(
        &self,
        search: &Search,
        buckets: &[Query],
        rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, StoreError> {
        let Some(view) = self.index.view() else {
            return Ok(None);
        };
        self.read(|connection| {
            let joiner = Joiner::new(connection)?;
            let judged = search.query.as_ref().is_some_and(Query::needs_evaluations)
                || buckets.iter().any(Query::needs_evaluations)
                || rows.required_columns().evaluations;
            let load = |id, fresh| {
                let span = match fresh {
                    Some(fresh) => fresh,
                    None => Arc::new(load_bare(connection, id)?),
                };
                if judged {
                    Ok(joiner.joined(connection, span)?)
                } else {
                    Ok(span)
                }
            };
            let gathered = index::gather(connection, &view, search, buckets, load, rows);
            if let Err(ReadError::Index(_)) = &gathered {
                // The next question is answered from the rows.
                self.index.rebuild();
            }
            gathered
        })
    }

    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError> {
        self.read(|connection| load_trace(connection, &Joiner::new(connection)?, id))
    }

    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError> {
        self.read(|connection| {
            let id: Option<i64> = connection
                .prepare_cached("SELECT id FROM spans WHERE trace_id = ?1 AND span_id = ?2")?
                .query_row(params![trace.as_str(), span.as_str()], |row| row.get(0))
                .optional()?;
            id.map(|id| load_span(connection, &Joiner::new(connection)?, id))
                .transpose()
        })
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.read(|connection| {
            let stats = connection.query_row(
                "SELECT (SELECT count(*) FROM spans), (SELECT count(DISTINCT trace_id) FROM spans),
                        (SELECT count(*) FROM evals), (SELECT max(start) FROM spans)",
                [],
                |row| {
                    Ok(StoreStats {
                        spans: row.get::<_, i64>(0)?.unsigned_abs(),
                        traces: row.get::<_, i64>(1)?.unsigned_abs(),
                        evaluations: row.get::<_, i64>(2)?.unsigned_abs(),
                        newest_start_ns: row.get(3)?,
                    })
                },
            )?;
            Ok(stats)
        })
    }

    fn purge(&self, step: PurgeStep) -> Result<Purged, StoreError> {
        Ok(self.write(Write::Purge(step))?.purged)
    }

    fn sweep(&self, step: SweepStep) -> Result<Swept, StoreError> {
        Ok(self.write(Write::Sweep(step))?.swept)
    }

    fn give_back(&self) -> Result<bool, StoreError> {
        let done = self.write(Write::GiveBack(PAGES_GIVEN_BACK))?;
        Ok(done.purged.more)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.read_usage()
    }

    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ArrivedEvaluation>, StoreError> {
        self.read_evaluations(after, limit)
    }

    fn check(&self, step: CheckStep) -> Result<Checked, StoreError> {
        match step {
            CheckStep::Index => self.check_index(),
            rows => self.check_rows(rows),
        }
    }

    fn reindex(&self) {
        self.rebuild_index();
    }

    fn index(&self) -> Option<IndexProgress> {
        Some(self.index_progress())
    }
}

/// One search on its way: what was handed out, and how far it came.
struct Delivery<'a> {
    connection: &'a Connection,
    search: &'a Search,
    each: Visit<'a>,
    joiner: Joiner,
    contexts: TraceContexts,
    started: Instant,
    last: Option<Position>,
    delivered: usize,
}

impl<'a> Delivery<'a> {
    fn of(
        connection: &'a Connection,
        search: &'a Search,
        each: Visit<'a>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            search,
            each,
            joiner: Joiner::new(connection)?,
            contexts: TraceContexts::new(),
            started: Instant::now(),
            last: search.after,
            delivered: 0,
        })
    }

    fn run(mut self, view: Option<Arc<View>>, index: &Index) -> Result<Outcome, ReadError> {
        if let Some(view) = view {
            match self.by_index(view) {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(ReadError::Index(error)) => {
                    tracing::warn!(%error, "the index of the local store cannot be read; it is built anew");
                    index.rebuild();
                }
                Err(error) => return Err(error),
            }
        }
        self.by_rows()
    }

    /// `None`: the index cannot help with this search.
    fn by_index(&mut self, view: Arc<View>) -> Result<Option<Outcome>, ReadError> {
        let Some(mut found) = index::search(self.connection, view, self.search)? else {
            return Ok(None);
        };
        while let Some(candidate) = found.next()? {
            if let Some(outcome) = self.take(candidate.place, candidate.span)? {
                return Ok(Some(outcome));
            }
        }
        Ok(Some(FINISHED))
    }

    /// All rows behind the last one that was looked at.
    fn by_rows(mut self) -> Result<Outcome, ReadError> {
        let rest = Search {
            after: self.last,
            ..self.search.clone()
        };
        let (sql, parameters) = narrow::narrow(&rest).scan();
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            let place = Position {
                id: row.get(0)?,
                start_ns: row.get(1)?,
            };
            if let Some(outcome) = self.take(place, None)? {
                return Ok(outcome);
            }
        }
        Ok(FINISHED)
    }

    /// Looks at the row at a place, or at the span that it was made of; an outcome when the search
    /// is over before it.
    fn take(
        &mut self,
        place: Position,
        fresh: Option<Arc<Span>>,
    ) -> Result<Option<Outcome>, ReadError> {
        let late = self.last != self.search.after && self.started.elapsed() > self.search.budget;
        if self.delivered >= self.search.limit || late {
            return Ok(Some(Outcome {
                next: self.last,
                partial: late,
            }));
        }
        let (connection, joiner) = (self.connection, &self.joiner);
        let load = |id: &TraceId| load_trace(connection, joiner, id);
        let query = self.search.query.as_ref();
        let judged = query.is_some_and(Query::needs_evaluations);
        // Most spans are told apart without what was said about them, and without a copy.
        let mut span = match fresh {
            Some(fresh) => fresh,
            None => Arc::new(load_bare(connection, place.id)?),
        };
        if judged {
            span = joiner.joined(connection, span)?;
        }
        if matches(self.search, &span, &mut self.contexts, load)? {
            if !judged {
                span = joiner.joined(connection, span)?;
            }
            if let ControlFlow::Break(()) = (self.each)(Arc::unwrap_or_clone(span)) {
                return Ok(Some(Outcome {
                    next: self.last,
                    partial: false,
                }));
            }
            self.delivered += 1;
        }
        self.last = Some(place);
        Ok(None)
    }
}

/// Nothing is left.
const FINISHED: Outcome = Outcome {
    next: None,
    partial: false,
};

/// Whether a span answers what rows could not: its tags and the query.
pub(super) fn matches<E>(
    search: &Search,
    span: &Span,
    contexts: &mut TraceContexts,
    load: impl FnOnce(&TraceId) -> Result<Vec<Span>, E>,
) -> Result<bool, E> {
    if !narrow::tags_match(search, span) {
        return Ok(false);
    }
    let Some(query) = &search.query else {
        return Ok(true);
    };
    // Rollups of a trace are facets of its root spans.
    let wants_rollup = query.needs_rollup() && span.is_root();
    if !wants_rollup && !query.needs_descendants() {
        return Ok(query.matches(&SpanContext {
            span,
            rollup: None,
            descendants: &[],
        }));
    }
    let context = contexts.of(&span.trace_id, load)?;
    let descendants = context.descendants(&span.span_id);
    Ok(query.matches(&SpanContext {
        span,
        rollup: wants_rollup.then_some(&context.rollup),
        descendants: &descendants,
    }))
}
