//! Experiments as numbers: events out of spans, statistics of metrics, and the comparison of two
//! experiments.
//!
//! What counts, everywhere here: one event is one run of one dataset record. Of equal labels on one
//! span the newest counts. A metric whose evaluator failed is no value. Events whose task failed
//! are left out of the statistics unless asked for, because evaluators judge an empty output there.
//! Percentiles interpolate linearly between the two nearest values, as NumPy and pandas do by
//! default. Nothing here gives a number that is not finite.

mod assemble;
mod compare;
mod dimension;
mod inference;
mod numbers;
mod stats;

pub use assemble::{ExperimentData, assemble_events};
pub use compare::{
    BetterDirection, CompareOptions, DirectionSource, ExperimentComparison, FlipDirection,
    MetricComparison, MetricMeasure, MetricVerdict, RecordChange, RecordFlip, SegmentComparison,
    TaskFailure, UsageDifference, compare,
};
pub use dimension::{ExperimentDimension, dimension_values, dimensions};
pub use inference::{BootstrapResult, holm_correction, mcnemar_exact, paired_bootstrap};
pub use numbers::percentile;
pub use stats::{
    FieldStats, LabelInfo, MetricStats, MetricValues, ScoreStats, metric_labels, metric_stats,
};
