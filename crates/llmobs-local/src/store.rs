//! The seam between the Datadog-compatible API and whatever engine keeps the spans.
//!
//! The API knows only [`SpanStore`]. Its first implementation is [`SqliteStore`]; a derived index and a
//! distributed engine come behind the same trait. A naive in-memory store is the oracle of the
//! conformance suite that every implementation has to pass.
//!
//! The rules every implementation keeps:
//! - what a writing method acknowledged survives the death of the process;
//! - `(trace_id, span_id)` identifies a span, and the same pair again is an update;
//! - an evaluation may come before its span, and joins whenever both are there;
//! - of all evaluations with one label the newest `timestamp_ms` counts, the later arrival on a tie;
//! - a page walked by its positions shows each span once, whatever is written meanwhile.

mod cursor;
mod evaluations;
mod evaluators;
mod index;
mod join;
mod maintain;
mod narrow;
mod recent;
mod rows;
mod schema;
mod sqlite;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod oracle;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

pub use cursor::{Cursor, CursorError};
pub use evaluations::{EvaluationTarget, TargetedEvaluation};
pub use evaluators::EvaluatorStore;
pub use index::{IndexCheck, IndexProgress};
pub use maintain::{
    ArrivedEvaluation, CheckStep, Checked, PurgeStep, Purged, SweepStep, Swept, Usage,
};
pub(super) use schema::meaning_of;
pub(super) use sqlite::FILE_NAME;
pub use sqlite::{Durability, SqliteStore};

use llmobs_core::analysis::aggregate::RowAggregator;
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};
use llmobs_core::query::Query;
use llmobs_core::query::combine::SpanFilters;

/// Where spans and the judgements about them are kept.
///
/// Methods block; call them from a thread that may.
pub trait SpanStore: Send + Sync {
    /// Keeps spans. Durable when it returns; the same `(trace_id, span_id)` again is an update.
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError>;

    /// Keeps evaluations and feedback. Durable when it returns; their spans may be absent yet.
    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError>;

    /// Hands matching spans to `each` in the order asked for, until the limit, the time budget or
    /// a `Break`. A span that was answered with `Break` counts as not delivered.
    fn search(&self, search: &Search, each: Visit<'_>) -> Result<Outcome, StoreError>;

    /// Gives all spans of a search, whatever its limit, to an aggregation, and says how many those
    /// were. `None`: this store, or this question, needs the spans one by one; nothing was given.
    fn gather(
        &self,
        _: &Search,
        _: &[Query],
        _: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// All spans of a trace by start; empty when there is none.
    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError>;

    /// One span, if kept.
    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError>;

    /// How much is kept.
    fn stats(&self) -> Result<StoreStats, StoreError>;

    /// Removes some of the oldest spans with their content and the evaluations about them.
    fn purge(&self, step: PurgeStep) -> Result<Purged, StoreError>;

    /// Removes evaluations whose spans are gone, of those next in order.
    fn sweep(&self, step: SweepStep) -> Result<Swept, StoreError>;

    /// Gives some free space back to the disk; says whether there is more to give.
    fn give_back(&self) -> Result<bool, StoreError>;

    /// How much room is taken.
    fn usage(&self) -> Result<Usage, StoreError>;

    /// Evaluations in the order they arrived, behind a place in it.
    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ArrivedEvaluation>, StoreError>;

    /// Does one step of a check.
    fn check(&self, step: CheckStep) -> Result<Checked, StoreError>;

    /// Begins to build the derived index anew, if there is one; [`SpanStore::index`] tells how far
    /// it is.
    fn reindex(&self) {}

    /// How far the derived index is; `None` when there is none.
    fn index(&self) -> Option<IndexProgress> {
        None
    }
}

/// What a search hands its spans to.
pub type Visit<'a> = &'a mut dyn FnMut(Span) -> ControlFlow<()>;

/// The receipt of a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Number of the write among all changes of this store; a derived index that has read up to
    /// here shows the write.
    pub seq: i64,
}

/// A question for spans. Everything given must hold.
#[derive(Debug, Clone)]
pub struct Search {
    /// Exact structured filters.
    pub filters: SpanFilters,
    /// Exact APM trace id.
    pub apm_trace_id: Option<String>,
    /// The span query.
    pub query: Option<Query>,
    /// Span starts searched.
    pub window: TimeWindow,
    /// Newest first, else oldest first.
    pub newest_first: bool,
    /// Continue behind this place.
    pub after: Option<Position>,
    /// At most this many spans.
    pub limit: usize,
    /// Stop looking after this long; the outcome is then partial.
    pub budget: Duration,
}

impl Search {
    /// All spans of a window, newest first.
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

/// A place in the order of all spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Start of the span, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// The store's own key of the span; decides between equal starts.
    pub id: i64,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Where to continue; `None` when nothing is left.
    pub next: Option<Position>,
    /// The time budget ran out before the limit was reached.
    pub partial: bool,
}

/// How much a store keeps.
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

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the quota on it, is full. Nothing of the write was kept.
    #[error(
        "the disk that holds the local store is full, so nothing of this request was kept; free space in the data folder's volume and send it again"
    )]
    Full,
    /// The store cannot be written to. Nothing of the write was kept.
    #[error(
        "the local store cannot be written ({0}), so nothing of this request was kept; check the permissions of the data folder, its quota and the free space, and send it again"
    )]
    NotWritable(String),
    /// The store cannot be read or reached just now.
    #[error("the local store is not available ({0}); try again in a moment")]
    Unavailable(String),
    /// The file is not ours or is damaged.
    #[error(
        "the file {file} in the data folder is not a readable llmobs-mcp store ({reason}); move it away or choose another --data-dir"
    )]
    Damaged {
        /// Name of the file.
        file: String,
        /// What the engine said.
        reason: String,
    },
    /// The store was written by a newer version of this program.
    #[error(
        "the local store has schema version {found}, and this version of llmobs-mcp knows versions up to {known}; upgrade llmobs-mcp or choose another --data-dir"
    )]
    Newer {
        /// Version found in the file.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// The data folder cannot be used.
    #[error("the data folder cannot be used ({0}); choose another with --data-dir DIR")]
    Folder(String),
}

