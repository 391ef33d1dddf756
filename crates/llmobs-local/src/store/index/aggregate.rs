//! Aggregation from the columns of the index. Only rows that changed since the view are read.

mod columns;
mod sequential;

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::Connection;
use tantivy::columnar::ColumnValues as _;
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query as EngineQuery, Weight};

use super::changes::{RowOrigin, changes_since};
use super::compile::{compile, occurs};
use super::schema::{GROUPS, NUMBERS};
use super::view::IndexView;
use crate::store::Search;
use crate::store::rows::ReadError;
use columns::{
    ColumnPaths, DocumentBlock, RelationColumns, RequiredColumns, SegmentColumns, column_path,
    matching_documents, start_bounds,
};
use llmobs_core::analysis::aggregate::{
    EvaluationOutcome, EvaluationSource, IndexRow, RowAggregator, ScannedSpan, SpanRow,
};
use llmobs_core::model::{EventKind, Span};
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::index::{
    IndexCondition, IndexPlan, evaluation_columns, group_columns, plan_query,
};
use llmobs_core::query::{Expr, Field, Pattern, Query, SpanContext, Term};

/// Largest segment whose columns are decoded completely: up to twelve bytes for each value.
const MAX_SEQUENTIAL_DOCUMENTS: u32 = 2_000_000;

/// When an aggregation reads the segments of the index on several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParallelScan {
    /// Maximum number of threads.
    pub max_threads: usize,
    /// Documents for which a further thread is started.
    pub documents_per_thread: u64,
}

impl Default for ParallelScan {
    /// At most four threads, no more than the machine has processors, one per 20,000 documents.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_threads: processors.min(4),
            documents_per_thread: 20_000,
        }
    }
}

