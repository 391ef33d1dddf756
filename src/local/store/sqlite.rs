//! The SQLite store: the record of truth.
//!
//! One writer thread with group commit, a few readers that each see one consistent moment.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::join::Joiner;
use super::rows::{Row, span_of};
use super::schema::{from_sqlite, open_reader, open_writer};
use super::writer::{Write, Writer};
use super::{
    Ack, Outcome, Position, Search, SpanStore, StoreError, StoreStats, TargetedEvaluation,
    TraceContexts, Visit, narrow,
};
use crate::model::{Span, SpanId, TraceId};
use crate::query::SpanContext;

/// The file in the data folder.
pub(super) const FILE_NAME: &str = "llmobs.db";

/// Readers that may be open at once; further ones wait.
const READERS: usize = 4;

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
    writer: Writer,
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
        let store_id = connection
            .query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| {
                row.get(0)
            })
            .map_err(|e| from_sqlite(&e))?;
        Ok(Self {
            file,
            store_id,
            writer: Writer::start(connection)?,
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
        result.map_err(|error| match error {
            ReadError::Sqlite(error) => from_sqlite(&error),
            ReadError::Content(reason) => StoreError::Damaged {
                file: FILE_NAME.to_owned(),
                reason,
            },
        })
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

enum ReadError {
    Sqlite(rusqlite::Error),
    Content(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sqlite(error)
    }
}

fn load_span(connection: &Connection, joiner: &Joiner, id: i64) -> Result<Span, ReadError> {
    let mut span = connection
        .prepare_cached("SELECT z FROM content WHERE id = ?1")?
        .query_row([id], |row| Ok(span_of(row.get_ref(0)?.as_blob()?)))?
        .map_err(ReadError::Content)?;
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
            .map(Row::of)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        self.writer.write(Write::Spans(rows))
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        self.writer.write(Write::Evaluations(evaluations))
    }

    fn search(&self, search: &Search, each: Visit<'_>) -> Result<Outcome, StoreError> {
        self.read(|connection| {
            let started = Instant::now();
            let joiner = Joiner::new(connection)?;
            let mut contexts = TraceContexts::new();
            let narrowed = narrow::narrow(search);
            let mut statement = connection.prepare_cached(&narrowed.sql)?;
            let mut rows = statement.query(params_from_iter(narrowed.parameters))?;
            let mut last: Option<Position> = search.after;
            let mut delivered = 0;
            while let Some(row) = rows.next()? {
                let out_of_time = last != search.after && started.elapsed() > search.budget;
                if delivered >= search.limit || out_of_time {
                    return Ok(Outcome {
                        next: last,
                        partial: out_of_time,
                    });
                }
                let here = Position {
                    id: row.get(0)?,
                    start_ns: row.get(1)?,
                };
                let span = load_span(connection, &joiner, here.id)?;
                if matches(search, &span, &mut contexts, |id| {
                    load_trace(connection, &joiner, id)
                })? {
                    if let ControlFlow::Break(()) = each(span) {
                        return Ok(Outcome {
                            next: last,
                            partial: false,
                        });
                    }
                    delivered += 1;
                }
                last = Some(here);
            }
            Ok(Outcome {
                next: None,
                partial: false,
            })
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
}

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
