//! Aggregation from columns: no row is read but those that changed since.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::Connection;
use tantivy::columnar::{Column, ColumnValues, StrColumn};
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query as EngineQuery, Weight};
use tantivy::{BitSet, DocSet as _, TERMINATED};

use super::View;
use super::changes::{Made, since};
use super::compile::{compile, number_columns, occurs};
use super::schema::{
    CALL, CALL_PARENT, DURATION, FAILED, GROUPS, ID, NUMBERS, ROOT, START, TRACE, column_name,
};
use crate::analysis::aggregate::{
    CALL_METRICS, CallRow, Judge, RelatedRow, Rows, Seen, SpanRow, Verdict,
};
use crate::local::store::Search;
use crate::local::store::sqlite::ReadError;
use crate::model::{EventKind, Span, SpanKind};
use crate::query::combine::SpanFilters;
use crate::query::index::{Plan, group_columns, metric_column, plan, verdict_columns};
use crate::query::{Expr, Field, Pattern, Query, SpanContext, Term};

/// A value that has no number yet.
const UNNUMBERED: u32 = u32::MAX;

/// Gives all spans of a search to an aggregation, and says how many those were. `None`: the
/// question cannot be answered from columns, and nothing was given.
pub(in crate::local::store) fn gather(
    connection: &Connection,
    view: &Arc<View>,
    search: &Search,
    buckets: &[Query],
    load: impl Fn(i64, i64) -> Result<Arc<Span>, ReadError>,
    rows: &mut dyn Rows,
) -> Result<Option<u64>, ReadError> {
    let Some(question) = Question::of(view, search, buckets, rows) else {
        return Ok(None);
    };
    let Some(changes) = since(connection, &view.searcher, &view.fields, view.seq)? else {
        return Ok(None);
    };
    // A span that was new when it changed is not in the index.
    let changed = changes.spans.iter();
    let changed = changed.filter(|(_, change)| change.made == Made::Before);
    let changed: HashSet<i64> = changed.map(|(id, _)| *id).collect();
    let mut count = 0;
    for reader in view.searcher.segment_readers() {
        count += question.read(reader, &changed, rows)?;
    }
    for (id, change) in &changes.spans {
        let span = match load(*id, change.seq) {
            Ok(span) => span,
            Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => continue,
            Err(error) => return Err(error),
        };
        let selected = question.selects(&span);
        if selected || question.every_span && question.scopes(&span) {
            let in_buckets = buckets.iter().enumerate();
            let in_buckets = in_buckets.filter(|(_, query)| query.matches(&SpanContext::of(&span)));
            rows.add_span(Seen {
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
    fn of(view: &View, search: &'a Search, buckets: &[Query], rows: &dyn Rows) -> Option<Self> {
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
            Some(part) => plan(part, &known),
            None => Plan::everything(),
        };
        let scope = plan_of(app.as_ref());
        let query = search.query.as_ref().map(|query| &query.root);
        let selection = scope.clone().and(plan_of(query));
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
        for field in rows.fields() {
            dimensions.push(match field {
                None => None,
                Some(field) => Some(group_columns(field, &known)?.map(|name| path(GROUPS, &name))),
            });
        }
        let labels = rows.labels().iter().map(|(judge, label)| {
            let kind = match judge {
                Judge::Evaluation => EventKind::Evaluation,
                Judge::Feedback => EventKind::Feedback,
            };
            verdict_columns(kind, label).map(|name| path(NUMBERS, &name))
        });
        let every_span = rows.needs_every_span();
        Some(Self {
            search,
            app,
            scope: weigh(if every_span { &scope } else { &selection })?,
            selection: match query {
                Some(_) if every_span => Some(weigh(&selection)?),
                _ => None,
            },
            every_span,
            relations: rows.needs_relations(),
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
            && app.is_none_or(|app| app.matches(&SpanContext::of(span)))
    }

    /// Whether a span that was read is one of those asked for.
    fn selects(&self, span: &Span) -> bool {
        let query = self.search.query.as_ref();
        self.scopes(span) && query.is_none_or(|query| query.matches(&SpanContext::of(span)))
    }

    /// Gives the spans of one segment, but those that changed; how many those were.
    fn read(
        &self,
        reader: &SegmentReader,
        changed: &HashSet<i64>,
        rows: &mut dyn Rows,
    ) -> Result<u64, ReadError> {
        let mut columns = Columns::open(self, reader)?;
        let (first_ns, last_ns) = (columns.start.min_value(), columns.start.max_value());
        if last_ns < self.from_ns || first_ns > self.to_ns {
            return Ok(0);
        }
        let within = first_ns >= self.from_ns && last_ns <= self.to_ns;
        let needed = Needed {
            starts: !within || rows.needs_starts(),
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
        let mut verdicts = vec![Verdict::default(); self.labels.len()];
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
                let mut row = RelatedRow {
                    trace: 0,
                    is_root: false,
                    selected: selected.as_ref().is_none_or(|set| set.contains(*doc)),
                    call: None,
                    span: SpanRow {
                        start_ns: own.start_ns,
                        duration_ns: own.duration_ns,
                        is_error: own.is_error,
                        values: &values,
                        verdicts: &verdicts,
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

/// What of a document must be read.
#[derive(Clone, Copy)]
struct Needed {
    starts: bool,
    /// Stands for all starts if they are not needed.
    any_start_ns: i64,
    ids: bool,
}

/// A block of documents, read column by column.
#[derive(Default)]
struct Block {
    starts: Vec<i64>,
    durations: Vec<i64>,
    failed: Vec<bool>,
    ids: Vec<i64>,
}

/// What stands in the columns that all documents have.
struct Own {
    start_ns: i64,
    duration_ns: i64,
    is_error: bool,
    /// 0 if it is not needed.
    id: i64,
}

impl Block {
    fn read(&mut self, columns: &Columns, docs: &[u32], needed: Needed) {
        fn fill<T: Copy + Default + PartialOrd + 'static>(
            to: &mut Vec<T>,
            column: &dyn ColumnValues<T>,
            docs: &[u32],
        ) {
            to.resize(docs.len(), T::default());
            column.get_vals(docs, to);
        }
        fill(&mut self.durations, &*columns.duration, docs);
        fill(&mut self.failed, &*columns.failed, docs);
        if needed.starts {
            fill(&mut self.starts, &*columns.start, docs);
        } else {
            self.starts.resize(docs.len(), needed.any_start_ns);
        }
        if needed.ids {
            fill(&mut self.ids, &*columns.id, docs);
        } else {
            self.ids.resize(docs.len(), 0);
        }
    }

    fn rows(&self) -> impl Iterator<Item = Own> + '_ {
        let spans = self.starts.iter().zip(&self.durations);
        let spans = spans.zip(&self.failed).zip(&self.ids);
        spans.map(|(((start, duration), failed), id)| Own {
            start_ns: *start,
            duration_ns: *duration,
            is_error: *failed,
            id: *id,
        })
    }
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

    fn put_values(&mut self, doc: u32, values: &mut [Vec<u32>], rows: &mut dyn Rows) {
        for (dimension, values) in self.dimensions.iter_mut().zip(values) {
            values.clear();
            match dimension {
                Dimension::Facet(columns) => {
                    for (column, numbers) in columns {
                        for ordinal in column.term_ords(doc) {
                            let number =
                                number_of(column, numbers, ordinal, |text| rows.number(text));
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

/// A number of a value, asked for once for each value of a segment.
fn number_of(
    column: &StrColumn,
    numbers: &mut [u32],
    ordinal: u64,
    number: impl FnOnce(&str) -> u32,
) -> u32 {
    let slot = usize::try_from(ordinal)
        .ok()
        .and_then(|at| numbers.get_mut(at));
    match slot {
        Some(slot) if *slot != UNNUMBERED => *slot,
        slot => {
            let mut text = String::new();
            read_text(column, ordinal, &mut text);
            let number = number(&text);
            if let Some(slot) = slot {
                *slot = number;
            }
            number
        }
    }
}

/// The text of a value; empty if it cannot be read, which no value is.
fn read_text(column: &StrColumn, ordinal: u64, text: &mut String) {
    if !matches!(column.ord_to_str(ordinal, text), Ok(true)) {
        tracing::warn!("a value in the index of the local store cannot be read");
        text.clear();
    }
}

/// The columns of one segment that tell traces and calls apart.
struct Relations {
    root: Arc<dyn ColumnValues<bool>>,
    traces: Option<(StrColumn, Vec<u32>)>,
    calls: Option<StrColumn>,
    parents: Option<StrColumn>,
    kinds: Option<StrColumn>,
    metrics: [Vec<Column<f64>>; 5],
    trace: u32,
    span_id: String,
    parent_id: Option<String>,
    is_llm: bool,
    values: [Option<f64>; 5],
}

impl Relations {
    fn open(reader: &SegmentReader) -> Result<Self, ReadError> {
        let fast = reader.fast_fields();
        let [mut input, mut output, mut total, mut estimated, mut cost] = [const { Vec::new() }; 5];
        let slots = [
            &mut input,
            &mut output,
            &mut total,
            &mut estimated,
            &mut cost,
        ];
        for (slot, name) in slots.into_iter().zip(CALL_METRICS) {
            *slot = number_columns(reader, &path(NUMBERS, &metric_column(name)))?;
        }
        let traces = fast.str(TRACE)?;
        Ok(Self {
            root: fast.column_first_or_default(ROOT)?,
            traces: traces.map(|column| {
                let numbers = vec![UNNUMBERED; column.num_terms()];
                (column, numbers)
            }),
            calls: fast.str(CALL)?,
            parents: fast.str(CALL_PARENT)?,
            kinds: fast.str(&path(GROUPS, "meta.span.kind"))?,
            metrics: [input, output, total, estimated, cost],
            trace: 0,
            span_id: String::new(),
            parent_id: None,
            is_llm: false,
            values: [None; 5],
        })
    }

    /// Reads a document; whether it is a call.
    fn read(&mut self, doc: u32, rows: &mut dyn Rows) -> bool {
        self.trace = match &mut self.traces {
            Some((column, numbers)) => match column.ords().first(doc) {
                Some(ordinal) => number_of(column, numbers, ordinal, |id| rows.trace_number(id)),
                None => UNNUMBERED,
            },
            None => UNNUMBERED,
        };
        let Some((column, ordinal)) = first_of(self.calls.as_ref(), doc) else {
            return false;
        };
        read_text(column, ordinal, &mut self.span_id);
        self.parent_id = first_of(self.parents.as_ref(), doc).map(|(column, ordinal)| {
            let mut text = String::new();
            read_text(column, ordinal, &mut text);
            text
        });
        let mut kind = String::new();
        if let Some((column, ordinal)) = first_of(self.kinds.as_ref(), doc) {
            read_text(column, ordinal, &mut kind);
        }
        self.is_llm = kind == SpanKind::Llm.as_str();
        for (value, columns) in self.values.iter_mut().zip(&self.metrics) {
            *value = columns.iter().find_map(|column| column.first(doc));
        }
        true
    }

    /// The call that was read last.
    fn call(&self) -> CallRow<'_> {
        CallRow {
            span_id: &self.span_id,
            parent_id: self.parent_id.as_deref(),
            is_llm: self.is_llm,
            metrics: self.values,
        }
    }
}

fn first_of(column: Option<&StrColumn>, doc: u32) -> Option<(&StrColumn, u64)> {
    let column = column?;
    Some((column, column.ords().first(doc)?))
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
