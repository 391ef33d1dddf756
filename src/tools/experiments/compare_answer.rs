//! The keys of the answer of a comparison.

use serde_json::{Map, Value, json};

use super::objects::MAX_NAME_CHARS;
use crate::render::cut_middle;
use crate::tools::object::{JsonObject, statistic};
use datadog_llmobs::LoadedExperiment;
use llmobs_core::analysis::experiment::{
    BetterDirection, DirectionSource, ExperimentComparison, FlipDirection, MetricComparison,
    MetricMeasure, MetricVerdict, RecordChange, SegmentComparison,
};

/// Ids of records in one experiment only, and task failures, that are shown.
const MAX_IDS: usize = 20;
const MAX_CATEGORIES: usize = 10;
const MAX_CATEGORY_CHARS: usize = 120;
/// Segments of a metric that are shown.
const MAX_SEGMENTS: usize = 30;

/// The keys before the flips.
pub(super) fn head(
    baseline: &LoadedExperiment,
    candidate: &LoadedExperiment,
    comparison: &ExperimentComparison,
) -> JsonObject {
    let (records, errors, runs) = (comparison.records, comparison.errors, comparison.runs);
    let metrics = &comparison.metrics;
    let verdicts: Map<String, Value> = metrics
        .iter()
        .map(|metric| {
            let verdict = metric.verdict.map(MetricVerdict::as_str);
            (metric.label.clone(), json!(verdict))
        })
        .collect();
    let metrics: Vec<Value> = metrics.iter().map(metric_object).collect();
    let mut head = JsonObject::default();
    head.set(
        "baseline",
        experiment_object(baseline, records.0, errors.0, runs.0),
    );
    head.set(
        "candidate",
        experiment_object(candidate, records.1, errors.1, runs.1),
    );
    head.set("paired_records", comparison.paired);
    head.set("verdicts", verdicts);
    head.set("metrics", metrics);
    head.set("usage_per_run", usage(comparison));
    head.set("total_flips", comparison.flips.len());
    head
}

/// The keys after the flips.
pub(super) fn tail(comparison: &ExperimentComparison) -> JsonObject {
    let failures = comparison.task_failures.iter().take(MAX_IDS);
    let failures: Vec<Value> = failures
        .map(|failure| {
            json!({
                "dataset_record_id": failure.record_id,
                "failed_in": if failure.in_candidate { "candidate" } else { "baseline" },
                "error_type": cut_middle(&failure.error_type, MAX_NAME_CHARS),
                "event_id": failure.event,
            })
        })
        .collect();
    let mut tail = JsonObject::default();
    tail.set_unless_empty("task_failed_on_one_side", failures);
    for (key, ids) in [
        ("only_in_baseline", &comparison.only_in_baseline),
        ("only_in_candidate", &comparison.only_in_candidate),
    ] {
        if !ids.is_empty() {
            let shown: Vec<&String> = ids.iter().take(MAX_IDS).collect();
            tail.set(
                key,
                json!({"records": ids.len(), "dataset_record_ids": shown}),
            );
        }
    }
    let (in_baseline, in_candidate) = comparison.labels_on_one_side.clone();
    tail.set_unless_empty("metrics_only_in_baseline", in_baseline);
    tail.set_unless_empty("metrics_only_in_candidate", in_candidate);
    tail.set_unless_empty(
        "metrics_of_two_types",
        comparison.labels_of_two_types.clone(),
    );
    tail
}

/// The records whose outcome changed from pass to fail or from fail to pass.
pub(super) fn flips(comparison: &ExperimentComparison) -> Vec<JsonObject> {
    let flips = comparison.flips.iter().map(|flip| {
        let direction = match flip.outcome {
            FlipDirection::PassToFail => "pass_to_fail",
            FlipDirection::FailToPass => "fail_to_pass",
        };
        let mut row = JsonObject::default();
        row.set("metric_label", flip.label.as_str());
        row.set("flip", direction);
        set_change(&mut row, &flip.change);
        row
    });
    flips.collect()
}

fn usage(comparison: &ExperimentComparison) -> Map<String, Value> {
    let usage = comparison.usage.iter().map(|figure| {
        let difference = figure.candidate - figure.baseline;
        let percent = 100.0 * difference / figure.baseline;
        let percent = (figure.baseline.abs() > 0.0).then(|| (percent * 10.0).round() / 10.0);
        let mut object = JsonObject::default();
        object.set("baseline", statistic(figure.baseline));
        object.set("candidate", statistic(figure.candidate));
        object.set("difference", statistic(difference));
        object.set("change_percent", statistic(percent));
        object.set("interval_95", interval(figure.interval));
        object.set("records", figure.records);
        (figure.name.to_owned(), object.into())
    });
    usage.collect()
}

