//! The places that a search has to look at, in its order: those that the index finds, and those
//! that changed since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use tantivy::query::Query;

use super::View;
use super::changes::{Change, since};
use super::compile::{compile, occurs};
use super::top::Top;
use crate::store::narrow::{Narrowed, narrow, rows_lead_there};
use crate::store::sqlite::ReadError;
use crate::store::{Position, Search};
use llmobs_core::model::Span;
use llmobs_core::query::index::{IndexCondition, IndexPlan, plan_filters, plan_query};

/// Places asked of the index at first, and at most.
const FIRST: usize = 64;
const MOST: usize = 20_000;

/// Places that the index finds, merged with places that changed since.
pub(in crate::store) struct Found<'a> {
    connection: &'a Connection,
    view: Arc<View>,
    query: Box<dyn Query>,
    top: Top,
    narrowed: Narrowed,
    /// Found and not yet handed out.
    ready: VecDeque<Position>,
    /// The index has no more.
    exhausted: bool,
    /// Changed since: the index may be wrong about them.
    changed: BTreeMap<i64, Change>,
    /// Those of them that may match, in order.
    fresh: VecDeque<Position>,
}

/// A place to look at.
pub(in crate::store) struct Candidate {
    pub(in crate::store) place: Position,
    /// Its span without evaluations, if that was written a moment ago.
    pub(in crate::store) span: Option<Arc<Span>>,
}

/// Whether the index leads to fewer rows than SQL does.
pub(in crate::store) fn is_worth_it(search: &Search) -> bool {
    !rows_lead_there(search)
}

/// Asks the index of `view`. `None`: it cannot say, or narrows nothing.
pub(in crate::store) fn search<'a>(
    connection: &'a Connection,
    view: Arc<View>,
    search: &Search,
) -> Result<Option<Found<'a>>, ReadError> {
    let plan = plan_of(&view, search);
    if plan.condition == IndexCondition::MatchAll {
        return Ok(None);
    }
    let Some(changes) = since(connection, &view)? else {
        return Ok(None);
    };
    let narrowed = narrow(search);
    let mut fresh = Vec::new();
    for (id, change) in &changes.spans {
        let start_ns = match &change.fresh {
            Some(fresh) => narrowed.holds(*id, &fresh.row).then_some(fresh.row.start),
            None => check(connection, &narrowed, *id)?,
        };
        if let Some(start_ns) = start_ns {
            fresh.push(Position { start_ns, id: *id });
        }
    }
    fresh.sort_unstable();
    if search.newest_first {
        fresh.reverse();
    }
    let end = search.window.to_ms.saturating_mul(1_000_000);
    Ok(Some(Found {
        query: compile(&plan.condition, &view.fields),
        top: Top {
            from_ns: search.window.from_ms.saturating_mul(1_000_000),
            to_ns: end.saturating_add(999_999),
            newest_first: search.newest_first,
            after: search.after,
            limit: search.limit.saturating_add(1).clamp(FIRST, MOST),
        },
        connection,
        view,
        narrowed,
        ready: VecDeque::new(),
        exhausted: false,
        changed: changes.spans,
        fresh: fresh.into(),
    }))
}

/// The plan of all that a search asks for.
pub(super) fn plan_of(view: &View, search: &Search) -> IndexPlan {
    let occurs = |key: &str| occurs(&view.searcher, &view.fields, key);
    let filters = plan_filters(&search.filters, search.apm_trace_id.as_deref(), &occurs);
    match &search.query {
        Some(query) => filters.and(plan_query(&query.root, &occurs)),
        None => filters,
    }
}

/// The start of a row if columns do not rule it out; `None` also if it is gone.
fn check(connection: &Connection, narrowed: &Narrowed, id: i64) -> Result<Option<i64>, ReadError> {
    let (sql, parameters) = narrowed.check(id);
    Ok(connection
        .prepare_cached(&sql)?
        .query_row(params_from_iter(parameters), |row| row.get(0))
        .optional()?)
}

impl Found<'_> {
    /// The next place to look at.
    pub(in crate::store) fn next(&mut self) -> Result<Option<Candidate>, ReadError> {
        loop {
            if self.ready.is_empty() && !self.exhausted {
                self.fetch()?;
            }
            let first = match (self.ready.front(), self.fresh.front()) {
                (None, None) => return Ok(None),
                (Some(_), None) => &mut self.ready,
                (None, Some(_)) => &mut self.fresh,
                (Some(ready), Some(fresh)) if (ready > fresh) == self.top.newest_first => {
                    &mut self.ready
                }
                _ => &mut self.fresh,
            };
            if let Some(place) = first.pop_front() {
                let change = self.changed.get(&place.id);
                let fresh = change.and_then(|change| change.fresh.as_ref());
                return Ok(Some(Candidate {
                    place,
                    span: fresh.map(|fresh| fresh.span.clone()),
                }));
            }
        }
    }

    fn fetch(&mut self) -> Result<(), ReadError> {
        let found = self.top.of(&self.view.searcher, &*self.query)?;
        self.exhausted = found.len() < self.top.limit;
        self.top.after = found.last().copied().or(self.top.after);
        self.top.limit = (self.top.limit * 4).min(MOST);
        for place in found {
            // A row that changed is judged by what it is now.
            if !self.changed.contains_key(&place.id)
                && check(self.connection, &self.narrowed, place.id)?.is_some()
            {
                self.ready.push_back(place);
            }
        }
        Ok(())
    }
}
