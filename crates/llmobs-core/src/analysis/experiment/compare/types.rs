//! The options and the result of a comparison.

use crate::model::{MetricType, SpanId};

/// Options of a comparison.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompareOptions<'a> {
    /// The metrics to compare; all metrics of both experiments when empty.
    pub labels: &'a [String],
    /// Metrics for which lower is better, regardless of their assessments.
    pub lower_is_better: &'a [String],
    /// The dimension by which to divide records; the worst segments of all dimensions when absent.
    pub segment_by: Option<&'a str>,
    /// Whether runs whose task failed count.
    pub include_failed: bool,
}

/// The conclusion about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricVerdict {
    /// Significantly better.
    Improved,
    /// Significantly worse.
    Regressed,
    /// No significant difference. This does not prove that nothing changed.
    NoClearChange,
    /// Too few records for any significant difference.
    TooFewRecords,
}

impl MetricVerdict {
    /// The verdict as shown in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Improved => "improved",
            Self::Regressed => "regressed",
            Self::NoClearChange => "no clear change",
            Self::TooFewRecords => "too few records",
        }
    }
}

/// Whether a higher or a lower value is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetterDirection {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
}

/// The source of a metric's [`BetterDirection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectionSource {
    /// The default: higher is better.
    Assumed,
    /// The mean of passed values compared with the mean of failed values.
    Assessments,
    /// The caller's options.
    Argument,
}

/// The compared quantity of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricMeasure {
    /// The mean of numbers.
    Mean,
    /// The rate of true.
    TrueRate,
    /// The pass rate.
    PassRate,
    /// None: categories and objects without criteria have no order.
    Unordered,
}

/// The comparison of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricComparison {
    /// Name of the metric.
    pub label: String,
    /// Type of the metric.
    pub metric_type: MetricType,
    /// The compared quantity.
    pub measure: MetricMeasure,
    /// Whether higher or lower is better.
    pub direction: BetterDirection,
    /// The source of `direction`.
    pub direction_source: DirectionSource,
    /// Number of records with a value in both experiments. All other fields cover these records.
    pub records: usize,
    /// Number of paired records without a value in at least one experiment.
    pub records_without_value: usize,
    /// The baseline's value.
    pub baseline: Option<f64>,
    /// The candidate's value.
    pub candidate: Option<f64>,
    /// Candidate minus baseline.
    pub difference: Option<f64>,
    /// 95 % confidence interval of the difference.
    pub interval: Option<(f64, f64)>,
    /// The uncorrected p-value.
    pub p_value: Option<f64>,
    /// The p-value corrected for the number of metrics.
    pub adjusted_p_value: Option<f64>,
    /// `mcnemar_exact` or `paired_bootstrap`.
    pub test: Option<&'static str>,
    /// The conclusion; `None` if the metric has no order.
    pub verdict: Option<MetricVerdict>,
    /// Number of records that passed in the baseline and fail in the candidate.
    pub pass_to_fail: usize,
    /// Number of records that failed in the baseline and pass in the candidate.
    pub fail_to_pass: usize,
    /// Number of records with as many passed as failed runs in an experiment, which cannot flip.
    pub tied: usize,
    /// Segments of records, the worst first.
    pub segments: Vec<SegmentComparison>,
    /// The records with the largest losses, for numeric metrics.
    pub largest_drops: Vec<RecordChange>,
    /// For categorical metrics, the number of runs per category: `(category, baseline, candidate)`.
    pub words: Vec<(String, usize, usize)>,
}

/// The comparison of one segment of records.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentComparison {
    /// The dimension.
    pub dimension: String,
    /// The value of the dimension.
    pub value: String,
    /// Number of records.
    pub records: usize,
    /// The baseline's value.
    pub baseline: f64,
    /// The candidate's value.
    pub candidate: f64,
}

/// The values of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordChange {
    /// Id of the record.
    pub record_id: String,
    /// The baseline's value.
    pub baseline: f64,
    /// The candidate's value.
    pub candidate: f64,
    /// An event of the record in the baseline.
    pub baseline_event: SpanId,
    /// An event of the record in the candidate.
    pub candidate_event: SpanId,
}

/// The direction of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlipDirection {
    /// Passed in the baseline, fails in the candidate.
    PassToFail,
    /// Failed in the baseline, passes in the candidate.
    FailToPass,
}

/// A record whose outcome changed between pass and fail.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordFlip {
    /// Name of the metric.
    pub label: String,
    /// Direction of the flip.
    pub outcome: FlipDirection,
    /// The record's values.
    pub change: RecordChange,
}

/// A record whose task failed in one experiment only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// Id of the record.
    pub record_id: String,
    /// Whether the task failed in the candidate.
    pub in_candidate: bool,
    /// Type of the error.
    pub error_type: String,
    /// The failed event.
    pub event: SpanId,
}

/// The comparison of duration, tokens or cost per run.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageDifference {
    /// `duration_ms`, `input_tokens`, `output_tokens`, `total_tokens` or `cost_usd`.
    pub name: &'static str,
    /// Number of records with a value in both experiments.
    pub records: usize,
    /// The baseline's mean.
    pub baseline: f64,
    /// The candidate's mean.
    pub candidate: f64,
    /// 95 % confidence interval of the difference.
    pub interval: Option<(f64, f64)>,
}

/// The comparison of two experiments. Pairs are (baseline, candidate).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExperimentComparison {
    /// Number of records.
    pub records: (usize, usize),
    /// Number of records in both experiments.
    pub paired: usize,
    /// Number of pairs with different record ids, which are versions of one record.
    pub paired_across_versions: usize,
    /// Number of events without a record id, which cannot be paired.
    pub events_without_record: (usize, usize),
    /// Maximum number of runs per record.
    pub runs: (usize, usize),
    /// Number of events whose task failed.
    pub errors: (usize, usize),
    /// Records in the baseline only.
    pub only_in_baseline: Vec<String>,
    /// Records in the candidate only.
    pub only_in_candidate: Vec<String>,
    /// The metrics, sorted by label.
    pub metrics: Vec<MetricComparison>,
    /// Metrics in the baseline only, and in the candidate only.
    pub labels_on_one_side: (Vec<String>, Vec<String>),
    /// Metrics that have different types in the two experiments.
    pub labels_of_two_types: Vec<String>,
    /// Records that flipped, those that fail now first.
    pub flips: Vec<RecordFlip>,
    /// Records whose task failed in one experiment only, those of the candidate first.
    pub task_failures: Vec<TaskFailure>,
    /// Duration, tokens and cost.
    pub usage: Vec<UsageDifference>,
    /// Number of segments that were searched for the worst ones.
    pub segments_tried: usize,
}
