//! The SQLite store: the source of truth for spans and evaluations.
//!
//! One thread writes with group commit. A few readers each see one state of the data. A search
//! index follows the outbox; searches and aggregations use it where it helps.

mod check;
mod search;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use llmobs_sqlite::{Durability, ReaderPool};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::index::{self, Index, IndexCheck, IndexProgress, ParallelScan};
use super::join::EvaluationJoiner;
use super::outbox::{OutboxState, last_change};
use super::rows::{ReadError, load_bare_span, load_span, load_trace};
use super::schema::{FILE_NAME, SCHEMA, open_writer};
use super::writer::{NewSpan, Write, WriteOutcome, Writer};
use super::{
    Ack, Cause, CheckOutcome, CheckStep, EvaluationPurgeOutcome, EvaluationPurgeStep, Maintenance,
    Search, SearchOutcome, SpanPurgeOutcome, SpanPurgeStep, SpanReader, SpanVisitor, SpanWriter,
    StorageUsage, StoreError, StoreStats, StoredEvaluation, TargetedEvaluation,
};
use llmobs_core::analysis::aggregate::RowAggregator;
use llmobs_core::model::{Span, SpanId, TraceId};
use llmobs_core::query::Query;
use search::SearchRun;

/// Maximum number of open readers; further reads wait.
const MAX_READERS: usize = 4;

/// Free pages that one transaction releases: about 8 MB.
const PAGES_PER_RELEASE: u32 = 2_000;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct SqliteOptions {
    /// Which failures an acknowledged write survives.
    pub durability: Durability,
    /// When an aggregation reads the index on several threads.
    pub parallel_scan: ParallelScan,
}

impl SqliteOptions {
    /// The defaults, with a durability.
    pub fn new(durability: Durability) -> Self {
        Self {
            durability,
            parallel_scan: ParallelScan::default(),
        }
    }
}

/// Spans and evaluations in one SQLite file, with a search index beside it.
pub struct SqliteStore {
    file: PathBuf,
    store_id: String,
    // Dropped in this order: the index reads what the writer has written.
    writer: Writer,
    index: Index,
    parallel_scan: ParallelScan,
    readers: ReaderPool,
}

impl SqliteStore {
    /// Opens the store in an existing directory, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be used.
    pub fn open(directory: &Path, durability: Durability) -> Result<Self, StoreError> {
        Self::with_options(directory, SqliteOptions::new(durability))
    }

    /// Opens the store in an existing directory with options.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be used.
    pub fn with_options(directory: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let file = directory.join(FILE_NAME);
        let (connection, store_id) = open_writer(&file, options.durability)?;
        let outbox = Arc::new(OutboxState::default());
        let writer = Writer::start(connection, outbox.clone())?;
        Ok(Self {
            writer,
            index: Index::start(&file, &store_id, outbox)?,
            parallel_scan: options.parallel_scan,
            readers: ReaderPool::new(file.clone(), &SCHEMA, MAX_READERS),
            file,
            store_id,
        })
    }

    /// The id that the store received when it was created.
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let outcome = self.writer.write(write)?;
        self.index.on_write(outcome.seq);
        Ok(outcome)
    }

    /// Waits until the index contains all acknowledged writes. `false` after the timeout.
    pub fn wait_for_index(&self, timeout: Duration) -> bool {
        let last = self.read(|connection| Ok(last_change(connection)?));
        last.is_ok_and(|last| self.index.wait_for(last, timeout))
    }

    /// Compares the index with the rows, once it has caught up. `None` when it does not catch up
    /// within the timeout.
    ///
    /// # Errors
    ///
    /// RowAggregator or index that cannot be read.
    pub fn verify_index(&self, timeout: Duration) -> Result<Option<IndexCheck>, StoreError> {
        if !self.wait_for_index(timeout) {
            return Ok(None);
        }
        let Some(view) = self.index.view() else {
            return Ok(None);
        };
        self.read(|connection| index::verify(connection, &view))
    }

    /// Runs `work` in one read transaction.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        self.readers.read(work).map_err(StoreError::from)
    }
}

impl SpanWriter for SqliteStore {
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let spans = spans
            .into_iter()
            .map(NewSpan::new)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| StoreError::Unavailable(Cause::new(error)))?;
        Ok(self.write(Write::Spans(spans))?.ack())
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        Ok(self.write(Write::Evaluations(evaluations))?.ack())
    }
}

impl SpanReader for SqliteStore {
    fn search(&self, search: &Search, visit: SpanVisitor<'_>) -> Result<SearchOutcome, StoreError> {
        // The view precedes the transaction, so the rows contain everything that the view does.
        let view = if index::should_use_index(search) {
            self.index.view()
        } else {
            None
        };
        self.read(|connection| SearchRun::new(connection, search, visit)?.run(view, &self.index))
    }

    fn aggregate(
        &self,
        search: &Search,
        buckets: &[Query],
        rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, StoreError> {
        let Some(view) = self.index.view() else {
            return Ok(None);
        };
        self.read(|connection| {
            let joiner = EvaluationJoiner::new(connection)?;
            let needs_evaluations = search.query.as_ref().is_some_and(Query::needs_evaluations)
                || buckets.iter().any(Query::needs_evaluations)
                || rows.required_columns().evaluations;
            let load = |id, recent| {
                let span = match recent {
                    Some(span) => span,
                    None => Arc::new(load_bare_span(connection, id)?),
                };
                if needs_evaluations {
                    Ok(joiner.joined(connection, span)?)
                } else {
                    Ok(span)
                }
            };
            let count = index::aggregate(
                connection,
                &view,
                self.parallel_scan,
                search,
                buckets,
                load,
                rows,
            );
            if let Err(ReadError::Index(_)) = &count {
                // Further requests read the rows until the index is rebuilt.
                self.index.rebuild();
            }
            count
        })
    }

    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError> {
        self.read(|connection| load_trace(connection, &EvaluationJoiner::new(connection)?, id))
    }

    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError> {
        self.read(|connection| {
            let id: Option<i64> = connection
                .prepare_cached("SELECT id FROM spans WHERE trace_id = ?1 AND span_id = ?2")?
                .query_row(params![trace.as_str(), span.as_str()], |row| row.get(0))
                .optional()?;
            id.map(|id| load_span(connection, &EvaluationJoiner::new(connection)?, id))
                .transpose()
        })
    }

    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredEvaluation>, StoreError> {
        self.read_evaluations(after, limit)
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

impl Maintenance for SqliteStore {
    fn purge_spans(&self, step: SpanPurgeStep) -> Result<SpanPurgeOutcome, StoreError> {
        Ok(self.write(Write::PurgeSpans(step))?.spans)
    }

    fn purge_evaluations(
        &self,
        step: EvaluationPurgeStep,
    ) -> Result<EvaluationPurgeOutcome, StoreError> {
        Ok(self.write(Write::PurgeEvaluations(step))?.evaluations)
    }

    fn release_space(&self) -> Result<bool, StoreError> {
        Ok(self
            .write(Write::ReleasePages(PAGES_PER_RELEASE))?
            .more_pages)
    }

    fn usage(&self) -> Result<StorageUsage, StoreError> {
        self.read_usage()
    }

    fn check(&self, step: CheckStep) -> Result<CheckOutcome, StoreError> {
        match step {
            CheckStep::Index => self.check_index(),
            step => self.check_rows(step),
        }
    }

    fn reindex(&self) {
        self.index.rebuild();
    }

    fn index_progress(&self) -> Option<IndexProgress> {
        Some(self.index.progress())
    }
}

#[cfg(test)]
mod tests;
