//! The columns of a segment that an aggregation reads.

use std::sync::Arc;

use tantivy::columnar::{Column, ColumnValues, StrColumn};
use tantivy::index::SegmentReader;
use tantivy::query::Weight;
use tantivy::{BitSet, DocSet as _, TERMINATED};

use super::super::compile::number_columns;
use super::super::schema::{
    CALL, CALL_PARENT, DURATION, FAILED, GROUPS, ID, NUMBERS, ROOT, START, TRACE, column_name,
};
use super::sequential::SequentialColumn;
use crate::store::rows::ReadError;
use llmobs_core::analysis::aggregate::{
    CALL_METRICS, EvaluationOutcome, ModelCallRow, RowAggregator,
};
use llmobs_core::model::SpanKind;
use llmobs_core::query::index::metric_column;

/// Marks a value without a number.
const UNNUMBERED: u32 = u32::MAX;

/// The columns that an aggregation reads.
pub(super) struct ColumnPaths {
    /// Selects the documents of each bucket.
    pub(super) buckets: Vec<Box<dyn Weight>>,
    /// Columns of each dimension; `None` is the dimension of the buckets.
    pub(super) dimensions: Vec<Option<[String; 2]>>,
    /// Columns of score and assessment of each label.
    pub(super) labels: Vec<[String; 2]>,
}

/// The open columns of one segment.
pub(super) struct SegmentColumns {
    id: Arc<dyn ColumnValues<i64>>,
    start: Arc<dyn ColumnValues<i64>>,
    duration: Arc<dyn ColumnValues<i64>>,
    failed: Arc<dyn ColumnValues<bool>>,
    dimensions: Vec<DimensionColumns>,
    labels: Vec<[Vec<NumberColumn>; 2]>,
}

/// The columns that must be read for each document.
#[derive(Clone, Copy)]
pub(super) struct RequiredColumns {
    pub(super) starts: bool,
    /// The value of all starts if they are not read.
    pub(super) any_start_ns: i64,
    pub(super) ids: bool,
}

/// A block of documents, read column by column.
#[derive(Default)]
pub(super) struct DocumentBlock {
    starts: Vec<i64>,
    durations: Vec<i64>,
    failed: Vec<bool>,
    ids: Vec<i64>,
}

/// The values of the columns that all documents have.
pub(super) struct DocumentColumns {
    pub(super) start_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) is_error: bool,
    /// 0 if ids are not read.
    pub(super) id: i64,
}

impl DocumentBlock {
    pub(super) fn read(
        &mut self,
        columns: &SegmentColumns,
        docs: &[u32],
        required: RequiredColumns,
    ) {
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
        if required.starts {
            fill(&mut self.starts, &*columns.start, docs);
        } else {
            self.starts.resize(docs.len(), required.any_start_ns);
        }
        if required.ids {
            fill(&mut self.ids, &*columns.id, docs);
        } else {
            self.ids.resize(docs.len(), 0);
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = DocumentColumns> + '_ {
        let spans = self.starts.iter().zip(&self.durations);
        let spans = spans.zip(&self.failed).zip(&self.ids);
        spans.map(|(((start, duration), failed), id)| DocumentColumns {
            start_ns: *start,
            duration_ns: *duration,
            is_error: *failed,
            id: *id,
        })
    }
}

enum DimensionColumns {
    /// The values of a facet.
    Facet(Vec<TextColumn>),
    /// The documents of each bucket.
    Buckets(Vec<BitSet>),
}

/// A column of texts.
struct TextColumn {
    column: StrColumn,
    /// The numbers of the texts read so far, by ordinal.
    numbers: Vec<u32>,
    /// The ordinals, if all documents are read.
    sequential: Option<SequentialColumn<u64>>,
}

/// A column of numbers.
struct NumberColumn {
    column: Column<f64>,
    /// The values, if all documents are read.
    sequential: Option<SequentialColumn<f64>>,
}

impl TextColumn {
    /// Adds the numbers of the values of a document, each once.
    fn add_values(&mut self, doc: u32, values: &mut Vec<u32>, rows: &mut dyn RowAggregator) {
        let (column, numbers) = (&self.column, &mut self.numbers);
        let mut add = |ordinal| {
            let number = value_number(column, numbers, ordinal, |text| rows.value_number(text));
            if !values.contains(&number) {
                values.push(number);
            }
        };
        match &mut self.sequential {
            Some(sequential) => sequential.value(doc).into_iter().for_each(&mut add),
            None => column.term_ords(doc).for_each(&mut add),
        }
    }
}

impl NumberColumn {
    /// The columns of a path.
    fn open_all(
        reader: &SegmentReader,
        path: &str,
        sequential: bool,
    ) -> Result<Vec<Self>, ReadError> {
        let columns = number_columns(reader, path)?.into_iter();
        let columns = columns.map(|column| Self {
            sequential: sequential
                .then(|| SequentialColumn::decode(&column))
                .flatten(),
            column,
        });
        Ok(columns.collect())
    }

