//! Aggregation from columns: no row is read but those that changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use tantivy::columnar::{Column, ColumnValues, StrColumn};
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query as EngineQuery, Weight};
use tantivy::{BitSet, DocSet as _, TERMINATED};

use super::View;
use super::changes::{Made, since};
use super::compile::{compile, number_columns, occurs};
use super::schema::{DURATION, FAILED, GROUPS, ID, NUMBERS, START, column_name};
use crate::analysis::aggregate::{Gatherer, Judge, SpanRow, Verdict};
use crate::local::store::Search;
use crate::local::store::narrow::tags_match;
use crate::local::store::sqlite::ReadError;
use crate::model::{EventKind, Span};
use crate::query::combine::SpanFilters;
use crate::query::index::{Plan, group_columns, plan, verdict_columns};
use crate::query::{Expr, Field, Pattern, Query, SpanContext, Term};

/// A value that has no number yet.
const UNNUMBERED: u32 = u32::MAX;

/// Gives all spans of a search to an aggregation. `false`: the question cannot be answered from
/// columns, and nothing was given.
pub(in crate::local::store) fn gather(
    connection: &Connection,
    view: &Arc<View>,
    search: &Search,
    buckets: &[Query],
    load: impl Fn(i64) -> Result<Span, ReadError>,
    gatherer: &mut Gatherer,
) -> Result<bool, ReadError> {
    let Some(question) = Question::of(view, search, buckets, gatherer) else {
        return Ok(false);
    };
    let Some(changes) = since(connection, &view.searcher, &view.fields, view.seq)? else {
        return Ok(false);
    };
    for reader in view.searcher.segment_readers() {
        question.read(reader, &changes.spans, gatherer)?;
    }
    for id in changes.spans.keys() {
        let span = match load(*id) {
            Ok(span) => span,
            Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => continue,
            Err(error) => return Err(error),
        };
        if question.selects(&span) {
            let in_buckets = buckets.iter().enumerate();
            let in_buckets = in_buckets.filter(|(_, query)| query.matches(&SpanContext::of(&span)));
            gatherer.add_span(&span, in_buckets.fold(0, |bits, (at, _)| bits | 1 << at));
        }
    }
    Ok(true)
}

/// A question whose every part the index answers exactly.
struct Question<'a> {
    search: &'a Search,
    /// The application as a condition, for spans that are judged by themselves.
    app: Option<Expr>,
    selection: Box<dyn Weight>,
    buckets: Vec<Box<dyn Weight>>,
    /// Columns of each dimension; none stands for the buckets.
    dimensions: Vec<Option<[String; 2]>>,
    /// Columns of score and verdict of each label.
    labels: Vec<[String; 2]>,
    from_ns: i64,
    to_ns: i64,
}

impl<'a> Question<'a> {
    fn of(view: &View, search: &'a Search, buckets: &[Query], gatherer: &Gatherer) -> Option<Self> {
        let known = |key: &str| occurs(&view.searcher, &view.fields, key);
        // Other filters than the application are asked for as a query.
        let only_app = SpanFilters {
            ml_app: search.filters.ml_app.clone(),
            ..SpanFilters::default()
        };
        if search.filters != only_app || search.apm_trace_id.is_some() {
            return None;
        }
        let app = search.filters.ml_app.as_ref().map(|app| {
            Expr::Term(Term::Field {
                field: Field::Attribute("ml_app".to_owned()),
                pattern: Pattern::Literal(app.clone()),
            })
        });
        let parts = [app.as_ref(), search.query.as_ref().map(|query| &query.root)];
        let parts = parts.into_iter().flatten().map(|part| plan(part, &known));
        let selection = parts.fold(Plan::everything(), Plan::and);
        let buckets: Vec<Plan> = buckets
            .iter()
            .map(|query| plan(&query.root, &known))
            .collect();
        if !selection.exact || !buckets.iter().all(|plan| plan.exact) {
            return None;
        }
        let weigh = |plan: &Plan| -> Option<Box<dyn Weight>> {
            let query: Box<dyn EngineQuery> = compile(&plan.node, &view.fields);
            query
                .weight(EnableScoring::disabled_from_searcher(&view.searcher))
                .ok()
        };
        let mut dimensions = Vec::new();
        for field in gatherer.fields() {
            dimensions.push(match field {
                None => None,
                Some(field) => Some(group_columns(field, &known)?.map(|name| path(GROUPS, &name))),
            });
        }
        let labels = gatherer.labels().iter().map(|(judge, label)| {
            let kind = match judge {
                Judge::Evaluation => EventKind::Evaluation,
                Judge::Feedback => EventKind::Feedback,
            };
            verdict_columns(kind, label).map(|name| path(NUMBERS, &name))
        });
        Some(Self {
            search,
            app,
            selection: weigh(&selection)?,
            buckets: buckets.iter().map(weigh).collect::<Option<_>>()?,
            dimensions,
            labels: labels.collect(),
            from_ns: search.window.from_ms.saturating_mul(1_000_000),
            to_ns: search
                .window
                .to_ms
                .saturating_mul(1_000_000)
                .saturating_add(999_999),
        })
    }

    /// Whether a span that was read is one of those asked for.
    fn selects(&self, span: &Span) -> bool {
        let context = SpanContext::of(span);
        (self.from_ns..=self.to_ns).contains(&span.start_ns)
            && tags_match(self.search, span)
            && self.app.as_ref().is_none_or(|app| app.matches(&context))
            && self
                .search
                .query
                .as_ref()
                .is_none_or(|query| query.matches(&context))
    }