/// Rollups and descendants of the traces that a query needs, kept for the length of one search.
pub(crate) struct TraceContexts {
    traces: HashMap<TraceId, std::rc::Rc<TraceContext>>,
}

/// One trace as a query sees it.
pub(crate) struct TraceContext {
    pub(crate) rollup: llmobs_core::model::TraceRollup,
    spans: Vec<Span>,
    children: HashMap<SpanId, Vec<usize>>,
}

/// How many traces a search keeps at hand.
const TRACES_KEPT: usize = 32;

impl TraceContexts {
    pub(crate) fn new() -> Self {
        Self {
            traces: HashMap::new(),
        }
    }

    /// The trace of a span, loaded on first use.
    pub(crate) fn of<E>(
        &mut self,
        id: &TraceId,
        load: impl FnOnce(&TraceId) -> Result<Vec<Span>, E>,
    ) -> Result<std::rc::Rc<TraceContext>, E> {
        if let Some(context) = self.traces.get(id) {
            return Ok(context.clone());
        }
        if self.traces.len() >= TRACES_KEPT {
            self.traces.clear();
        }
        let context = std::rc::Rc::new(TraceContext::of(load(id)?));
        self.traces.insert(id.clone(), context.clone());
        Ok(context)
    }
}

impl TraceContext {
    fn of(spans: Vec<Span>) -> Self {
        let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            if let Some(parent) = &span.parent_id {
                children.entry(parent.clone()).or_default().push(at);
            }
        }
        Self {
            rollup: llmobs_core::model::TraceRollup::from_spans(&spans),
            spans,
            children,
        }
    }

    /// All spans below one, each once, whatever loops the parents form.
    pub(crate) fn descendants(&self, id: &SpanId) -> Vec<&Span> {
        let mut found = Vec::new();
        let mut seen: HashSet<&str> = HashSet::from([id.as_str()]);
        let mut open = vec![id];
        while let Some(parent) = open.pop() {
            for at in self.children.get(parent.as_str()).into_iter().flatten() {
                if let Some(span) = self.spans.get(*at)
                    && seen.insert(span.span_id.as_str())
                {
                    found.push(span);
                    open.push(&span.span_id);
                }
            }
        }
        found
    }
}