fn experiment_object(
    loaded: &LoadedExperiment,
    records: usize,
    errors: usize,
    runs: usize,
) -> JsonObject {
    let mut object = JsonObject::default();
    if let Some(experiment) = &loaded.experiment {
        object.set("experiment_id", experiment.id.as_str());
        object.set_unless_empty("name", cut_middle(&experiment.name, MAX_NAME_CHARS));
        object.set_unless_empty("status", experiment.status.clone());
        object.set_unless_empty("dataset_id", experiment.dataset_id.clone());
        object.set("dataset_version", experiment.dataset_version);
    }
    object.set("total_events", loaded.data.events.len());
    object.set("records", records);
    object.set("runs_per_record", runs);
    object.set("error_count", errors);
    object
}

fn metric_object(metric: &MetricComparison) -> Value {
    let measure = match metric.measure {
        MetricMeasure::Mean => "mean",
        MetricMeasure::TrueRate => "true_rate",
        MetricMeasure::PassRate => "pass_rate",
        MetricMeasure::Unordered => "none: its values have no order and no assessments",
    };
    let mut object = JsonObject::default();
    object.set("metric_label", cut_middle(&metric.label, MAX_NAME_CHARS));
    object.set("metric_type", metric.metric_type.as_str());
    object.set("verdict", metric.verdict.map(MetricVerdict::as_str));
    object.set("measure", measure);
    object.set("records", metric.records);
    if metric.measure != MetricMeasure::Unordered {
        set_test(&mut object, metric);
    }
    object.set_unless_empty("pass_to_fail", metric.pass_to_fail);
    object.set_unless_empty("fail_to_pass", metric.fail_to_pass);
    object.set_unless_empty("evenly_split_records", metric.tied);
    object.set_unless_empty("records_without_value", metric.records_without_value);
    let segments = metric.segments.iter().take(MAX_SEGMENTS);
    let segments: Vec<Value> = segments.map(segment_object).collect();
    object.set_unless_empty("segments_worst_first", segments);
    object.set_unless_empty(
        "other_segments",
        metric.segments.len().saturating_sub(MAX_SEGMENTS),
    );
    let drops = metric.largest_drops.iter().map(|change| {
        let mut object = JsonObject::default();
        set_change(&mut object, change);
        object
    });
    object.set_unless_empty("largest_drops", json!(drops.collect::<Vec<_>>()));
    let categories = metric.words.iter().take(MAX_CATEGORIES);
    let categories: Map<String, Value> = categories
        .map(|(category, baseline, candidate)| {
            (
                cut_middle(category, MAX_CATEGORY_CHARS),
                json!({"baseline": baseline, "candidate": candidate}),
            )
        })
        .collect();
    object.set_unless_empty("runs_by_value", categories);
    object.set_unless_empty(
        "other_values",
        metric.words.len().saturating_sub(MAX_CATEGORIES),
    );
    object.into()
}

/// Sets the values of both experiments, their difference and the test of it.
fn set_test(object: &mut JsonObject, metric: &MetricComparison) {
    let direction = match metric.direction {
        BetterDirection::Higher => "higher_is_better",
        BetterDirection::Lower => "lower_is_better",
    };
    let source = match metric.direction_source {
        DirectionSource::Assumed => "assumed",
        DirectionSource::Assessments => "assessments",
        DirectionSource::Argument => "argument",
    };
    object.set("direction", format!("{direction} ({source})"));
    object.set("baseline", statistic(metric.baseline));
    object.set("candidate", statistic(metric.candidate));
    object.set("difference", statistic(metric.difference));
    object.set("interval_95", interval(metric.interval));
    object.set("p_value", statistic(metric.p_value));
    object.set("p_value_corrected", statistic(metric.adjusted_p_value));
    object.set_unless_empty("test", metric.test);
}

fn segment_object(segment: &SegmentComparison) -> Value {
    json!({
        "dimension": segment.dimension,
        "value": cut_middle(&segment.value, MAX_NAME_CHARS),
        "records": segment.records,
        "baseline": statistic(segment.baseline),
        "candidate": statistic(segment.candidate),
        "difference": statistic(segment.candidate - segment.baseline),
    })
}

fn set_change(object: &mut JsonObject, change: &RecordChange) {
    object.set("dataset_record_id", change.record_id.as_str());
    object.set("baseline", statistic(change.baseline));
    object.set("candidate", statistic(change.candidate));
    object.set("baseline_event_id", change.baseline_event.as_str());
    object.set("candidate_event_id", change.candidate_event.as_str());
}

fn interval(bounds: Option<(f64, f64)>) -> Value {
    bounds.map_or(Value::Null, |(low, high)| {
        json!([statistic(low), statistic(high)])
    })
}
