//! Counts and figures over many spans or traces, in groups.
//!
//! What is asked is a [`AggregateRequest`], what comes out an [`Aggregation`]; both travel as JSON between
//! the client and a backend that aggregates by itself, and the client works out the same from
//! pages of spans where a backend does not. A [`SpanAggregator`] takes the spans one by one and keeps of
//! each only what the question needs. Both it and the quicker [`ColumnAggregator`] also take the [`RowAggregator`]
//! of an index, where those suffice.
//!
//! The rules, the same everywhere:
//! - A span is looked at if it starts within the window and is of the application. With unit
//!   `trace`, a trace is all such spans of one trace id; it counts if one of them answers query
//!   and tags, and is in a group if one of them has the value or answers the bucket's query.
//! - A unit with several values of a facet is in several groups; without any it is in the group
//!   with none.
//! - Tokens and costs are those of model calls (kinds `llm` and `embedding`). A call seen twice, an
//!   `llm` span below an `llm` span, counts once: the outer value if it has one.
//! - Percentiles are exact, by nearest rank: the smallest value that at least p % do not exceed.

mod durations;
mod gather;
mod group;
mod measure;
mod tally;
mod usage;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use gather::{
    ColumnAggregator, EvaluationOutcome, IndexRow, RequiredColumns, RowAggregator, SpanRow,
};
pub use measure::{EvaluationSource, EvaluationStat, Measure, MeasureError, Usage, UsageStat};
pub use tally::{ScannedSpan, SpanAggregator};
pub use usage::{CALL_METRICS, ModelCallRow};

use crate::model::TimeWindow;
use crate::query::combine::{SpanFilters, combine};

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Single spans.
    #[default]
    Span,
    /// Whole traces.
    Trace,
}

/// A named part of all units: those that answer a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name in the answer.
    pub name: String,
    /// The span query.
    pub query: String,
}

/// One thing to group by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// The values of a facet or tag, as a query names it.
    Facet(String),
    /// Named queries; a unit that answers none of them is in the group with none.
    Buckets(Vec<Bucket>),
}

impl Dimension {
    /// Its name as a key of the answer.
    pub fn name(&self) -> &str {
        match self {
            Self::Facet(name) => name,
            Self::Buckets(_) => "bucket",
        }
    }
}

/// A question for an aggregation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateRequest {
    /// The span query, beside application and tags.
    #[serde(default)]
    pub query: Option<String>,
    /// The application; spans of others are not looked at.
    #[serde(default)]
    pub ml_app: Option<String>,
    /// Tags that must all match on one span.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// Span starts looked at.
    pub window: TimeWindow,
    /// What is counted.
    #[serde(default)]
    pub unit: Unit,
    /// What to group by, at most one of them buckets.
    #[serde(default)]
    pub group_by: Vec<Dimension>,
    /// What to work out for each group, beside its count.
    #[serde(default)]
    pub measures: Vec<Measure>,
    /// Length of a time bucket in milliseconds; the first starts with the window.
    #[serde(default)]
    pub interval_ms: Option<i64>,
    /// Groups to pass over.
    #[serde(default)]
    pub offset: usize,
    /// Groups to answer.
    pub limit: usize,
}

impl AggregateRequest {
    /// The filter that narrows the spans looked at: the application.
    pub fn span_filters(&self) -> SpanFilters {
        SpanFilters {
            ml_app: self.ml_app.clone(),
            ..SpanFilters::default()
        }
    }

    /// Query and tags as one query text, without the application; `None` when all spans count.
    pub fn selection_query(&self) -> Option<String> {
        let mut filters = SpanFilters {
            tags: self.tags.clone(),
            ..SpanFilters::default()
        };
        if let Some(at) = filters.tags.iter().position(|(key, _)| key == "session_id") {
            filters.session_id = Some(filters.tags.remove(at).1);
        }
        let text = combine(self.query.as_deref(), &filters);
        (text.trim() != "*").then_some(text)
    }

    /// The buckets of the question.
    pub fn buckets(&self) -> &[Bucket] {
        let buckets = self.group_by.iter().find_map(|dimension| match dimension {
            Dimension::Buckets(buckets) => Some(buckets.as_slice()),
            Dimension::Facet(_) => None,
        });
        buckets.unwrap_or_default()
    }

    /// Whether the values to group by stand in inputs, outputs or tool definitions.
    pub fn groups_by_content(&self) -> bool {
        let parts = ["meta.input", "meta.output", "meta.tool"];
        self.group_by.iter().any(|dimension| match dimension {
            Dimension::Facet(name) => parts.iter().any(|part| name.contains(part)),
            Dimension::Buckets(_) => false,
        })
    }
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregation {
    /// The page of groups: by time, then the largest first.
    pub groups: Vec<Group>,
    /// How many groups there are.
    pub total_groups: usize,
    /// Everything together.
    pub total: MeasureValues,
    /// Spans looked at.
    pub rows_read: u64,
    /// Spans that answer the question's filters, if known.
    pub rows_matched: Option<u64>,
    /// Whether some spans were not looked at.
    pub sampled: bool,
    /// Units that are in several groups.
    pub in_several: u64,
    /// For each thing to group by: whether any unit had a value.
    pub has_values: Vec<bool>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Start of the time bucket in milliseconds since the Unix epoch.
    pub time_ms: Option<i64>,
    /// The value in each dimension; `None` where the units have none.
    pub key: Vec<Option<String>>,
    /// Its part of the units of the same time bucket whose other keys, but the last, are the same.
    pub share: Option<f64>,
    /// What was measured.
    pub figures: MeasureValues,
}

/// Measured figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasureValues {
    /// Number of units.
    pub count: u64,
    /// By name of the measure; null where nothing is known. Beside a figure that is not known of
    /// all, `known_for` says of how many it is.
    pub values: Map<String, Value>,
}
