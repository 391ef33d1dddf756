//! The span store: the boundary between the Datadog-compatible API and the engine that stores spans
//! and evaluations.
//!
//! The API uses three traits: [`SpanReader`], [`SpanWriter`] and [`Maintenance`]. [`SqliteStore`]
//! implements them with SQLite and a derived search index. Another crate may implement them on
//! another engine and pass it to `LocalBackend::with_stores`; feature `conformance` provides the
//! test suite that every implementation must pass, with a naive store as oracle.
//!
//! Methods block, and callers run them on threads that may block. An asynchronous engine blocks on
//! its own runtime inside them; `tokio::runtime::Handle::block_on` is allowed on such a thread.
//!
//! Every implementation guarantees:
//! - An acknowledged write survives the death of the process.
//! - `(trace_id, span_id)` identifies a span. The same pair again is an update.
//! - An evaluation may arrive before its span. It joins as soon as both are stored.
//! - Of all evaluations with one label, the one with the newest `timestamp_ms` counts; on a tie,
//!   the later arrival.
//! - Following the positions of a search returns each span once, whatever is written meanwhile.

mod error;
mod evaluations;
mod index;
mod join;
mod maintenance;
mod matching;
mod outbox;
mod rows;
mod scan;
mod schema;
mod sqlite;
mod sqlite_error;
mod writer;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::ops::ControlFlow;
use std::time::Duration;

pub use error::{Cause, StoreError};
pub use evaluations::{EvaluationTarget, TargetedEvaluation};
pub use index::{IndexCheck, IndexProgress, ParallelScan};
pub use llmobs_sqlite::Durability;
pub use maintenance::{
    CheckOutcome, CheckStep, EvaluationPurgeOutcome, EvaluationPurgeStep, Maintenance,
    SpanPurgeOutcome, SpanPurgeStep, StorageUsage,
};
pub(crate) use schema::FILE_NAME;
pub use sqlite::{SqliteOptions, SqliteStore};
pub(crate) use sqlite_error::{open_error, sqlite_error};

use llmobs_core::analysis::aggregate::RowAggregator;
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};
use llmobs_core::query::Query;
use llmobs_core::query::combine::SpanFilters;

/// Reads spans and evaluations. Methods block.
pub trait SpanReader: Send + Sync {
    /// Passes matching spans to `visit` in the requested order, until the limit, the time budget or
    /// a `Break`. A span for which `visit` returns `Break` counts as not delivered.
    fn search(&self, search: &Search, visit: SpanVisitor<'_>) -> Result<SearchOutcome, StoreError>;

    /// Passes all spans of a search to an aggregation, regardless of its limit, and returns their
    /// number.
    ///
    /// `None` means that this store, or this search, cannot be aggregated this way; `rows` is
    /// unchanged, and the caller searches span by span.
    fn aggregate(
        &self,
        _search: &Search,
        _buckets: &[Query],
        _rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// All spans of a trace in the order of their starts; empty for an unknown trace.
    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError>;

    /// One span; `None` if it is not stored.
    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError>;

    /// The next evaluations in the order of arrival, after a position in that order.
    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredEvaluation>, StoreError>;

    /// Counts what is stored.
    fn stats(&self) -> Result<StoreStats, StoreError>;
}

/// Writes spans and evaluations. Methods block; a write is durable when they return.
pub trait SpanWriter: Send + Sync {
    /// Stores spans. A span with a known `(trace_id, span_id)` replaces the stored one.
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError>;

    /// Stores evaluations and feedback. Their spans may be missing.
    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError>;
}

/// An engine that reads, writes and maintains. Implemented for every type that does all three.
pub trait SpanEngine: SpanReader + SpanWriter + Maintenance {}

impl<T: SpanReader + SpanWriter + Maintenance> SpanEngine for T {}

/// Receives the spans of a search.
pub type SpanVisitor<'a> = &'a mut dyn FnMut(Span) -> ControlFlow<()>;

/// The receipt of a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Sequence number of the last change of this write. A derived index that has read up to this
    /// number contains the write.
    pub seq: i64,
}

/// A search for spans. All conditions must hold.
#[derive(Debug, Clone)]
pub struct Search {
    /// Exact structured filters.
    pub filters: SpanFilters,
    /// Exact APM trace id.
    pub apm_trace_id: Option<String>,
    /// The span query.
    pub query: Option<Query>,
    /// The time window of the span starts.
    pub window: TimeWindow,
    /// Newest first, else oldest first.
    pub newest_first: bool,
    /// Return spans after this position only.
    pub after: Option<SpanPosition>,
    /// Maximum number of spans.
    pub limit: usize,
    /// Time after which the search stops with a partial outcome.
    pub budget: Duration,
}

impl Search {
    /// All spans of a window, newest first, at most 10, within 20 seconds.
    pub fn within(window: TimeWindow) -> Self {
        Self {
            filters: SpanFilters::default(),
            apm_trace_id: None,
            query: None,
            window,
            newest_first: true,
            after: None,
            limit: 10,
            budget: Duration::from_secs(20),
        }
    }
}

/// The position of a span in the order of all spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanPosition {
    /// Start of the span, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// The store's key of the span. It orders spans with equal starts.
    pub id: i64,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOutcome {
    /// The position to continue after; `None` when no spans are left.
    pub next: Option<SpanPosition>,
    /// Whether the time budget ran out before the limit was reached.
    pub partial: bool,
}

impl SearchOutcome {
    /// No spans are left.
    pub const FINISHED: Self = Self {
        next: None,
        partial: false,
    };
}

/// An evaluation with its position in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvaluation {
    /// Its position.
    pub arrival: i64,
    /// The evaluation and its target.
    pub evaluation: TargetedEvaluation,
}

/// Numbers of stored items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of spans.
    pub spans: u64,
    /// Number of traces.
    pub traces: u64,
    /// Number of evaluations and feedback entries, the newest per target and label.
    pub evaluations: u64,
    /// Start of the newest span, in nanoseconds since the Unix epoch.
    pub newest_start_ns: Option<i64>,
}
