//! Which spans changed since a moment of the index, by the outbox.
//!
//! The latest changes are at hand in memory; only those of an earlier time are read from the table.
//!
//! A changed evaluation is a change of every span that it joins. Those that the rows can name are
//! asked of them, the others of the index itself: what it does not have yet is in the outbox.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use tantivy::Searcher;

use super::View;
use super::compile::{compile, occurs};
use super::schema::Fields;
use super::top::Top;
use crate::store::evaluations::parse_key;
use crate::store::recent::Fresh;
use crate::store::sqlite::ReadError;
use crate::store::writer::{CHANGED_EVALUATION, NEW_SPAN};
use llmobs_core::query::index::plan_query;
use llmobs_core::query::{Expr, Field, Pattern, Term};

/// What happened since.
pub(super) struct Changes {
    /// The rows that changed, by their keys.
    pub(super) spans: BTreeMap<i64, Change>,
    /// The last change seen.
    pub(super) upto: i64,
}

/// How a row changed.
#[derive(Clone)]
pub(super) struct Change {
    /// Whether the first change made it.
    pub(super) made: Made,
    /// The span that the last change wrote, if it is at hand.
    pub(super) fresh: Option<Arc<Fresh>>,
}

/// Whether a row was there before the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was not: the index cannot have it.
    New,
    /// It may have been.
    Before,
}

