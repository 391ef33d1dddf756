//! The columns of a segment, as an aggregation reads them.

use std::sync::Arc;

use tantivy::columnar::{Column, ColumnValues, StrColumn};
use tantivy::index::SegmentReader;
use tantivy::query::Weight;
use tantivy::{BitSet, DocSet as _, TERMINATED};

use super::super::compile::number_columns;
use super::super::schema::{
    CALL, CALL_PARENT, DURATION, FAILED, GROUPS, ID, NUMBERS, ROOT, START, TRACE, column_name,
};
use super::Question;
use super::in_order::InOrder;
use crate::store::sqlite::ReadError;
use llmobs_core::analysis::aggregate::{
    CALL_METRICS, EvaluationOutcome, ModelCallRow, RowAggregator,
};
use llmobs_core::model::SpanKind;
use llmobs_core::query::index::metric_column;

/// A value that has no number yet.
const UNNUMBERED: u32 = u32::MAX;

/// The columns of one segment that a question needs.
pub(super) struct Columns {
    pub(super) id: Arc<dyn ColumnValues<i64>>,
    pub(super) start: Arc<dyn ColumnValues<i64>>,
    pub(super) duration: Arc<dyn ColumnValues<i64>>,
    pub(super) failed: Arc<dyn ColumnValues<bool>>,
    dimensions: Vec<Dimension>,
    labels: Vec<[Vec<Numbers>; 2]>,
}

/// What of a document must be read.
#[derive(Clone, Copy)]
pub(super) struct Needed {
    pub(super) starts: bool,
    /// Stands for all starts if they are not needed.
    pub(super) any_start_ns: i64,
    pub(super) ids: bool,
}

/// A block of documents, read column by column.
#[derive(Default)]
pub(super) struct Block {
    starts: Vec<i64>,
    durations: Vec<i64>,
    failed: Vec<bool>,
    ids: Vec<i64>,
}

/// What stands in the columns that all documents have.
pub(super) struct Own {
    pub(super) start_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) is_error: bool,
    /// 0 if it is not needed.
    pub(super) id: i64,
}

impl Block {
    pub(super) fn read(&mut self, columns: &Columns, docs: &[u32], needed: Needed) {
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

    pub(super) fn rows(&self) -> impl Iterator<Item = Own> + '_ {
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
    /// The values of a facet.
    Facet(Vec<Texts>),
    /// The documents of each bucket.
    Buckets(Vec<BitSet>),
}

/// A column of texts.
struct Texts {
    column: StrColumn,
    /// The numbers of the texts met so far.
    numbers: Vec<u32>,
    /// Its ordinals, if all documents are read.
    in_order: Option<InOrder<u64>>,
}

/// A column of numbers.
struct Numbers {
    column: Column<f64>,
    /// The same, if all documents are read.
    in_order: Option<InOrder<f64>>,
}

impl Texts {
    /// Puts the numbers of the values of a document, each once.
    fn put(&mut self, doc: u32, values: &mut Vec<u32>, rows: &mut dyn RowAggregator) {
        let (column, numbers) = (&self.column, &mut self.numbers);
        let put = |ordinal| {
            let number = number_of(column, numbers, ordinal, |text| rows.value_number(text));
            if !values.contains(&number) {
                values.push(number);
            }
        };
        match &mut self.in_order {
            Some(in_order) => in_order.value(doc).into_iter().for_each(put),
            None => column.term_ords(doc).for_each(put),
        }
    }
}

impl Numbers {
    fn all_of(reader: &SegmentReader, path: &str, in_order: bool) -> Result<Vec<Self>, ReadError> {
        let columns = number_columns(reader, path)?.into_iter();
        let columns = columns.map(|column| Self {
            in_order: in_order.then(|| InOrder::of(&column)).flatten(),
            column,
        });
        Ok(columns.collect())
    }

    fn first(&mut self, doc: u32) -> Option<f64> {
        match &mut self.in_order {
            Some(in_order) => in_order.value(doc),
            None => self.column.first(doc),
        }
    }
}

impl Columns {
    /// `in_order`: all documents will be asked for, one after the other.
    pub(super) fn open(
        question: &Question<'_>,
        reader: &SegmentReader,
        in_order: bool,
    ) -> Result<Self, ReadError> {
        let fast = reader.fast_fields();
        let mut dimensions = Vec::new();
        for columns in &question.dimensions {
            dimensions.push(match columns {
                Some(paths) => {
                    let mut columns = Vec::new();
                    for path in paths {
                        if let Some(column) = fast.str(path)? {
                            let ordinals = in_order.then(|| InOrder::of(column.ords()));
                            columns.push(Texts {
                                numbers: vec![UNNUMBERED; column.num_terms()],
                                in_order: ordinals.flatten(),
                                column,
                            });
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
                Numbers::all_of(reader, score, in_order)?,
                Numbers::all_of(reader, passed, in_order)?,
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

    pub(super) fn put_values(
        &mut self,
        doc: u32,
        values: &mut [Vec<u32>],
        rows: &mut dyn RowAggregator,
    ) {
        for (dimension, values) in self.dimensions.iter_mut().zip(values) {
            values.clear();
            match dimension {
                Dimension::Facet(columns) => {
                    for texts in columns {
                        texts.put(doc, values, rows);
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

    pub(super) fn put_verdicts(&mut self, doc: u32, verdicts: &mut [EvaluationOutcome]) {
        let first = |columns: &mut [Numbers]| columns.iter_mut().find_map(|all| all.first(doc));
        for ([score, passed], verdict) in self.labels.iter_mut().zip(verdicts) {
            *verdict = EvaluationOutcome {
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
pub(super) struct Relations {
    pub(super) root: Arc<dyn ColumnValues<bool>>,
    traces: Option<(StrColumn, Vec<u32>)>,
    calls: Option<StrColumn>,
    parents: Option<StrColumn>,
    kinds: Option<StrColumn>,
    metrics: [Vec<Column<f64>>; 5],
    pub(super) trace: u32,
    span_id: String,
    parent_id: Option<String>,
    is_llm: bool,
    values: [Option<f64>; 5],
}

impl Relations {
    pub(super) fn open(reader: &SegmentReader) -> Result<Self, ReadError> {
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
    pub(super) fn read(&mut self, doc: u32, rows: &mut dyn RowAggregator) -> bool {
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
    pub(super) fn call(&self) -> ModelCallRow<'_> {
        ModelCallRow {
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

/// When the first and the last span of a segment start.
pub(super) fn first_and_last_start(reader: &SegmentReader) -> Result<(i64, i64), ReadError> {
    let starts = reader.fast_fields().column_first_or_default::<i64>(START)?;
    Ok((starts.min_value(), starts.max_value()))
}

/// The documents that a query finds in a segment.
pub(super) fn members(query: &dyn Weight, reader: &SegmentReader) -> Result<BitSet, ReadError> {
    let mut set = BitSet::with_max_value(reader.max_doc());
    let mut scorer = query.scorer(reader, 1.0)?;
    let mut doc = scorer.doc();
    while doc != TERMINATED {
        set.insert(doc);
        doc = scorer.advance();
    }
    Ok(set)
}

/// The name of a column within a field of columns, as the engine knows it.
pub(super) fn path(field: &str, name: &str) -> String {
    format!("{field}.{}", column_name(name))
}
