//! Two experiments, record by record.
//!
//! Records are paired by their canonical id, which they keep through all versions of a dataset, or
//! by the record id where that is all there is. The runs of a record become one value: the mean of
//! numbers, the share of true for booleans, the share of passed where criteria exist. Numbers are
//! judged by a paired bootstrap of the differences, pass-or-fail by McNemar's exact test on the
//! records that changed sides, or by the bootstrap where the sides were not run equally often;
//! p-values are corrected for the number of metrics (Holm).

mod pairs;
mod verdict;

use std::collections::BTreeMap;

use super::dimension::dimension_values;
use super::numbers::mean;
use super::stats::{LabelInfo, metric_labels};
use crate::model::{ExperimentEvent, MetricType, SpanId};
use pairs::{Pairing, Records, pair};

/// What to compare, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompareOptions<'a> {
    /// Only these metrics; all that both sides have when none is named.
    pub labels: &'a [String],
    /// Metrics of which less is better, whatever their assessments say.
    pub lower_is_better: &'a [String],
    /// The dimension to divide records by; when none is named, the worst groups of all are sought.
    pub segment_by: Option<&'a str>,
    /// Whether runs whose task failed count.
    pub include_failed: bool,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricVerdict {
    /// Better, beyond chance.
    Improved,
    /// Worse, beyond chance.
    Regressed,
    /// Chance would explain it. Not proof that nothing changed.
    NoClearChange,
    /// Nothing could have been shown with so few.
    TooFewRecords,
}

impl MetricVerdict {
    /// The verdict in plain words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Improved => "improved",
            Self::Regressed => "regressed",
            Self::NoClearChange => "no clear change",
            Self::TooFewRecords => "too few records",
        }
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetterDirection {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// How the direction is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectionSource {
    /// It is not: higher is taken to be better.
    Assumed,
    /// MetricValues judged as passed lie on that side of those judged as failed.
    Assessments,
    /// The caller said so.
    Argument,
}

/// What of a metric is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricMeasure {
    /// The mean of numbers.
    Mean,
    /// The share of true.
    TrueRate,
    /// The share of passed.
    PassRate,
    /// Nothing: words and objects without criteria have no order.
    Unordered,
}

/// One metric on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricComparison {
    /// Its name.
    pub label: String,
    /// Its type.
    pub metric_type: MetricType,
    /// What is compared.
    pub measure: MetricMeasure,
    /// Which way is better.
    pub direction: BetterDirection,
    /// How that is known.
    pub direction_source: DirectionSource,
    /// Records with a value on both sides: what all numbers here are about.
    pub records: usize,
    /// Paired records that lack a value on one side or both.
    pub records_without_value: usize,
    /// The baseline's value.
    pub baseline: Option<f64>,
    /// The candidate's value.
    pub candidate: Option<f64>,
    /// Candidate less baseline.
    pub difference: Option<f64>,
    /// 95 % interval of the difference.
    pub interval: Option<(f64, f64)>,
    /// The p-value of this metric alone.
    pub p_value: Option<f64>,
    /// The same, corrected for the number of metrics.
    pub adjusted_p_value: Option<f64>,
    /// `mcnemar_exact` or `paired_bootstrap`.
    pub test: Option<&'static str>,
    /// What can be said; none if the metric has no order.
    pub verdict: Option<MetricVerdict>,
    /// Records that passed and fail now.
    pub pass_to_fail: usize,
    /// Records that failed and pass now.
    pub fail_to_pass: usize,
    /// Records whose runs are split evenly on a side: they cannot flip.
    pub tied: usize,
    /// Groups of records, the worst first.
    pub segments: Vec<SegmentComparison>,
    /// The records that lost most, for numbers.
    pub largest_drops: Vec<RecordChange>,
    /// How often each word occurs on each side, for words: `(word, baseline, candidate)` runs.
    pub words: Vec<(String, usize, usize)>,
}

/// A group of records.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentComparison {
    /// The dimension.
    pub dimension: String,
    /// Its value.
    pub value: String,
    /// Records of the group.
    pub records: usize,
    /// The baseline's value.
    pub baseline: f64,
    /// The candidate's value.
    pub candidate: f64,
}

/// One record's values.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordChange {
    /// The record.
    pub record_id: String,
    /// The baseline's value.
    pub baseline: f64,
    /// The candidate's value.
    pub candidate: f64,
    /// An event of it in the baseline.
    pub baseline_event: SpanId,
    /// An event of it in the candidate.
    pub candidate_event: SpanId,
}

/// Which way a record flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlipDirection {
    /// It passed and fails now.
    PassToFail,
    /// It failed and passes now.
    FailToPass,
}

/// A record that changed sides.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordFlip {
    /// The metric.
    pub label: String,
    /// Which way.
    pub outcome: FlipDirection,
    /// The record's values.
    pub change: RecordChange,
}

