//! The execution of one search.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, params_from_iter};

use super::super::index::{self, Index, IndexView};
use super::super::join::EvaluationJoiner;
use super::super::matching::{TraceContexts, matches};
use super::super::rows::{ReadError, load_bare_span, load_trace};
use super::super::scan::row_filter;
use super::super::{Search, SearchOutcome, SpanPosition, SpanVisitor};
use llmobs_core::model::{Span, TraceId};
use llmobs_core::query::Query;

/// A running search: the delivered spans and the position reached.
pub(super) struct SearchRun<'a> {
    connection: &'a Connection,
    search: &'a Search,
    visit: SpanVisitor<'a>,
    joiner: EvaluationJoiner,
    contexts: TraceContexts,
    started: Instant,
    last: Option<SpanPosition>,
    delivered: usize,
}

impl<'a> SearchRun<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        search: &'a Search,
        visit: SpanVisitor<'a>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            search,
            visit,
            joiner: EvaluationJoiner::new(connection)?,
            contexts: TraceContexts::default(),
            started: Instant::now(),
            last: search.after,
            delivered: 0,
        })
    }

    /// Searches with the index if there is a view of it, else by scanning rows.
    pub(super) fn run(
        mut self,
        view: Option<Arc<IndexView>>,
        index: &Index,
    ) -> Result<SearchOutcome, ReadError> {
        if let Some(view) = view {
            match self.search_index(view) {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(ReadError::Index(error)) => {
                    tracing::warn!(%error, "the search index of the local store cannot be read; rebuilding it");
                    index.rebuild();
                }
                Err(error) => return Err(error),
            }
        }
        self.scan_rows()
    }

    /// `None` when the index does not help with this search.
    fn search_index(&mut self, view: Arc<IndexView>) -> Result<Option<SearchOutcome>, ReadError> {
        let Some(mut candidates) = index::search(self.connection, view, self.search)? else {
            return Ok(None);
        };
        while let Some(candidate) = candidates.next()? {
            if let Some(outcome) = self.visit_candidate(candidate.position, candidate.span)? {
                return Ok(Some(outcome));
            }
        }
        Ok(Some(SearchOutcome::FINISHED))
    }

    /// Visits all rows after the last position.
    fn scan_rows(mut self) -> Result<SearchOutcome, ReadError> {
        let rest = Search {
            after: self.last,
            ..self.search.clone()
        };
        let (sql, parameters) = row_filter(&rest).scan_sql();
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            let position = SpanPosition {
                id: row.get(0)?,
                start_ns: row.get(1)?,
            };
            if let Some(outcome) = self.visit_candidate(position, None)? {
                return Ok(outcome);
            }
        }
        Ok(SearchOutcome::FINISHED)
    }

    /// Delivers the span at a position if it matches. `recent` is the span if it is in memory.
    /// Returns an outcome when the search ends before this span.
    fn visit_candidate(
        &mut self,
        position: SpanPosition,
        recent: Option<Arc<Span>>,
    ) -> Result<Option<SearchOutcome>, ReadError> {
        // A search makes progress by at least one span, even without any time left.
        let timed_out =
            self.last != self.search.after && self.started.elapsed() > self.search.budget;
        if self.delivered >= self.search.limit || timed_out {
            return Ok(Some(SearchOutcome {
                next: self.last,
                partial: timed_out,
            }));
        }
        let (connection, joiner) = (self.connection, &self.joiner);
        let load = |id: &TraceId| load_trace(connection, joiner, id);
        let query = self.search.query.as_ref();
        let needs_evaluations = query.is_some_and(Query::needs_evaluations);
        // Most queries need no evaluations, so spans that do not match are neither joined nor cloned.
        let mut span = match recent {
            Some(span) => span,
            None => Arc::new(load_bare_span(connection, position.id)?),
        };
        if needs_evaluations {
            span = joiner.joined(connection, span)?;
        }
        if matches(self.search, &span, &mut self.contexts, load)? {
            if !needs_evaluations {
                span = joiner.joined(connection, span)?;
            }
            if let ControlFlow::Break(()) = (self.visit)(Arc::unwrap_or_clone(span)) {
                return Ok(Some(SearchOutcome {
                    next: self.last,
                    partial: false,
                }));
            }
            self.delivered += 1;
        }
        self.last = Some(position);
        Ok(None)
    }
}
