//! Which spans changed since a moment of the index, by the outbox.
//!
//! A changed evaluation is a change of every span that it joins. Those that the rows can name are
//! asked of them, the others of the index itself: what it does not have yet is in the outbox.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};
use tantivy::Searcher;

use super::compile::{compile, occurs};
use super::schema::Fields;
use super::top::Top;
use crate::local::store::evaluations::parse_key;
use crate::local::store::sqlite::ReadError;
use crate::local::store::writer::{CHANGED_EVALUATION, NEW_SPAN};
use crate::query::index::plan;
use crate::query::{Expr, Field, Pattern, Term};

/// What happened since.
pub(super) struct Changes {
    /// The rows that changed, by their keys.
    pub(super) spans: BTreeMap<i64, Change>,
    /// The last change seen.
    pub(super) upto: i64,
}

/// How a row changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether the first change made it.
    pub(super) made: Made,
    /// The last change of the span itself; 0 if only what was said about it changed.
    pub(super) seq: i64,
}

/// Whether a row was there before the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was not: the index cannot have it.
    New,
    /// It may have been.
    Before,
}

/// The changes after `seq`, within the read transaction of `connection`. The index of `searcher`
/// has all changes up to `seq`. `None`: the outbox does not reach back so far.
pub(super) fn since(
    connection: &Connection,
    searcher: &Searcher,
    fields: &Fields,
    seq: i64,
) -> Result<Option<Changes>, ReadError> {
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached("SELECT (SELECT min(seq) FROM outbox), (SELECT max(seq) FROM outbox)")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let upto = last.unwrap_or(0);
    if upto < seq || (upto > seq && first.is_none_or(|first| first > seq + 1)) {
        return Ok(None);
    }
    let mut spans: BTreeMap<i64, Change> = BTreeMap::new();
    let mut evaluations = HashSet::new();
    {
        let mut statement = connection
            .prepare_cached("SELECT kind, ref, seq FROM outbox WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([seq])?;
        while let Some(row) = rows.next()? {
            let (kind, id, seq): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let made = match kind {
                CHANGED_EVALUATION => {
                    evaluations.insert(id);
                    continue;
                }
                NEW_SPAN => Made::New,
                _ => Made::Before,
            };
            spans.entry(id).or_insert(Change { made, seq }).seq = seq;
        }
    }
    let mut targets = HashSet::new();
    for id in evaluations {
        let target: Option<String> = connection
            .prepare_cached("SELECT target FROM evals WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        targets.extend(target);
    }
    for target in targets {
        for id in joined_by(connection, searcher, fields, &target)? {
            let made = Made::Before;
            spans.entry(id).or_insert(Change { made, seq: 0 });
        }
    }
    Ok(Some(Changes { spans, upto }))
}

/// The rows of the spans that evaluations of a target join.
fn joined_by(
    connection: &Connection,
    searcher: &Searcher,
    fields: &Fields,
    target: &str,
) -> Result<Vec<i64>, ReadError> {
    let (scope, parts) = parse_key(target);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let by_rows = |sql: &str, values: &[&str]| -> Result<Vec<i64>, ReadError> {
        let mut statement = connection.prepare_cached(sql)?;
        let ids = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    };
    let attribute = |name: &str| Field::Attribute(name.to_owned());
    match (scope, parts.as_slice()) {
        ("span", [trace, span]) => {
            let id: Option<i64> = connection
                .prepare_cached("SELECT id FROM spans WHERE trace_id = ?1 AND span_id = ?2")?
                .query_row(params![trace, span], |row| row.get(0))
                .optional()?;
            Ok(id.into_iter().collect())
        }
        ("trace", [trace]) => by_rows(
            "SELECT id FROM spans WHERE trace_id = ? AND parent_id IS NULL",
            &[*trace],
        ),
        ("session", [session, _]) => by_rows(
            "SELECT id FROM spans WHERE session_id = ? AND parent_id IS NULL",
            &[*session],
        ),
        ("span-id", [span]) => by_index(searcher, fields, attribute("span_id"), span),
        ("tag", [key, value, _]) => {
            by_index(searcher, fields, Field::Tag((*key).to_owned()), value)
        }
        ("join-key", [join, _]) => by_index(searcher, fields, attribute("feedback_join_key"), join),
        _ => Err(ReadError::Content(
            "an evaluation has an unknown target".to_owned(),
        )),
    }
}

fn by_index(
    searcher: &Searcher,
    fields: &Fields,
    field: Field,
    value: &str,
) -> Result<Vec<i64>, ReadError> {
    let pattern = Pattern::Literal(value.to_owned());
    let having = Expr::Term(Term::Field { field, pattern });
    let plan = plan(&having, &|key| occurs(searcher, fields, key));
    let everywhere = Top {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        newest_first: true,
        after: None,
        limit: usize::MAX,
    };
    let found = everywhere.of(searcher, &*compile(&plan.node, fields))?;
    Ok(found.into_iter().map(|place| place.id).collect())
}