/// A record whose task failed on one side only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The record.
    pub record_id: String,
    /// Whether it is the candidate that failed.
    pub in_candidate: bool,
    /// The error's type.
    pub error_type: String,
    /// The failed event.
    pub event: SpanId,
}

/// Time, tokens or money, per run.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageDifference {
    /// `duration_ms`, `input_tokens`, `output_tokens`, `total_tokens` or `cost_usd`.
    pub name: &'static str,
    /// Records known on both sides.
    pub records: usize,
    /// The baseline's mean.
    pub baseline: f64,
    /// The candidate's mean.
    pub candidate: f64,
    /// 95 % interval of the difference.
    pub interval: Option<(f64, f64)>,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExperimentComparison {
    /// Records in the baseline, and in the candidate.
    pub records: (usize, usize),
    /// Records in both.
    pub paired: usize,
    /// Pairs that are of one record but different record ids: versions of it.
    pub paired_across_versions: usize,
    /// Events without a record id, on either side; they cannot be paired.
    pub events_without_record: (usize, usize),
    /// Runs per record at most, on either side.
    pub runs: (usize, usize),
    /// Events whose task failed, on either side.
    pub errors: (usize, usize),
    /// Records of the baseline only.
    pub only_in_baseline: Vec<String>,
    /// Records of the candidate only.
    pub only_in_candidate: Vec<String>,
    /// Metrics, in the order of their labels.
    pub metrics: Vec<MetricComparison>,
    /// Metrics of the baseline only, and of the candidate only.
    pub labels_on_one_side: (Vec<String>, Vec<String>),
    /// Metrics that both have but under different types.
    pub labels_of_two_types: Vec<String>,
    /// Records that changed sides: those that fail now first.
    pub flips: Vec<RecordFlip>,
    /// Records whose task failed on one side only: those of the candidate first.
    pub task_failures: Vec<TaskFailure>,
    /// Time, tokens, money.
    pub usage: Vec<UsageDifference>,
    /// How many groups of records were looked at for the worst.
    pub segments_tried: usize,
}

/// Compares two experiments.
pub fn compare(
    baseline: &[ExperimentEvent],
    candidate: &[ExperimentEvent],
    options: CompareOptions<'_>,
) -> ExperimentComparison {
    let pairing = pair(baseline, candidate);
    let (known, other) = (metric_labels(baseline), metric_labels(candidate));
    let both = shared_labels(&known, &other, options.labels);
    let segments = segments(&pairing, options.segment_by);
    let mut comparison = ExperimentComparison {
        records: (pairing.baseline.len(), pairing.candidate.len()),
        paired: pairing.paired.len(),
        paired_across_versions: pairing.across_versions,
        events_without_record: pairing.without_record,
        runs: (most_runs(&pairing.baseline), most_runs(&pairing.candidate)),
        errors: (errors(baseline), errors(candidate)),
        only_in_baseline: only(&pairing.baseline, &pairing.candidate),
        only_in_candidate: only(&pairing.candidate, &pairing.baseline),
        labels_on_one_side: (missing(&known, &other), missing(&other, &known)),
        labels_of_two_types: two_types(&known, &other),
        task_failures: task_failures(&pairing),
        segments_tried: segments.len(),
        ..ExperimentComparison::default()
    };
    for info in both {
        let (metric, flips) = verdict::metric(&pairing, info, &segments, options);
        comparison.metrics.push(metric);
        comparison.flips.extend(flips);
    }
    verdict::correct(&mut comparison.metrics);
    comparison.flips.sort_by_key(|flip| flip.outcome);
    comparison.usage = usage(&pairing, options.include_failed);
    comparison
}

fn shared_labels<'a>(
    known: &'a [LabelInfo],
    other: &[LabelInfo],
    asked: &[String],
) -> Vec<&'a LabelInfo> {
    known
        .iter()
        .filter(|info| asked.is_empty() || asked.contains(&info.label))
        .filter(|info| other.contains(info))
        .collect()
}

fn missing(from: &[LabelInfo], to: &[LabelInfo]) -> Vec<String> {
    from.iter()
        .filter(|info| to.iter().all(|other| other.label != info.label))
        .map(|info| info.label.clone())
        .collect()
}

fn two_types(one: &[LabelInfo], two: &[LabelInfo]) -> Vec<String> {
    one.iter()
        .filter(|info| {
            two.iter()
                .any(|other| other.label == info.label && other.metric_type != info.metric_type)
        })
        .map(|info| info.label.clone())
        .collect()
}

fn most_runs(records: &Records<'_>) -> usize {
    records.values().map(Vec::len).max().unwrap_or_default()
}

fn errors(events: &[ExperimentEvent]) -> usize {
    events.iter().filter(|event| event.is_error()).count()
}

