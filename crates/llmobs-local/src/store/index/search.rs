//! The candidates of a search in order: positions that the index finds, merged with spans that
//! changed since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use tantivy::query::Query;

use super::changes::{RowChange, changes_since};
use super::compile::{compile, occurs};
use super::top::TopK;
use super::view::IndexView;
use crate::store::rows::ReadError;
use crate::store::scan::{RowFilter, row_filter, sql_index_is_selective};
use crate::store::{Search, SpanPosition};
use llmobs_core::model::Span;
use llmobs_core::query::index::{IndexCondition, IndexPlan, plan_filters, plan_query};

/// Positions that the first query of the index fetches, at least, and each query, at most.
const MIN_FETCH: usize = 64;
const MAX_FETCH: usize = 20_000;

/// The candidates of a search, in order.
pub(in crate::store) struct Candidates<'a> {
    connection: &'a Connection,
    view: Arc<IndexView>,
    query: Box<dyn Query>,
    top: TopK,
    filter: RowFilter,
    /// Positions from the index that were not returned yet.
    indexed: VecDeque<SpanPosition>,
    /// Whether the index has no more positions.
    exhausted: bool,
    /// Rows that changed since the view.
    changes: BTreeMap<i64, RowChange>,
    /// Changed rows that may match, in order.
    changed: VecDeque<SpanPosition>,
}

/// A span that may match.
pub(in crate::store) struct Candidate {
    pub(in crate::store) position: SpanPosition,
    /// The span without evaluations, if it was written recently and is in memory.
    pub(in crate::store) span: Option<Arc<Span>>,
}

/// Whether the index finds fewer rows than SQL does.
pub(in crate::store) fn should_use_index(search: &Search) -> bool {
    !sql_index_is_selective(search)
}

/// Searches a view of the index. `None` when the index does not restrict the search, or when the
/// changes since the view are unknown.
pub(in crate::store) fn search<'a>(
    connection: &'a Connection,
    view: Arc<IndexView>,
    search: &Search,
) -> Result<Option<Candidates<'a>>, ReadError> {
    let plan = search_plan(&view, search);
    if plan.condition == IndexCondition::MatchAll {
        return Ok(None);
    }
    let Some(changes) = changes_since(connection, &view)? else {
        return Ok(None);
    };
    let filter = row_filter(search);
    let mut changed = Vec::new();
    for (id, change) in &changes.spans {
        let start_ns = match &change.write {
            Some(write) => {
                let columns = &write.columns;
                filter.matches(*id, columns).then_some(columns.start)
            }
            None => matching_start(connection, &filter, *id)?,
        };
        if let Some(start_ns) = start_ns {
            changed.push(SpanPosition { start_ns, id: *id });
        }
    }
    changed.sort_unstable();
    if search.newest_first {
        changed.reverse();
    }
    let end = search.window.to_ms.saturating_mul(1_000_000);
    Ok(Some(Candidates {
        query: compile(&plan.condition, &view.fields),
        top: TopK {
            from_ns: search.window.from_ms.saturating_mul(1_000_000),
            to_ns: end.saturating_add(999_999),
            newest_first: search.newest_first,
            after: search.after,
            limit: search.limit.saturating_add(1).clamp(MIN_FETCH, MAX_FETCH),
        },
        connection,
        view,
        filter,
        indexed: VecDeque::new(),
        exhausted: false,
        changes: changes.spans,
        changed: changed.into(),
    }))
}

/// The plan of all conditions of a search.
fn search_plan(view: &IndexView, search: &Search) -> IndexPlan {
    let occurs = |key: &str| occurs(&view.searcher, &view.fields, key);
    let filters = plan_filters(&search.filters, search.apm_trace_id.as_deref(), &occurs);
    match &search.query {
        Some(query) => filters.and(plan_query(&query.root, &occurs)),
        None => filters,
    }
}

/// The start of a row if it exists and matches the filter.
fn matching_start(
    connection: &Connection,
    filter: &RowFilter,
    id: i64,
) -> Result<Option<i64>, ReadError> {
    let (sql, parameters) = filter.row_sql(id);
    Ok(connection
        .prepare_cached(&sql)?
        .query_row(params_from_iter(parameters), |row| row.get(0))
        .optional()?)
}

impl Candidates<'_> {
    /// The next candidate.
    pub(in crate::store) fn next(&mut self) -> Result<Option<Candidate>, ReadError> {
        loop {
            if self.indexed.is_empty() && !self.exhausted {
                self.fetch()?;
            }
            let first = match (self.indexed.front(), self.changed.front()) {
                (None, None) => return Ok(None),
                (Some(_), None) => &mut self.indexed,
                (None, Some(_)) => &mut self.changed,
                (Some(indexed), Some(changed)) if (indexed > changed) == self.top.newest_first => {
                    &mut self.indexed
                }
                _ => &mut self.changed,
            };
            if let Some(position) = first.pop_front() {
                let change = self.changes.get(&position.id);
                let write = change.and_then(|change| change.write.as_ref());
                return Ok(Some(Candidate {
                    position,
                    span: write.map(|write| write.span.clone()),
                }));
            }
        }
    }

    /// Fetches further positions from the index.
    fn fetch(&mut self) -> Result<(), ReadError> {
        let positions = self.top.find(&self.view.searcher, &*self.query)?;
        self.exhausted = positions.len() < self.top.limit;
        self.top.after = positions.last().copied().or(self.top.after);
        self.top.limit = (self.top.limit * 4).min(MAX_FETCH);
        for position in positions {
            // Changed rows are already among `changed`.
            if !self.changes.contains_key(&position.id)
                && matching_start(self.connection, &self.filter, position.id)?.is_some()
            {
                self.indexed.push_back(position);
            }
        }
        Ok(())
    }
}
