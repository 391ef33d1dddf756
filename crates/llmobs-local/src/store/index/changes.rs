//! Reads from the outbox which spans changed since a view of the index.
//!
//! The latest changes are in memory. Earlier ones are read from the table.
//!
//! A changed evaluation changes every span that it joins. Rows or the index itself find these
//! spans; spans that are not in the index yet are in the outbox.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use tantivy::Searcher;

use super::compile::{compile, occurs};
use super::schema::IndexFields;
use super::top::TopK;
use super::view::IndexView;
use crate::store::evaluations::parse_key;
use crate::store::outbox::{CHANGED_EVALUATION, NEW_SPAN, RecentWrite, last_change};
use crate::store::rows::ReadError;
use llmobs_core::query::index::plan_query;
use llmobs_core::query::{Expr, Field, Pattern, Term};

/// The changes since a view.
pub(super) struct Changes {
    /// The changed rows by key.
    pub(super) spans: BTreeMap<i64, RowChange>,
    /// The last change.
    pub(super) last: i64,
}

/// How a row changed.
#[derive(Clone)]
pub(super) struct RowChange {
    /// Whether the index can contain the row.
    pub(super) origin: RowOrigin,
    /// What the last change wrote, if it is in memory.
    pub(super) write: Option<Arc<RecentWrite>>,
}

/// Whether a row existed before the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrigin {
    /// The first change created the row, so the index cannot contain it.
    New,
    /// The row may have existed.
    Existing,
}

/// The changes that `view` does not contain, within the read transaction of `connection`. `None`
/// when the outbox no longer holds all of them.
pub(super) fn changes_since(
    connection: &Connection,
    view: &IndexView,
) -> Result<Option<Changes>, ReadError> {
    let last = last_change(connection)?;
    if last < view.seq {
        return Ok(None);
    }
    let changes = if last == view.seq {
        Some(ChangedIds::default())
    } else if let Some(commits) = view.outbox.recent.between(view.seq, last) {
        let mut changes = ChangedIds::default();
        let entries = commits.iter().flat_map(|commit| commit.iter());
        for entry in entries.filter(|entry| (view.seq + 1..=last).contains(&entry.seq)) {
            changes.add(entry.kind, entry.id, entry.write.as_ref());
        }
        Some(changes)
    } else {
        read_outbox(connection, view.seq)?
    };
    let Some(ChangedIds {
        mut spans,
        evaluations,
    }) = changes
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
        for id in joined_spans(connection, &view.searcher, &view.fields, &target)? {
            spans.entry(id).or_insert(RowChange {
                origin: RowOrigin::Existing,
                write: None,
            });
        }
    }
    Ok(Some(Changes { spans, last }))
}

/// The keys of changed spans and evaluations.
#[derive(Default)]
struct ChangedIds {
    spans: BTreeMap<i64, RowChange>,
    evaluations: HashSet<i64>,
}

impl ChangedIds {
    /// Adds the next change in order.
    fn add(&mut self, kind: i64, id: i64, write: Option<&Arc<RecentWrite>>) {
        let origin = match kind {
            CHANGED_EVALUATION => {
                self.evaluations.insert(id);
                return;
            }
            NEW_SPAN => RowOrigin::New,
            _ => RowOrigin::Existing,
        };
        let write = write.cloned();
        match self.spans.get_mut(&id) {
            Some(change) => change.write = write,
            None => {
                self.spans.insert(id, RowChange { origin, write });
            }
        }
    }
}

/// Reads all changes after `seq` from the table. `None` when the table no longer holds all of them.
fn read_outbox(connection: &Connection, seq: i64) -> Result<Option<ChangedIds>, ReadError> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(seq) FROM outbox")?
        .query_row([], |row| row.get(0))?;
    if first.is_none_or(|first| first > seq + 1) {
        return Ok(None);
    }
    let mut changes = ChangedIds::default();
    let mut statement =
        connection.prepare_cached("SELECT kind, ref FROM outbox WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([seq])?;
    while let Some(row) = rows.next()? {
        changes.add(row.get(0)?, row.get(1)?, None);
    }
    Ok(Some(changes))
}

