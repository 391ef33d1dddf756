//! Counts and measures over many spans or traces, in groups.
//!
//! The input is an [`AggregateRequest`], the output an [`Aggregation`]. Both travel as JSON between
//! the client and a backend that aggregates itself. For other backends the client computes the
//! same result from pages of spans.
//!
//! A [`SpanAggregator`] reads complete spans and answers every request. A [`ColumnAggregator`] is
//! faster, and answers most requests for single spans. Both are [`RowAggregator`]s: they also read
//! the rows of an index where its columns suffice.
//!
//! Rules that hold for every backend:
//! - A span is in scope if it starts within the window and belongs to the application. With unit
//!   `trace`, a unit is all spans in scope with one trace id. It counts if one of its spans matches
//!   query and tags, and is in a group if one of its spans has the value or matches the bucket.
//! - A unit with several values of a facet is in several groups. A unit without a value is in the
//!   group of the absent value.
//! - Tokens and costs are those of model calls (kinds `llm` and `embedding`). A call recorded
//!   twice, as an `llm` span below an `llm` span, counts once: the outer value if present.
//! - Percentiles are exact, by nearest rank: the smallest value that is greater than or equal to
//!   p % of all values.

mod columns;
mod compiled;
mod durations;
mod group_stats;
mod measure;
mod rows;
mod spans;
mod usage;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use columns::ColumnAggregator;
pub use measure::{EvaluationSource, EvaluationStat, Measure, MeasureError, Usage, UsageStat};
pub use rows::{
    CALL_METRICS, EvaluationOutcome, IndexRow, ModelCallRow, RequiredColumns, RowAggregator,
    ScannedSpan, SpanRow,
};
pub use spans::SpanAggregator;

use crate::model::TimeWindow;
use crate::query::combine::{SpanFilters, combine};

/// What an aggregation counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Single spans.
    #[default]
    Span,
    /// Traces.
    Trace,
}

/// The units that match a query, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name in the answer.
    pub name: String,
    /// The span query.
    pub query: String,
}

/// A dimension to group by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// The values of a facet or tag, named as in a query.
    Facet(String),
    /// Named queries. A unit that matches none of them is in the group of the absent value.
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

/// What to aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateRequest {
    /// The span query, in addition to application and tags.
    #[serde(default)]
    pub query: Option<String>,
    /// The application. Spans of other applications are out of scope.
    #[serde(default)]
    pub ml_app: Option<String>,
    /// Tags that must all match on one span.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// The time window for span starts.
    pub window: TimeWindow,
    /// What is counted.
    #[serde(default)]
    pub unit: Unit,
    /// Dimensions to group by; at most one of them holds buckets.
    #[serde(default)]
    pub group_by: Vec<Dimension>,
    /// Measures of each group, in addition to its count.
    #[serde(default)]
    pub measures: Vec<Measure>,
    /// Length of a time bucket in milliseconds. The first bucket starts with the window.
    #[serde(default)]
    pub interval_ms: Option<i64>,
    /// Number of groups to skip.
    #[serde(default)]
    pub offset: usize,
    /// Number of groups to return.
    pub limit: usize,
}

impl AggregateRequest {
    /// The filter that defines the scope: the application.
    pub fn span_filters(&self) -> SpanFilters {
        SpanFilters {
            ml_app: self.ml_app.clone(),
            ..SpanFilters::default()
        }
    }

    /// Query and tags as one query text, without the application; `None` if every span matches.
    pub fn selection_query(&self) -> Option<String> {
        let mut filters = SpanFilters {
            tags: self.tags.clone(),
            ..SpanFilters::default()
        };
        if let Some(index) = filters.tags.iter().position(|(key, _)| key == "session_id") {
            filters.session_id = Some(filters.tags.remove(index).1);
        }
        let text = combine(self.query.as_deref(), &filters);
        (text.trim() != "*").then_some(text)
    }

    /// The buckets to group by.
    pub fn buckets(&self) -> &[Bucket] {
        let buckets = self.group_by.iter().find_map(|dimension| match dimension {
            Dimension::Buckets(buckets) => Some(buckets.as_slice()),
            Dimension::Facet(_) => None,
        });
        buckets.unwrap_or_default()
    }

    /// Whether a facet to group by is in inputs, outputs or tool definitions.
    pub fn groups_by_content(&self) -> bool {
        let content_fields = ["meta.input", "meta.output", "meta.tool"];
        self.group_by.iter().any(|dimension| match dimension {
            Dimension::Facet(name) => content_fields.iter().any(|field| name.contains(field)),
            Dimension::Buckets(_) => false,
        })
    }
}

/// The result of an aggregation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregation {
    /// One page of groups: by time bucket, then by descending count.
    pub groups: Vec<Group>,
    /// Number of groups on all pages.
    pub total_groups: usize,
    /// The measures of all units together.
    pub total: MeasureValues,
    /// Number of spans read.
    pub rows_read: u64,
    /// Number of spans that match the request, if known.
    pub rows_matched: Option<u64>,
    /// Whether some spans in scope were not read.
    pub sampled: bool,
    /// Number of units that are in several groups.
    #[serde(rename = "in_several")]
    pub units_in_several_groups: u64,
    /// For each dimension, whether any unit has a value.
    pub has_values: Vec<bool>,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Start of the time bucket in milliseconds since the Unix epoch.
    pub time_ms: Option<i64>,
    /// The value in each dimension; `None` for the group of the absent value.
    pub key: Vec<Option<String>>,
    /// Its fraction of the units in the same time bucket with the same keys except the last.
    pub share: Option<f64>,
    /// Its count and measures.
    #[serde(rename = "figures")]
    pub measured: MeasureValues,
}

/// The count and the measures of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasureValues {
    /// Number of units.
    pub count: u64,
    /// Values by name of the measure; null if unknown. If a measure is known for some of the units
    /// or calls only, the key `<source>.known_for` says for how many.
    pub values: Map<String, Value>,
}