    fn first(&mut self, doc: u32) -> Option<f64> {
        match &mut self.sequential {
            Some(sequential) => sequential.value(doc),
            None => self.column.first(doc),
        }
    }
}

impl SegmentColumns {
    /// Opens the columns. `sequential` means that all documents will be read in order.
    pub(super) fn open(
        paths: &ColumnPaths,
        reader: &SegmentReader,
        sequential: bool,
    ) -> Result<Self, ReadError> {
        let fast = reader.fast_fields();
        let mut dimensions = Vec::new();
        for dimension in &paths.dimensions {
            dimensions.push(match dimension {
                Some(paths) => {
                    let mut columns = Vec::new();
                    for path in paths {
                        if let Some(column) = fast.str(path)? {
                            let ordinals =
                                sequential.then(|| SequentialColumn::decode(column.ords()));
                            columns.push(TextColumn {
                                numbers: vec![UNNUMBERED; column.num_terms()],
                                sequential: ordinals.flatten(),
                                column,
                            });
                        }
                    }
                    DimensionColumns::Facet(columns)
                }
                None => {
                    let sets = paths
                        .buckets
                        .iter()
                        .map(|bucket| matching_documents(&**bucket, reader));
                    DimensionColumns::Buckets(sets.collect::<Result<_, _>>()?)
                }
            });
        }
        let mut labels = Vec::new();
        for [score, passed] in &paths.labels {
            labels.push([
                NumberColumn::open_all(reader, score, sequential)?,
                NumberColumn::open_all(reader, passed, sequential)?,
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

    /// Reads the values of all dimensions of a document.
    pub(super) fn read_values(
        &mut self,
        doc: u32,
        values: &mut [Vec<u32>],
        rows: &mut dyn RowAggregator,
    ) {
        for (dimension, values) in self.dimensions.iter_mut().zip(values) {
            values.clear();
            match dimension {
                DimensionColumns::Facet(columns) => {
                    for column in columns {
                        column.add_values(doc, values, rows);
                    }
                }
                DimensionColumns::Buckets(sets) => values.extend(
                    (0_u32..)
                        .zip(sets)
                        .filter(|(_, set)| set.contains(doc))
                        .map(|(bucket, _)| bucket),
                ),
            }
        }
    }

    /// Reads score and assessment of all labels of a document.
    pub(super) fn read_outcomes(&mut self, doc: u32, outcomes: &mut [EvaluationOutcome]) {
        let first =
            |columns: &mut [NumberColumn]| columns.iter_mut().find_map(|column| column.first(doc));
        for ([score, passed], outcome) in self.labels.iter_mut().zip(outcomes) {
            *outcome = EvaluationOutcome {
                score: first(score),
                passed: first(passed).map(|passed| passed > 0.5),
            };
        }
    }
}

/// The number of a value. `number` is called once for each value of a segment.
fn value_number(
    column: &StrColumn,
    numbers: &mut [u32],
    ordinal: u64,
    number: impl FnOnce(&str) -> u32,
) -> u32 {
    let slot = usize::try_from(ordinal)
        .ok()
        .and_then(|index| numbers.get_mut(index));
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

/// Reads the text of a value. The text is empty when it cannot be read; no stored value is empty.
fn read_text(column: &StrColumn, ordinal: u64, text: &mut String) {
    if !matches!(column.ord_to_str(ordinal, text), Ok(true)) {
        tracing::warn!("a value in the search index of the local store cannot be read");
        text.clear();
    }
}

/// The columns of one segment that identify traces and model calls.
pub(super) struct RelationColumns {
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

impl RelationColumns {
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
            *slot = number_columns(reader, &column_path(NUMBERS, &metric_column(name)))?;
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
            kinds: fast.str(&column_path(GROUPS, "meta.span.kind"))?,
            metrics: [input, output, total, estimated, cost],
            trace: 0,
            span_id: String::new(),
            parent_id: None,
            is_llm: false,
            values: [None; 5],
        })
    }

    /// Reads a document. Returns whether it is a model call.
    pub(super) fn read(&mut self, doc: u32, rows: &mut dyn RowAggregator) -> bool {
        self.trace = match &mut self.traces {
            Some((column, numbers)) => match column.ords().first(doc) {
                Some(ordinal) => value_number(column, numbers, ordinal, |id| rows.trace_number(id)),
                None => UNNUMBERED,
            },
            None => UNNUMBERED,
        };
        let Some((column, ordinal)) = first_ordinal(self.calls.as_ref(), doc) else {
            return false;
        };
        read_text(column, ordinal, &mut self.span_id);
        self.parent_id = first_ordinal(self.parents.as_ref(), doc).map(|(column, ordinal)| {
            let mut text = String::new();
            read_text(column, ordinal, &mut text);
            text
        });
        let mut kind = String::new();
        if let Some((column, ordinal)) = first_ordinal(self.kinds.as_ref(), doc) {
            read_text(column, ordinal, &mut kind);
        }
        self.is_llm = kind == SpanKind::Llm.as_str();
        for (value, columns) in self.values.iter_mut().zip(&self.metrics) {
            *value = columns.iter().find_map(|column| column.first(doc));
        }
        true
    }

    /// The model call that was read last.
    pub(super) fn call(&self) -> ModelCallRow<'_> {
        ModelCallRow {
            span_id: &self.span_id,
            parent_id: self.parent_id.as_deref(),
            is_llm: self.is_llm,
            metrics: self.values,
        }
    }
}

fn first_ordinal(column: Option<&StrColumn>, doc: u32) -> Option<(&StrColumn, u64)> {
    let column = column?;
    Some((column, column.ords().first(doc)?))
}

/// The first and the last start of the spans of a segment.
pub(super) fn start_bounds(reader: &SegmentReader) -> Result<(i64, i64), ReadError> {
    let starts = reader.fast_fields().column_first_or_default::<i64>(START)?;
    Ok((starts.min_value(), starts.max_value()))
}

/// The documents of a segment that match a query.
pub(super) fn matching_documents(
    query: &dyn Weight,
    reader: &SegmentReader,
) -> Result<BitSet, ReadError> {
    let mut set = BitSet::with_max_value(reader.max_doc());
    let mut scorer = query.scorer(reader, 1.0)?;
    let mut doc = scorer.doc();
    while doc != TERMINATED {
        set.insert(doc);
        doc = scorer.advance();
    }
    Ok(set)
}

/// The path of a column in a field of columns, in tantivy's notation.
pub(super) fn column_path(field: &str, name: &str) -> String {
    format!("{field}.{}", column_name(name))
}
