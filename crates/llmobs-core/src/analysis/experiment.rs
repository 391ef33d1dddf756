//! Analysis of experiments: assembling events from spans, statistics of metrics, and the
//! comparison of two experiments.
//!
//! Conventions: an event is one run of one dataset record. The newest metric of a label on a span
//! is used. A metric whose evaluator failed has no value. Events whose task failed are excluded
//! from statistics by default, because their evaluators saw an empty output. Percentiles
//! interpolate linearly between the two nearest values, which is the default of NumPy and pandas.
//! Every number is finite.

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
