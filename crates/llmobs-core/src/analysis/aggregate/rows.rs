//! What aggregations read: complete spans, or rows of an index.

use super::measure::EvaluationSource;
use crate::model::{Assessment, Evaluation, Span, SpanKind};
use crate::query::Field;

/// A span in scope, with the parts of the request that it matches.
#[derive(Debug, Clone, Copy)]
pub struct ScannedSpan<'a> {
    /// The span.
    pub span: &'a Span,
    /// Whether it matches the query and tags of the request.
    pub selected: bool,
    /// The buckets that it matches: bit n for the bucket at index n.
    pub buckets: u32,
}

/// A span as a row of an index.
#[derive(Debug, Clone, Copy)]
pub struct SpanRow<'a> {
    /// Start in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Whether its status is `error`.
    pub is_error: bool,
    /// Its distinct values in each dimension, by [`RowAggregator::value_number`]; for buckets,
    /// their index in the request.
    pub values: &'a [Vec<u32>],
    /// The outcome for each label, in the order of [`RowAggregator::labels`].
    pub outcomes: &'a [EvaluationOutcome],
}

/// A span as a row of an index, with its relation to other spans of its trace.
#[derive(Debug, Clone, Copy)]
pub struct IndexRow<'a> {
    /// Its trace, by [`RowAggregator::trace_number`].
    pub trace: u32,
    /// Whether it is a root span.
    pub is_root: bool,
    /// Whether it matches the query and tags of the request.
    pub selected: bool,
    /// The model call, if the span is one and [`RequiredColumns::relations`] is set.
    pub call: Option<ModelCallRow<'a>>,
    /// The other columns.
    pub span: SpanRow<'a>,
}

/// A model call as a row of an index.
#[derive(Debug, Clone, Copy)]
pub struct ModelCallRow<'a> {
    /// The span's id.
    pub span_id: &'a str,
    /// Its parent's id.
    pub parent_id: Option<&'a str>,
    /// Whether the span kind is `llm`; the other kind of model call is `embedding`.
    pub is_llm: bool,
    /// Its metrics, in the order of [`CALL_METRICS`].
    pub metrics: [Option<f64>; 5],
}

/// The metrics that tokens and cost are read from.
pub const CALL_METRICS: [&str; 5] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "estimated_total_cost",
    "total_cost",
];

impl<'a> ModelCallRow<'a> {
    /// The model call of a span, if it is one.
    pub(super) fn from_span(span: &'a Span) -> Option<Self> {
        let is_llm = match span.kind {
            SpanKind::Llm => true,
            SpanKind::Embedding => false,
            _ => return None,
        };
        Some(Self {
            span_id: span.span_id.as_str(),
            parent_id: span.parent_id.as_ref().map(|id| id.as_str()),
            is_llm,
            metrics: CALL_METRICS.map(|name| span.metric(name)),
        })
    }
}

/// The evaluation of a unit by one label.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EvaluationOutcome {
    /// The score, if the value is a number or boolean: true is 1, false is 0.
    pub score: Option<f64>,
    /// Whether the assessment is `pass`, if there is one.
    pub passed: Option<bool>,
}

impl From<&Evaluation> for EvaluationOutcome {
    fn from(evaluation: &Evaluation) -> Self {
        Self {
            score: evaluation.score(),
            passed: evaluation
                .assessment
                .map(|assessment| assessment == Assessment::Pass),
        }
    }
}

/// What an aggregation reads of each row, in addition to its values and outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequiredColumns {
    /// Whether spans must carry their evaluations and feedback.
    pub evaluations: bool,
    /// Whether start times count. If not, [`SpanRow::start_ns`] may be any time in the window.
    pub starts: bool,
    /// Whether trace, root flag and model call of an [`IndexRow`] are read.
    pub relations: bool,
    /// Whether spans in scope that do not match query and tags are read, too.
    pub unselected: bool,
}

/// An aggregation that reads the rows of an index.
pub trait RowAggregator {
    /// The fields to group by; `None` marks the request's buckets.
    fn fields(&self) -> &[Option<Field>];

    /// The labels whose outcomes are read.
    fn labels(&self) -> &[(EvaluationSource, String)];

    /// What is read of each row.
    fn required_columns(&self) -> RequiredColumns;

    /// The number of a facet value. Equal texts have equal numbers.
    fn value_number(&mut self, text: &str) -> u32;

    /// The number of a trace id. Equal ids have equal numbers.
    fn trace_number(&mut self, id: &str) -> u32;

    /// Adds `count` partial aggregations, to be filled on other threads. Their rows count as rows
    /// of this aggregation. Returns none if this aggregation must read all rows itself.
    fn partitions(&mut self, _count: usize) -> Vec<&mut (dyn RowAggregator + Send)> {
        Vec::new()
    }

    /// Adds a row of the index.
    fn add_row(&mut self, row: IndexRow<'_>);

    /// Adds a span that the index does not hold.
    fn add_span(&mut self, scanned: ScannedSpan<'_>);
}