/// Passes all spans of a search to an aggregation, and returns their number. `None` when the search
/// cannot be aggregated from columns; `rows` is unchanged then.
pub(in crate::store) fn aggregate(
    connection: &Connection,
    view: &Arc<IndexView>,
    parallel_scan: ParallelScan,
    search: &Search,
    buckets: &[Query],
    load: impl Fn(i64, Option<Arc<Span>>) -> Result<Arc<Span>, ReadError>,
    rows: &mut dyn RowAggregator,
) -> Result<Option<u64>, ReadError> {
    let Some(plan) = AggregatePlan::new(view, search, buckets, rows) else {
        return Ok(None);
    };
    let Some(changes) = changes_since(connection, view)? else {
        return Ok(None);
    };
    // The index cannot contain a span that the first change created.
    let changed = changes.spans.iter();
    let changed = changed.filter(|(_, change)| change.origin == RowOrigin::Existing);
    let changed: HashSet<i64> = changed.map(|(id, _)| *id).collect();
    let readers = view.searcher.segment_readers();
    let mut count = plan.read_all(readers, parallel_scan, &changed, rows)?;
    for (id, change) in &changes.spans {
        let recent = change.write.as_ref().map(|write| write.span.clone());
        let span = match load(*id, recent) {
            Ok(span) => span,
            Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => continue,
            Err(error) => return Err(error),
        };
        let selected = plan.is_selected(&span);
        if selected || plan.every_span && plan.is_in_scope(&span) {
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

/// An aggregation of which the index answers every part exactly.
struct AggregatePlan<'a> {
    search: &'a Search,
    /// The application as a condition, for spans that are not in the index.
    app: Option<Expr>,
    /// Selects the documents that are read.
    scope: Box<dyn Weight>,
    /// Selects the documents that match the query, if the scope has others.
    selection: Option<Box<dyn Weight>>,
    /// Whether the scope has all documents.
    reads_all: bool,
    /// Whether spans that do not match the query are read too.
    every_span: bool,
    /// Whether traces and model calls are read.
    relations: bool,
    columns: ColumnPaths,
    from_ns: i64,
    to_ns: i64,
}

impl<'a> AggregatePlan<'a> {
    fn new(
        view: &IndexView,
        search: &'a Search,
        buckets: &[Query],
        rows: &dyn RowAggregator,
    ) -> Option<Self> {
        let known = |key: &str| occurs(&view.searcher, &view.fields, key);
        // Callers express all filters but the application as a query.
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
        let to_weight = |plan: &IndexPlan| -> Option<Box<dyn Weight>> {
            let query: Box<dyn EngineQuery> = compile(&plan.condition, &view.fields);
            query
                .weight(EnableScoring::disabled_from_searcher(&view.searcher))
                .ok()
        };
        let mut dimensions = Vec::new();
        for field in rows.fields() {
            dimensions.push(match field {
                None => None,
                Some(field) => {
                    Some(group_columns(field, &known)?.map(|name| column_path(GROUPS, &name)))
                }
            });
        }
        let labels = rows.labels().iter().map(|(source, label)| {
            let kind = match source {
                EvaluationSource::Evaluation => EventKind::Evaluation,
                EvaluationSource::Feedback => EventKind::Feedback,
            };
            evaluation_columns(kind, label).map(|name| column_path(NUMBERS, &name))
        });
        let every_span = rows.required_columns().unselected;
        let read = if every_span { &scope } else { &selection };
        Some(Self {
            search,
            app,
            reads_all: read.condition == IndexCondition::MatchAll,
            scope: to_weight(read)?,
            selection: match query {
                Some(_) if every_span => Some(to_weight(&selection)?),
                _ => None,
            },
            every_span,
            relations: rows.required_columns().relations,
            columns: ColumnPaths {
                buckets: buckets.iter().map(to_weight).collect::<Option<_>>()?,
                dimensions,
                labels: labels.collect(),
            },
            from_ns: search.window.from_ms.saturating_mul(1_000_000),
            to_ns: search
                .window
                .to_ms
                .saturating_mul(1_000_000)
                .saturating_add(999_999),
        })
    }

    /// Whether a span belongs to the application and the window.
    fn is_in_scope(&self, span: &Span) -> bool {
        let app = self.app.as_ref();
        (self.from_ns..=self.to_ns).contains(&span.start_ns)
            && app.is_none_or(|app| app.matches(&SpanContext::without_trace(span)))
    }

    /// Whether a span also matches the query.
    fn is_selected(&self, span: &Span) -> bool {
        let query = self.search.query.as_ref();
        self.is_in_scope(span)
            && query.is_none_or(|query| query.matches(&SpanContext::without_trace(span)))
    }

    /// Passes the spans of all segments except changed ones. Returns their number.
    fn read_all(
        &self,
        readers: &[SegmentReader],
        parallel_scan: ParallelScan,
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let groups = group_segments(readers, parallel_scan);
        let partitions = match groups.len() {
            0 | 1 => Vec::new(),
            count => rows.partitions(count),
        };
        let mut work = groups.into_iter().zip(partitions);
        // This thread reads one group.
        let Some((mut own_group, own_partition)) = work.next() else {
            return self.read_segments(readers, changed, rows);
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (group, partition) in work {
                let readers = group.clone();
                let read = move || self.read_segments(readers, changed, partition);
                match std::thread::Builder::new().spawn_scoped(scope, read) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        tracing::debug!(%error, "an aggregation continues with fewer threads");
                        own_group.extend(group);
                    }
                }
            }
            let mut count = self.read_segments(own_group, changed, own_partition)?;
            for thread in threads {
                count += match thread.join() {
                    Ok(count) => count?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
            }
            Ok(count)
        })
    }

    fn read_segments<'r>(
        &self,
        readers: impl IntoIterator<Item = &'r SegmentReader>,
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let readers = readers.into_iter();
        let counts = readers.map(|reader| self.read_segment(reader, changed, rows));
        counts.sum()
    }

    /// Passes the spans of one segment except changed ones. Returns their number.
    fn read_segment(
        &self,
        reader: &SegmentReader,
        changed: &HashSet<i64>,
        rows: &mut dyn RowAggregator,
    ) -> Result<u64, ReadError> {
        let (first_ns, last_ns) = start_bounds(reader)?;
        if last_ns < self.from_ns || first_ns > self.to_ns {
            return Ok(0);
        }
        let is_in_window = first_ns >= self.from_ns && last_ns <= self.to_ns;
        let sequential =
            self.reads_all && is_in_window && reader.max_doc() <= MAX_SEQUENTIAL_DOCUMENTS;
        let mut columns = SegmentColumns::open(&self.columns, reader, sequential)?;
        let required = RequiredColumns {
            starts: !is_in_window || rows.required_columns().starts,
            any_start_ns: first_ns,
            ids: !changed.is_empty(),
        };
        let mut relations = match self.relations {
            true => Some(RelationColumns::open(reader)?),
            false => None,
        };
        let selected = match &self.selection {
            Some(selection) => Some(matching_documents(&**selection, reader)?),
            None => None,
        };
        let mut outcomes = vec![EvaluationOutcome::default(); self.columns.labels.len()];
        let mut values: Vec<Vec<u32>> = vec![Vec::new(); self.columns.dimensions.len()];
        let alive = reader.alive_bitset();
        let mut count = 0;
        let mut block = DocumentBlock::default();
        self.scope.for_each_no_score(reader, &mut |docs| {
            block.read(&columns, docs, required);
            for (doc, document) in docs.iter().zip(block.rows()) {
                if alive.is_some_and(|alive| !alive.is_alive(*doc))
                    || document.start_ns < self.from_ns
                    || document.start_ns > self.to_ns
                    || required.ids && changed.contains(&document.id)
                {
                    continue;
                }
                count += 1;
                columns.read_values(*doc, &mut values, rows);
                columns.read_outcomes(*doc, &mut outcomes);
                let mut row = IndexRow {
                    trace: 0,
                    is_root: false,
                    selected: selected.as_ref().is_none_or(|set| set.contains(*doc)),
                    call: None,
                    span: SpanRow {
                        start_ns: document.start_ns,
                        duration_ns: document.duration_ns,
                        is_error: document.is_error,
                        values: &values,
                        outcomes: &outcomes,
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

/// Groups segments of about the same total size, one group per thread.
fn group_segments(
    readers: &[SegmentReader],
    parallel_scan: ParallelScan,
) -> Vec<Vec<&SegmentReader>> {
    let documents: u64 = readers
        .iter()
        .map(|reader| u64::from(reader.max_doc()))
        .sum();
    let threads = parallel_scan
        .max_threads
        .min(readers.len())
        .min((documents / parallel_scan.documents_per_thread.max(1)) as usize);
    let mut groups: Vec<(u32, Vec<&SegmentReader>)> = vec![(0, Vec::new()); threads.max(1)];
    let mut readers: Vec<&SegmentReader> = readers.iter().collect();
    readers.sort_by_key(|reader| std::cmp::Reverse(reader.max_doc()));
    for reader in readers {
        // Largest segment first, each to the smallest group so far.
        if let Some((size, group)) = groups.iter_mut().min_by_key(|(size, _)| *size) {
            *size += reader.max_doc();
            group.push(reader);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
