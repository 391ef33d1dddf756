//! Aggregation from columns: no row is read but those that changed since.

mod columns;
mod in_order;

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::Connection;
use tantivy::columnar::ColumnValues as _;
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query as EngineQuery, Weight};

use super::View;
use super::changes::{Made, since};
use super::compile::{compile, occurs};
use super::schema::{GROUPS, NUMBERS};
use crate::store::Search;
use crate::store::sqlite::ReadError;
use columns::{Block, Columns, Needed, Relations, first_and_last_start, members, path};
use llmobs_core::analysis::aggregate::{
    EvaluationOutcome, EvaluationSource, IndexRow, RowAggregator, ScannedSpan, SpanRow,
};
use llmobs_core::model::{EventKind, Span};
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::index::{
    IndexCondition, IndexPlan, evaluation_columns, group_columns, plan_query,
};
use llmobs_core::query::{Expr, Field, Pattern, Query, SpanContext, Term};

/// Largest segment whose columns are unpacked as wholes: up to twelve bytes for each of its values.
const MOST_IN_ORDER: u32 = 2_000_000;

/// Threads that read at most, and documents that are worth a thread: few in tests, so that they
/// go both ways.
const MOST_THREADS: usize = 4;
const WORTH_A_THREAD: u64 = if cfg!(test) { 8 } else { 20_000 };

/// Gives all spans of a search to an aggregation, and says how many those were. `None`: the
/// question cannot be answered from columns, and nothing was given.
pub(in crate::store) fn gather(
    connection: &Connection,
    view: &Arc<View>,
    search: &Search,
    buckets: &[Query],
    load: impl Fn(i64, Option<Arc<Span>>) -> Result<Arc<Span>, ReadError>,
    rows: &mut dyn RowAggregator,
) -> Result<Option<u64>, ReadError> {
    let Some(question) = Question::of(view, search, buckets, rows) else {
        return Ok(None);
    };
    let Some(changes) = since(connection, view)? else {
        return Ok(None);
    };
    // A span that was new when it changed is not in the index.
    let changed = changes.spans.iter();
    let changed = changed.filter(|(_, change)| change.made == Made::Before);
    let changed: HashSet<i64> = changed.map(|(id, _)| *id).collect();
    let mut count = question.read_all(view.searcher.segment_readers(), &changed, rows)?;
    for (id, change) in &changes.spans {
        let fresh = change.fresh.as_ref().map(|fresh| fresh.span.clone());
        let span = match load(*id, fresh) {
            Ok(span) => span,
            Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => continue,
            Err(error) => return Err(error),
        };
        let selected = question.selects(&span);
        if selected || question.every_span && question.scopes(&span) {
            let in_buckets = buckets.iter().enumerate();
            let in_buckets =
                in_buckets.filter(|(_, query)| query.matches(&SpanContext::without_trace(&span)));
            rows.add_span(ScannedSpan {
                span: &span,
                selected,
                buckets: in_buckets.fold(0, |bits, (at, _)| bits | 1 << at),
            });
            count += 1;
        }
    }
    Ok(Some(count))
}

/// A question whose every part the index answers exactly.
struct Question<'a> {
    search: &'a Search,
    /// The application as a condition, for spans that are judged by themselves.
    app: Option<Expr>,
    /// What is read.
    scope: Box<dyn Weight>,
    /// What of it is selected, if not all.
    selection: Option<Box<dyn Weight>>,
    buckets: Vec<Box<dyn Weight>>,
    /// Whether nothing narrows what is read.
    reads_all: bool,
    every_span: bool,
    relations: bool,
    /// Columns of each dimension; none stands for the buckets.
    dimensions: Vec<Option<[String; 2]>>,
    /// Columns of score and verdict of each label.
    labels: Vec<[String; 2]>,
    from_ns: i64,
    to_ns: i64,
}

