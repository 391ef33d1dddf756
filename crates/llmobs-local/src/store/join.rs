//! Joins spans with their stored evaluations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::evaluations::{
    SCOPES, add_to_span, key_scope, keys_of_span, scope_bounds, trace_bounds,
};
use llmobs_core::model::{Evaluation, Span, TraceId};

/// Whether any evaluation has a key in a range.
const EXISTS_BETWEEN: &str = "SELECT 1 FROM evals WHERE target >= ?1 AND target < ?2 LIMIT 1";

/// Reads evaluations within one read transaction.
pub(super) struct EvaluationJoiner {
    tag_keys: Vec<String>,
    /// The scopes of all stored evaluations. Saves most look-ups.
    scopes: Vec<&'static str>,
    /// Whether the spans of a trace have evaluations of their own, by trace, as far as read.
    traces: RefCell<HashMap<TraceId, bool>>,
}

/// Maximum number of cached traces.
const MAX_TRACES: usize = 10_000;

impl EvaluationJoiner {
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let mut exists = connection.prepare_cached(EXISTS_BETWEEN)?;
        let mut scopes = Vec::new();
        for scope in SCOPES {
            if exists.exists(scope_bounds(scope))? {
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

    /// Adds the stored evaluations to a span.
    pub(super) fn join(&self, connection: &Connection, span: &mut Span) -> rusqlite::Result<()> {
        for evaluation in self.evaluations_of(connection, span)? {
            add_to_span(span, evaluation);
        }
        Ok(())
    }

    /// The span with its stored evaluations. Clones the span only if it has any.
    pub(super) fn joined(
        &self,
        connection: &Connection,
        mut span: Arc<Span>,
    ) -> rusqlite::Result<Arc<Span>> {
        let evaluations = self.evaluations_of(connection, &span)?;
        if !evaluations.is_empty() {
            let own = Arc::make_mut(&mut span);
            for evaluation in evaluations {
                add_to_span(own, evaluation);
            }
        }
        Ok(span)
    }

    /// Whether spans of a trace have evaluations of their own. Most spans are read with others of
    /// their trace, so the result is cached.
    fn has_span_evaluations(
        &self,
        connection: &Connection,
        trace: &TraceId,
    ) -> rusqlite::Result<bool> {
        if let Some(cached) = self.traces.borrow().get(trace) {
            return Ok(*cached);
        }
        let found = connection
            .prepare_cached(EXISTS_BETWEEN)?
            .exists(trace_bounds(trace.as_str()))?;
        let mut traces = self.traces.borrow_mut();
        if traces.len() >= MAX_TRACES {
            traces.clear();
        }
        traces.insert(trace.clone(), found);
        Ok(found)
    }

    /// The stored evaluations of a span, in the order of arrival.
    fn evaluations_of(
        &self,
        connection: &Connection,
        span: &Span,
    ) -> rusqlite::Result<Vec<Evaluation>> {
        if self.scopes.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement =
            connection.prepare_cached("SELECT arrival, body FROM evals WHERE target = ?1")?;
        let mut found: Vec<(i64, Evaluation)> = Vec::new();
        for key in keys_of_span(span, self.tag_keys.iter().map(String::as_str)) {
            let scope = key_scope(&key);
            if !self.scopes.contains(&scope)
                || scope == "span" && !self.has_span_evaluations(connection, &span.trace_id)?
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
