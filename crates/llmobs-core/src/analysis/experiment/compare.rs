//! Comparison of two experiments, record by record.
//!
//! Records are paired by canonical id, which is stable across versions of a dataset, or by record
//! id if there is no canonical id. The runs of a record are reduced to one value: the mean of
//! numbers, the rate of true for booleans, the pass rate if criteria are defined. Numbers are
//! tested with a paired bootstrap of the differences. Pass and fail are tested with McNemar's
//! exact test on the records that flipped, or with the bootstrap where the two experiments do not
//! have the same number of runs. Holm's method corrects the p-values for the number of metrics.

mod metric;
mod pairs;
mod segments;
mod types;

use super::dimension::dimension_values;
use super::numbers::mean;
use super::stats::{LabelInfo, metric_labels};
use crate::model::ExperimentEvent;
use metric::{bootstrap_interval, compare_metric, correct_p_values};
use pairs::{Pairing, Records, pair_records, record_name};
use segments::find_segments;
pub use types::{
    BetterDirection, CompareOptions, DirectionSource, ExperimentComparison, FlipDirection,
    MetricComparison, MetricMeasure, MetricVerdict, RecordChange, RecordFlip, SegmentComparison,
    TaskFailure, UsageDifference,
};

/// Compares two experiments.
pub fn compare(
    baseline: &[ExperimentEvent],
    candidate: &[ExperimentEvent],
    options: CompareOptions<'_>,
) -> ExperimentComparison {
    let pairing = pair_records(baseline, candidate);
    let (baseline_labels, candidate_labels) = (metric_labels(baseline), metric_labels(candidate));
    let segments = find_segments(&pairing, options.segment_by);
    let mut comparison = ExperimentComparison {
        records: (pairing.baseline.len(), pairing.candidate.len()),
        paired: pairing.paired.len(),
        paired_across_versions: pairing.across_versions,
        events_without_record: pairing.without_record,
        runs: (max_runs(&pairing.baseline), max_runs(&pairing.candidate)),
        errors: (count_errors(baseline), count_errors(candidate)),
        only_in_baseline: records_missing_in(&pairing.candidate, &pairing.baseline),
        only_in_candidate: records_missing_in(&pairing.baseline, &pairing.candidate),
        labels_on_one_side: (
            labels_missing_in(&candidate_labels, &baseline_labels),
            labels_missing_in(&baseline_labels, &candidate_labels),
        ),
        labels_of_two_types: labels_of_two_types(&baseline_labels, &candidate_labels),
        task_failures: task_failures(&pairing),
        segments_tried: segments.len(),
        ..ExperimentComparison::default()
    };
    for info in shared_labels(&baseline_labels, &candidate_labels, options.labels) {
        let (metric, flips) = compare_metric(&pairing, info, &segments, options);
        comparison.metrics.push(metric);
        comparison.flips.extend(flips);
    }
    correct_p_values(&mut comparison.metrics);
    comparison.flips.sort_by_key(|flip| flip.outcome);
    comparison.usage = compare_usage(&pairing, options.include_failed);
    comparison
}

/// The labels that both experiments have with the same type, restricted to `selected` if any.
fn shared_labels<'a>(
    baseline: &'a [LabelInfo],
    candidate: &[LabelInfo],
    selected: &[String],
) -> Vec<&'a LabelInfo> {
    baseline
        .iter()
        .filter(|info| selected.is_empty() || selected.contains(&info.label))
        .filter(|info| candidate.contains(info))
        .collect()
}

fn labels_missing_in(other: &[LabelInfo], labels: &[LabelInfo]) -> Vec<String> {
    labels
        .iter()
        .filter(|info| other.iter().all(|other| other.label != info.label))
        .map(|info| info.label.clone())
        .collect()
}

fn labels_of_two_types(baseline: &[LabelInfo], candidate: &[LabelInfo]) -> Vec<String> {
    baseline
        .iter()
        .filter(|info| {
            candidate
                .iter()
                .any(|other| other.label == info.label && other.metric_type != info.metric_type)
        })
        .map(|info| info.label.clone())
        .collect()
}

fn max_runs(records: &Records<'_>) -> usize {
    records.values().map(Vec::len).max().unwrap_or_default()
}

fn count_errors(events: &[ExperimentEvent]) -> usize {
    events.iter().filter(|event| event.is_error()).count()
}

fn records_missing_in(other: &Records<'_>, records: &Records<'_>) -> Vec<String> {
    records
        .iter()
        .filter(|(key, _)| !other.contains_key(*key))
        .map(|(key, events)| record_name(key, events))
        .collect()
}

/// Records all of whose runs failed in exactly one experiment.
fn task_failures(pairing: &Pairing<'_>) -> Vec<TaskFailure> {
    let mut failures = Vec::new();
    for (key, baseline, candidate) in &pairing.paired {
        let all_failed = |events: &[&ExperimentEvent]| events.iter().all(|event| event.is_error());
        let in_candidate = all_failed(candidate);
        if all_failed(baseline) == in_candidate {
            continue;
        }
        let failed = if in_candidate { candidate } else { baseline };
        if let Some(event) = failed.first() {
            failures.push(TaskFailure {
                record_id: record_name(key, baseline),
                in_candidate,
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

type ReadUsage = fn(&ExperimentEvent) -> Option<f64>;

/// The compared usage figures, each with the function that reads it from an event.
const USAGE: [(&str, ReadUsage); 5] = [
    ("duration_ms", |event| {
        Some(event.span.duration_ns as f64 / 1e6)
    }),
    ("input_tokens", |event| event.usage.input_tokens),
    ("output_tokens", |event| event.usage.output_tokens),
    ("total_tokens", |event| event.usage.total_tokens),
    ("cost_usd", |event| event.usage.cost_usd),
];

fn compare_usage(pairing: &Pairing<'_>, include_failed: bool) -> Vec<UsageDifference> {
    let mut differences = Vec::new();
    for (name, read) in USAGE {
        let record_mean = |events: &[&ExperimentEvent]| {
            let values: Vec<f64> = events
                .iter()
                .filter(|event| include_failed || !event.is_error())
                .filter_map(|event| read(event))
                .collect();
            mean(&values)
        };
        let pairs: Vec<(f64, f64)> = pairing
            .paired
            .iter()
            .filter_map(|(_, baseline, candidate)| {
                Some((record_mean(baseline)?, record_mean(candidate)?))
            })
            .collect();
        let mean_of =
            |pick: fn(&(f64, f64)) -> f64| mean(&pairs.iter().map(pick).collect::<Vec<_>>());
        if let (Some(baseline), Some(candidate)) = (mean_of(|pair| pair.0), mean_of(|pair| pair.1))
        {
            let changes: Vec<f64> = pairs
                .iter()
                .map(|(baseline, candidate)| candidate - baseline)
                .collect();
            differences.push(UsageDifference {
                name,
                records: pairs.len(),
                baseline,
                candidate,
                interval: bootstrap_interval(&changes),
            });
        }
    }
    differences
}

#[cfg(test)]
mod tests;