fn only(one: &Records<'_>, other: &Records<'_>) -> Vec<String> {
    one.iter()
        .filter(|(key, _)| !other.contains_key(*key))
        .map(|(key, events)| record_name(key, events))
        .collect()
}

/// The record id that a reader knows, rather than the key that pairs.
fn record_name(key: &str, events: &[&ExperimentEvent]) -> String {
    events
        .iter()
        .find_map(|event| event.record_id())
        .unwrap_or(key)
        .to_owned()
}

fn task_failures(pairing: &Pairing<'_>) -> Vec<TaskFailure> {
    let mut failures = Vec::new();
    for (key, base, cand) in &pairing.paired {
        let failed = |events: &[&ExperimentEvent]| events.iter().all(|event| event.is_error());
        let (before, after) = (failed(base), failed(cand));
        if before == after {
            continue;
        }
        let events = if after { cand } else { base };
        if let Some(event) = events.first() {
            failures.push(TaskFailure {
                record_id: record_name(key, base),
                in_candidate: after,
                error_type: dimension_values(event, "error_type")
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                event: event.span.span_id.clone(),
            });
        }
    }
    failures.sort_by_key(|failure| !failure.in_candidate);
    failures
}

/// Groups of paired records: the places of their records in the pairing, in order.
#[derive(Debug)]
struct Group {
    dimension: String,
    value: String,
    records: Vec<usize>,
}

/// MetricValues of a dimension that are looked at when none is named: more are no groups.
const MOST_VALUES: usize = 20;

/// Adds a place; places come in order, and some more than once.
fn add(records: &mut Vec<usize>, at: usize) {
    if records.last() != Some(&at) {
        records.push(at);
    }
}

fn segments(pairing: &Pairing<'_>, asked: Option<&str>) -> Vec<Group> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    let events = pairing
        .paired
        .iter()
        .enumerate()
        .flat_map(|(at, (_, base, cand))| base.iter().chain(cand).map(move |event| (at, *event)));
    if let Some(key) = asked {
        let values = found.entry(key).or_default();
        for (at, event) in events {
            for value in dimension_values(event, key) {
                add(values.entry(value).or_default(), at);
            }
        }
    } else {
        for (at, event) in events {
            let tags = event.span.tags.iter().filter_map(|tag| tag.split_once(':'));
            for (key, value) in tags.filter(|(_, value)| !value.is_empty()) {
                let values = found.entry(key).or_default();
                // Enough is known of a dimension with too many values.
                if values.len() <= MOST_VALUES {
                    add(values.entry(value).or_default(), at);
                }
            }
        }
    }
    found
        .into_iter()
        .filter(|(_, values)| {
            // Groups divide the records: what is true of each says nothing, and what differs
            // between the two experiments or between runs is no property of a record.
            let places: usize = values.values().map(Vec::len).sum();
            let overlapping = places > pairing.paired.len();
            asked.is_some() || (2..=MOST_VALUES).contains(&values.len()) && !overlapping
        })
        .flat_map(|(key, values)| {
            values.into_iter().map(move |(value, records)| Group {
                dimension: key.to_owned(),
                value: value.to_owned(),
                records,
            })
        })
        .collect()
}

type Reading = fn(&ExperimentEvent) -> Option<f64>;

const USAGE: [(&str, Reading); 5] = [
    ("duration_ms", |event| {
        Some(event.span.duration_ns as f64 / 1e6)
    }),
    ("input_tokens", |event| event.usage.input_tokens),
    ("output_tokens", |event| event.usage.output_tokens),
    ("total_tokens", |event| event.usage.total_tokens),
    ("cost_usd", |event| event.usage.cost_usd),
];

fn usage(pairing: &Pairing<'_>, include_failed: bool) -> Vec<UsageDifference> {
    let mut found = Vec::new();
    for (name, reading) in USAGE {
        let of = |events: &[&ExperimentEvent]| {
            let values: Vec<f64> = events
                .iter()
                .filter(|event| include_failed || !event.is_error())
                .filter_map(|event| reading(event))
                .collect();
            mean(&values)
        };
        let pairs: Vec<(f64, f64)> = pairing
            .paired
            .iter()
            .filter_map(|(_, base, cand)| Some((of(base)?, of(cand)?)))
            .collect();
        let side = |pick: fn(&(f64, f64)) -> f64| mean(&pairs.iter().map(pick).collect::<Vec<_>>());
        if let (Some(baseline), Some(candidate)) = (side(|pair| pair.0), side(|pair| pair.1)) {
            let differences: Vec<f64> = pairs.iter().map(|(base, cand)| cand - base).collect();
            found.push(UsageDifference {
                name,
                records: pairs.len(),
                baseline,
                candidate,
                interval: verdict::interval(&differences),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests;