/// The changes that the index of `view` does not have, within the read transaction of
/// `connection`. `None`: the outbox does not reach back so far.
pub(super) fn since(connection: &Connection, view: &View) -> Result<Option<Changes>, ReadError> {
    let upto = last_change(connection)?;
    if upto < view.seq {
        return Ok(None);
    }
    let seen = if upto == view.seq {
        Some(Seen::default())
    } else if let Some(commits) = view.recent.between(view.seq, upto) {
        let mut seen = Seen::default();
        let changes = commits.iter().flat_map(|commit| commit.iter());
        for change in changes.filter(|change| (view.seq + 1..=upto).contains(&change.seq)) {
            seen.add(change.kind, change.id, change.fresh.as_ref());
        }
        Some(seen)
    } else {
        read_outbox(connection, view.seq)?
    };
    let Some(Seen {
        mut spans,
        evaluations,
    }) = seen
    else {
        return Ok(None);
    };
    let mut targets = HashSet::new();
    for id in evaluations {
        let target: Option<String> = connection
            .prepare_cached("SELECT target FROM evals WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        targets.extend(target);
    }
    for target in targets {
        for id in joined_by(connection, &view.searcher, &view.fields, &target)? {
            spans.entry(id).or_insert(Change {
                made: Made::Before,
                fresh: None,
            });
        }
    }
    Ok(Some(Changes { spans, upto }))
}

/// The number of the last change; 0 if there was none yet.
pub(in crate::store) fn last_change(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM outbox")?
        .query_row([], |row| row.get(0))
}

/// What changed, in the order of the changes.
#[derive(Default)]
struct Seen {
    spans: BTreeMap<i64, Change>,
    evaluations: HashSet<i64>,
}

impl Seen {
    fn add(&mut self, kind: i64, id: i64, fresh: Option<&Arc<Fresh>>) {
        let made = match kind {
            CHANGED_EVALUATION => {
                self.evaluations.insert(id);
                return;
            }
            NEW_SPAN => Made::New,
            _ => Made::Before,
        };
        let fresh = fresh.cloned();
        match self.spans.get_mut(&id) {
            Some(change) => change.fresh = fresh,
            None => {
                self.spans.insert(id, Change { made, fresh });
            }
        }
    }
}

/// Reads all changes after one. `None`: the table does not reach back so far.
fn read_outbox(connection: &Connection, seq: i64) -> Result<Option<Seen>, ReadError> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(seq) FROM outbox")?
        .query_row([], |row| row.get(0))?;
    if first.is_none_or(|first| first > seq + 1) {
        return Ok(None);
    }
    let mut seen = Seen::default();
    let mut statement =
        connection.prepare_cached("SELECT kind, ref FROM outbox WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([seq])?;
    while let Some(row) = rows.next()? {
        seen.add(row.get(0)?, row.get(1)?, None);
    }
    Ok(Some(seen))
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
    let plan = plan_query(&having, &|key| occurs(searcher, fields, key));
    let everywhere = Top {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        newest_first: true,
        after: None,
        limit: usize::MAX,
    };
    let found = everywhere.of(searcher, &*compile(&plan.condition, fields))?;
    Ok(found.into_iter().map(|place| place.id).collect())
}

#[cfg(test)]
mod tests {
    use super::super::schema::schema;
    use super::super::shared::Shared;
    use super::*;
    use crate::store::recent::Recent;
    use crate::store::rows::Row;
    use crate::store::schema::{open_reader, open_writer};
    use crate::store::writer::{NewSpan, Write, Writer};
    use crate::store::{EvaluationTarget, PurgeStep, TargetedEvaluation};
    use llmobs_core::model::{Evaluation, Span};

    fn span(id: u8, start_ns: i64, name: &str) -> Span {
        Span {
            trace_id: "t".into(),
            span_id: id.to_string().into(),
            start_ns,
            name: name.to_owned(),
            ..Span::default()
        }
    }

    fn spans(spans: &[Span]) -> Write {
        let new = spans.iter().cloned().map(NewSpan::of);
        Write::Spans(new.collect::<Result<_, _>>().unwrap())
    }

    /// One of each kind of change.
    fn writes() -> Vec<Write> {
        let about_4 = TargetedEvaluation {
            target: EvaluationTarget::Span {
                trace_id: Some("t".into()),
                span_id: "4".into(),
            },
            ml_app: String::new(),
            evaluation: Evaluation::default(),
        };
        vec![
            spans(&[span(1, 1_000_000, ""), span(2, 2_000_000, "")]),
            spans(&[span(3, 3_000_000, ""), span(2, 2_000_001, "updated")]),
            spans(&[span(4, 4_000_000, ""), span(3, 9_000_000, "moved")]),
            Write::Evaluations(vec![about_4]),
            Write::Purge(PurgeStep {
                before_ns: 2_000_000,
                limit: 10,
            }),
            spans(&[span(5, 1_000_000, "in the place of 1")]),
        ]
    }

    #[test]
    fn changes_at_hand_are_those_of_the_outbox() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llmobs.db");
        let shared = Arc::new(Shared::without_index());
        let connection = open_writer(&file, "OFF").unwrap();
        let writer = Writer::start(connection, shared.clone()).unwrap();
        for write in writes() {
            writer.write(write).unwrap();
        }
        let (schema, fields) = schema();
        let index = tantivy::Index::create_in_ram(schema);
        let view = |seq: i64, recent: &Arc<Recent>| View {
            searcher: index.reader().unwrap().searcher(),
            fields,
            seq,
            recent: recent.clone(),
        };
        let reader = open_reader(&file).unwrap();
        let start_of = |id: i64| -> Option<i64> {
            let sql = "SELECT start FROM spans WHERE id = ?";
            let found = reader.query_row(sql, [id], |row| row.get(0));
            found.optional().unwrap()
        };
        let known = |view: View| since(&reader, &view).ok().flatten().unwrap();
        let last = last_change(&reader).unwrap();
        assert_eq!(last, 10);
        for seq in 0..=last {
            assert!(shared.recent.between(seq, last).is_some());
            let at_hand = known(view(seq, &shared.recent));
            let read = known(view(seq, &Arc::default()));
            assert_eq!((at_hand.upto, read.upto), (last, last));
            let made = |changes: &Changes| -> Vec<(i64, Made)> {
                let changes = changes.spans.iter();
                changes.map(|(id, change)| (*id, change.made)).collect()
            };
            assert_eq!(made(&at_hand), made(&read), "since {seq}");
            for (id, change) in &at_hand.spans {
                let kept = change.fresh.as_ref().map(|fresh| fresh.row.start);
                let only_judged = change.made == Made::Before && kept.is_none();
                assert!(
                    kept == start_of(*id) || only_judged,
                    "{id} is {kept:?} since {seq}"
                );
                if let Some(fresh) = &change.fresh {
                    assert!(fresh.row == Row::of(&fresh.span));
                }
            }
        }
    }
}
