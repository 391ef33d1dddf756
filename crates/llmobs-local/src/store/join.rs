//! Joins spans that were read with the evaluations kept for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::evaluations::{SCOPES, bounds_of, bounds_within, keys_of_span, put, scope_of};
use llmobs_core::model::{Evaluation, Span, TraceId};

const ANY_BETWEEN: &str = "SELECT 1 FROM evals WHERE target >= ?1 AND target < ?2 LIMIT 1";

/// Reads evaluations within one transaction of a reader.
pub(super) struct Joiner {
    tag_keys: Vec<String>,
    /// The kinds of targets of all that is kept: saves most look-ups.
    scopes: Vec<&'static str>,
    /// Whether anything is kept for single spans of a trace, of those asked for so far.
    traces: RefCell<HashMap<TraceId, bool>>,
}

/// Traces remembered at most.
const MOST_TRACES: usize = 10_000;

impl Joiner {
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let mut in_use = connection.prepare_cached(ANY_BETWEEN)?;
        let mut scopes = Vec::new();
        for scope in SCOPES {
            if in_use.exists(bounds_of(scope))? {
                scopes.push(scope);
            }
        }
        let mut statement = connection.prepare_cached("SELECT key FROM tag_keys")?;
        let tag_keys = statement
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            tag_keys,
            scopes,
            traces: RefCell::default(),
        })
    }

    /// Puts on the span what is kept for it.
    pub(super) fn join(&self, connection: &Connection, span: &mut Span) -> rusqlite::Result<()> {
        for evaluation in self.kept_for(connection, span)? {
            put(span, evaluation);
        }
        Ok(())
    }

    /// The span with what is kept for it; the same one if that is nothing.
    pub(super) fn joined(
        &self,
        connection: &Connection,
        mut span: Arc<Span>,
    ) -> rusqlite::Result<Arc<Span>> {
        let kept = self.kept_for(connection, &span)?;
        if !kept.is_empty() {
            let own = Arc::make_mut(&mut span);
            for evaluation in kept {
                put(own, evaluation);
            }
        }
        Ok(span)
    }

    /// Whether anything is kept for single spans of a trace: most spans come with others of theirs.
    fn holds_of(&self, connection: &Connection, trace: &TraceId) -> rusqlite::Result<bool> {
        if let Some(known) = self.traces.borrow().get(trace) {
            return Ok(*known);
        }
        let found = connection
            .prepare_cached(ANY_BETWEEN)?
            .exists(bounds_within(trace.as_str()))?;
        let mut traces = self.traces.borrow_mut();
        if traces.len() >= MOST_TRACES {
            traces.clear();
        }
        traces.insert(trace.clone(), found);
        Ok(found)
    }

    /// What is kept for a span, in the order of arrival.
    fn kept_for(&self, connection: &Connection, span: &Span) -> rusqlite::Result<Vec<Evaluation>> {
        if self.scopes.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement =
            connection.prepare_cached("SELECT arrival, body FROM evals WHERE target = ?1")?;
        let mut found: Vec<(i64, Evaluation)> = Vec::new();
        for key in keys_of_span(span, self.tag_keys.iter().map(String::as_str)) {
            let scope = scope_of(&key);
            if !self.scopes.contains(&scope)
                || scope == "span" && !self.holds_of(connection, &span.trace_id)?
            {
                continue;
            }
            let mut rows = statement.query(params![key])?;
            while let Some(row) = rows.next()? {
                let body: String = row.get(1)?;
                let evaluation = serde_json::from_str(&body).map_err(|e| {
                    rusqlite::Error::FromSqlConversionFailure(
                        1,
                        rusqlite::types::Type::Text,
                        Box::new(e),
                    )
                })?;
                found.push((row.get(0)?, evaluation));
            }
        }
        found.sort_by_key(|(arrival, _)| *arrival);
        Ok(found
            .into_iter()
            .map(|(_, evaluation)| evaluation)
            .collect())
    }
}