/// The keys of the spans that evaluations of a target join.
fn joined_spans(
    connection: &Connection,
    searcher: &Searcher,
    fields: &IndexFields,
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
    fields: &IndexFields,
    field: Field,
    value: &str,
) -> Result<Vec<i64>, ReadError> {
    let pattern = Pattern::Literal(value.to_owned());
    let term = Expr::Term(Term::Field { field, pattern });
    let plan = plan_query(&term, &|key| occurs(searcher, fields, key));
    let top = TopK {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        newest_first: true,
        after: None,
        limit: usize::MAX,
    };
    let positions = top.find(searcher, &*compile(&plan.condition, fields))?;
    Ok(positions.into_iter().map(|position| position.id).collect())
}

#[cfg(test)]
mod tests {
    use super::super::schema::schema;
    use super::*;
    use crate::store::outbox::OutboxState;
    use crate::store::rows::SpanColumns;
    use crate::store::schema::{FILE_NAME, SCHEMA, open_writer};
    use crate::store::writer::{NewSpan, Write, Writer};
    use crate::store::{Durability, EvaluationTarget, SpanPurgeStep, TargetedEvaluation};
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
        let new = spans.iter().cloned().map(NewSpan::new);
        Write::Spans(new.collect::<Result<_, _>>().unwrap())
    }

    /// One of each kind of change.
    fn writes() -> Vec<Write> {
        let on_span_4 = TargetedEvaluation {
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
            Write::Evaluations(vec![on_span_4]),
            Write::PurgeSpans(SpanPurgeStep {
                before_ns: 2_000_000,
                limit: 10,
            }),
            spans(&[span(5, 1_000_000, "under the key of 1")]),
        ]
    }

    #[test]
    fn recent_changes_equal_the_outbox_table() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        let outbox = Arc::new(OutboxState::default());
        outbox.keep_none();
        let (connection, _) = open_writer(&file, Durability::Process).unwrap();
        let writer = Writer::start(connection, outbox.clone()).unwrap();
        for write in writes() {
            writer.write(write).unwrap();
        }
        let (schema, fields) = schema();
        let index = tantivy::Index::create_in_ram(schema);
        let view = |seq: i64, outbox: &Arc<OutboxState>| IndexView {
            searcher: index.reader().unwrap().searcher(),
            fields,
            seq,
            outbox: outbox.clone(),
        };
        let reader = SCHEMA.open_reader(&file).unwrap();
        let start_of = |id: i64| -> Option<i64> {
            let sql = "SELECT start FROM spans WHERE id = ?";
            let found = reader.query_row(sql, [id], |row| row.get(0));
            found.optional().unwrap()
        };
        let changes = |view: IndexView| changes_since(&reader, &view).ok().flatten().unwrap();
        let last = last_change(&reader).unwrap();
        assert_eq!(last, 10);
        for seq in 0..=last {
            assert!(outbox.recent.between(seq, last).is_some());
            let recent = changes(view(seq, &outbox));
            let read = changes(view(seq, &Arc::default()));
            assert_eq!((recent.last, read.last), (last, last));
            let origins = |changes: &Changes| -> Vec<(i64, RowOrigin)> {
                let changes = changes.spans.iter();
                changes.map(|(id, change)| (*id, change.origin)).collect()
            };
            assert_eq!(origins(&recent), origins(&read), "since {seq}");
            for (id, change) in &recent.spans {
                let start = change.write.as_ref().map(|write| write.columns.start);
                // A changed evaluation changes no row.
                let no_write = change.origin == RowOrigin::Existing && start.is_none();
                assert!(
                    start == start_of(*id) || no_write,
                    "{id} is {start:?} since {seq}"
                );
                if let Some(write) = &change.write {
                    assert!(write.columns == SpanColumns::from_span(&write.span));
                }
            }
        }
    }
}