    /// Gives the spans of one segment, but those that changed.
    fn read(
        &self,
        reader: &SegmentReader,
        changed: &BTreeMap<i64, Made>,
        gatherer: &mut Gatherer,
    ) -> Result<(), ReadError> {
        let mut columns = Columns::open(self, reader)?;
        let mut verdicts = vec![Verdict::default(); self.labels.len()];
        let mut values: Vec<Vec<u32>> = vec![Vec::new(); self.dimensions.len()];
        let alive = reader.alive_bitset();
        self.selection.for_each_no_score(reader, &mut |docs| {
            for doc in docs {
                if alive.is_some_and(|alive| !alive.is_alive(*doc)) {
                    continue;
                }
                let start_ns = columns.start.get_val(*doc);
                if start_ns < self.from_ns
                    || start_ns > self.to_ns
                    || !changed.is_empty() && changed.contains_key(&columns.id.get_val(*doc))
                {
                    continue;
                }
                columns.put_values(*doc, &mut values, gatherer);
                columns.put_verdicts(*doc, &mut verdicts);
                gatherer.add(SpanRow {
                    start_ns,
                    duration_ns: columns.duration.get_val(*doc),
                    is_error: columns.failed.get_val(*doc),
                    values: &values,
                    verdicts: &verdicts,
                });
            }
        })?;
        Ok(())
    }
}

fn path(field: &str, name: &str) -> String {
    format!("{field}.{}", column_name(name))
}

/// The columns of one segment that a question needs.
struct Columns {
    id: Arc<dyn ColumnValues<i64>>,
    start: Arc<dyn ColumnValues<i64>>,
    duration: Arc<dyn ColumnValues<i64>>,
    failed: Arc<dyn ColumnValues<bool>>,
    dimensions: Vec<Dimension>,
    labels: Vec<[Vec<Column<f64>>; 2]>,
}

enum Dimension {
    /// The values of a facet, with the numbers of those met so far.
    Facet(Vec<(StrColumn, Vec<u32>)>),
    /// The documents of each bucket.
    Buckets(Vec<BitSet>),
}

impl Columns {
    fn open(question: &Question<'_>, reader: &SegmentReader) -> Result<Self, ReadError> {
        let fast = reader.fast_fields();
        let mut dimensions = Vec::new();
        for columns in &question.dimensions {
            dimensions.push(match columns {
                Some(paths) => {
                    let mut columns = Vec::new();
                    for path in paths {
                        if let Some(column) = fast.str(path)? {
                            let numbers = vec![UNNUMBERED; column.num_terms()];
                            columns.push((column, numbers));
                        }
                    }
                    Dimension::Facet(columns)
                }
                None => {
                    let sets = question
                        .buckets
                        .iter()
                        .map(|bucket| members(&**bucket, reader));
                    Dimension::Buckets(sets.collect::<Result<_, _>>()?)
                }
            });
        }
        let mut labels = Vec::new();
        for [score, passed] in &question.labels {
            labels.push([
                number_columns(reader, score)?,
                number_columns(reader, passed)?,
            ]);
        }
        Ok(Self {
            id: fast.column_first_or_default(ID)?,
            start: fast.column_first_or_default(START)?,
            duration: fast.column_first_or_default(DURATION)?,
            failed: fast.column_first_or_default(FAILED)?,
            dimensions,
            labels,
        })
    }

    fn put_values(&mut self, doc: u32, values: &mut [Vec<u32>], gatherer: &mut Gatherer) {
        for (dimension, values) in self.dimensions.iter_mut().zip(values) {
            values.clear();
            match dimension {
                Dimension::Facet(columns) => {
                    for (column, numbers) in columns {
                        for ordinal in column.term_ords(doc) {
                            let number = number_of(column, numbers, ordinal, gatherer);
                            if !values.contains(&number) {
                                values.push(number);
                            }
                        }
                    }
                }
                Dimension::Buckets(sets) => values.extend(
                    (0_u32..)
                        .zip(sets)
                        .filter(|(_, set)| set.contains(doc))
                        .map(|(at, _)| at),
                ),
            }
        }
    }

    fn put_verdicts(&self, doc: u32, verdicts: &mut [Verdict]) {
        let first = |columns: &[Column<f64>]| columns.iter().find_map(|column| column.first(doc));
        for ([score, passed], verdict) in self.labels.iter().zip(verdicts) {
            *verdict = Verdict {
                score: first(score),
                passed: first(passed).map(|passed| passed > 0.5),
            };
        }
    }
}

/// The aggregation's number of a value, looked up once for each value of a segment.
fn number_of(
    column: &StrColumn,
    numbers: &mut [u32],
    ordinal: u64,
    gatherer: &mut Gatherer,
) -> u32 {
    let slot = usize::try_from(ordinal)
        .ok()
        .and_then(|at| numbers.get_mut(at));
    match slot {
        Some(slot) if *slot != UNNUMBERED => *slot,
        slot => {
            let mut text = String::new();
            // What cannot be read is the empty text, which no span has as a value.
            if !matches!(column.ord_to_str(ordinal, &mut text), Ok(true)) {
                tracing::warn!("a value in the index of the local store cannot be read");
                text.clear();
            }
            let number = gatherer.number(&text);
            if let Some(slot) = slot {
                *slot = number;
            }
            number
        }
    }
}

/// The documents that a query finds in a segment.
fn members(query: &dyn Weight, reader: &SegmentReader) -> Result<BitSet, ReadError> {
    let mut set = BitSet::with_max_value(reader.max_doc());
    let mut scorer = query.scorer(reader, 1.0)?;
    let mut doc = scorer.doc();
    while doc != TERMINATED {
        set.insert(doc);
        doc = scorer.advance();
    }
    Ok(set)
}