impl<'a> Question<'a> {
    fn of(
        view: &View,
        search: &'a Search,
        buckets: &[Query],
        rows: &dyn RowAggregator,
    ) -> Option<Self> {
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
        let plan_of = |part: Option<&Expr>| match part {
            Some(part) => plan_query(part, &known),
            None => IndexPlan::match_all(),
        };
        let scope = plan_of(app.as_ref());
        let query = search.query.as_ref().map(|query| &query.root);
        let selection = scope.clone().and(plan_of(query));
        let buckets: Vec<IndexPlan> = buckets
            .iter()
            .map(|query| plan_query(&query.root, &known))
            .collect();
        if !selection.exact || !buckets.iter().all(|plan| plan.exact) {
            return None;
        }
        let weigh = |plan: &IndexPlan| -> Option<Box<dyn Weight>> {
            let query: Box<dyn EngineQuery> = compile(&plan.condition, &view.fields);
            query
                .weight(EnableScoring::disabled_from_searcher(&view.searcher))
                .ok()
        };
        let mut dimensions = Vec::new();
        for field in rows.fields() {
            dimensions.push(match field {
                None => None,
                Some(field) => Some(group_columns(field, &known)?.map(|name| path(GROUPS, &name))),
            });
        }
        let labels = rows.labels().iter().map(|(judge, label)| {
            let kind = match judge {
                EvaluationSource::Evaluation => EventKind::Evaluation,
                EvaluationSource::Feedback => EventKind::Feedback,
            };
            evaluation_columns(kind, label).map(|name| path(NUMBERS, &name))
        });
        let every_span = rows.required_columns().unselected;
        let read = if every_span { &scope } else { &selection };
        Some(Self {
            search,
            app,
            reads_all: read.condition == IndexCondition::MatchAll,
            scope: weigh(read)?,
            selection: match query {
                Some(_) if every_span => Some(weigh(&selection)?),
                _ => None,
            },
            every_span,
            relations: rows.required_columns().relations,
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

    /// Whether a span that was read is of the application and the time.
    fn scopes(&self, span: &Span) -> bool {
        let app = self.app.as_ref();
        (self.from_ns..=self.to_ns).contains(&span.start_ns)
            && app.is_none_or(|app| app.matches(&SpanContext::without_trace(span)))
    }

    /// Whether a span that was read is one of those asked for.
    fn selects(&self, span: &Span) -> bool {
        let query = self.search.query.as_ref();
        self.scopes(span)
            && query.is_none_or(|query| query.matches(&SpanContext::without_trace(span)))
    }

    /// Gives the spans of all segments, but those that changed; how many those were.
    fn read_all(
        &self,
        readers: &[SegmentReader],
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let parts = parts_of(readers);
        let takers = match parts.len() {
            0 | 1 => Vec::new(),
            count => rows.partitions(count),
        };
        let mut shares = parts.into_iter().zip(takers);
        // One of them is read here.
        let Some((mut own, own_taker)) = shares.next() else {
            return self.read_each(readers, changed, rows);
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (part, taker) in shares {
                let readers = part.clone();
                let read = move || self.read_each(readers, changed, taker);
                match std::thread::Builder::new().spawn_scoped(scope, read) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        tracing::debug!(%error, "a grouping goes on with fewer threads");
                        own.extend(part);
                    }
                }
            }
            let mut count = self.read_each(own, changed, own_taker)?;
            for thread in threads {
                count += match thread.join() {
                    Ok(count) => count?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
            }
            Ok(count)
        })
    }

    fn read_each<'r>(
        &self,
        readers: impl IntoIterator<Item = &'r SegmentReader>,
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let readers = readers.into_iter();
        let counts = readers.map(|reader| self.read(reader, changed, rows));
        counts.sum()
    }

    /// Gives the spans of one segment, but those that changed; how many those were.
    fn read(
        &self,
        reader: &SegmentReader,
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let (first_ns, last_ns) = first_and_last_start(reader)?;
        if last_ns < self.from_ns || first_ns > self.to_ns {
            return Ok(0);
        }
        let within = first_ns >= self.from_ns && last_ns <= self.to_ns;
        let in_order = self.reads_all && within && reader.max_doc() <= MOST_IN_ORDER;
        let mut columns = Columns::open(self, reader, in_order)?;
        let needed = Needed {
            starts: !within || rows.required_columns().starts,
            any_start_ns: first_ns,
            ids: !changed.is_empty(),
        };
        let mut relations = match self.relations {
            true => Some(Relations::open(reader)?),
            false => None,
        };
        let selected = match &self.selection {
            Some(selection) => Some(members(&**selection, reader)?),
            None => None,
        };
        let mut verdicts = vec![EvaluationOutcome::default(); self.labels.len()];
        let mut values: Vec<Vec<u32>> = vec![Vec::new(); self.dimensions.len()];
        let alive = reader.alive_bitset();
        let mut count = 0;
        let mut block = Block::default();
        self.scope.for_each_no_score(reader, &mut |docs| {
            block.read(&columns, docs, needed);
            for (doc, own) in docs.iter().zip(block.rows()) {
                if alive.is_some_and(|alive| !alive.is_alive(*doc))
                    || own.start_ns < self.from_ns
                    || own.start_ns > self.to_ns
                    || needed.ids && changed.contains(&own.id)
                {
                    continue;
                }
                count += 1;
                columns.put_values(*doc, &mut values, rows);
                columns.put_verdicts(*doc, &mut verdicts);
                let mut row = IndexRow {
                    trace: 0,
                    is_root: false,
                    selected: selected.as_ref().is_none_or(|set| set.contains(*doc)),
                    call: None,
                    span: SpanRow {
                        start_ns: own.start_ns,
                        duration_ns: own.duration_ns,
                        is_error: own.is_error,
                        values: &values,
                        outcomes: &verdicts,
                    },
                };
                match &mut relations {
                    None => rows.add_row(row),
                    Some(relations) => {
                        let call = relations.read(*doc, rows);
                        row.trace = relations.trace;
                        row.is_root = relations.root.get_val(*doc);
                        row.call = call.then(|| relations.call());
                        rows.add_row(row);
                    }
                }
            }
        })?;
        Ok(count)
    }
}

/// Segments in parts of about the same size, one for each thread that is worth it.
fn parts_of(readers: &[SegmentReader]) -> Vec<Vec<&SegmentReader>> {
    let documents: u64 = readers
        .iter()
        .map(|reader| u64::from(reader.max_doc()))
        .sum();
    let cores = if cfg!(test) {
        MOST_THREADS
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    let threads = cores
        .min(readers.len())
        .min(MOST_THREADS)
        .min((documents / WORTH_A_THREAD) as usize);
    let mut parts: Vec<(u32, Vec<&SegmentReader>)> = vec![(0, Vec::new()); threads.max(1)];
    let mut readers: Vec<&SegmentReader> = readers.iter().collect();
    readers.sort_by_key(|reader| std::cmp::Reverse(reader.max_doc()));
    for reader in readers {
        // The largest first, each to the part that is the smallest so far.
        if let Some((size, part)) = parts.iter_mut().min_by_key(|(size, _)| *size) {
            *size += reader.max_doc();
            part.push(reader);
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}
