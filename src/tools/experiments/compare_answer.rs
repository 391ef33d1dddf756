//! The answer of a comparison: its keys, and what it says of its own limits.

use serde_json::{Value, json};

use super::{Keys, number};
use crate::render::cut_middle;
use crate::tools::answer::Notes;
use datadog_llmobs::LoadedExperiment;
use llmobs_core::analysis::experiment::{
    BetterDirection, DirectionSource, ExperimentComparison, FlipDirection, MetricComparison,
    MetricMeasure, MetricVerdict, RecordChange, SegmentComparison,
};

/// Ids of records on one side only, and of task failures, that are shown.
const MOST_IDS: usize = 20;
const MOST_WORDS: usize = 10;
/// Segments of a named dimension that are shown per metric.
const MOST_SEGMENTS: usize = 30;

/// The keys before the flips, those after them, and the flips.
pub(super) fn answer(
    baseline: &LoadedExperiment,
    candidate: &LoadedExperiment,
    found: &ExperimentComparison,
    include_failed: bool,
    notes: &mut Notes,
) -> (Keys, Keys, Vec<Value>) {
    let mut head = Keys::default();
    head.put(
        "baseline",
        side(baseline, found.records.0, found.errors.0, found.runs.0),
    );
    head.put(
        "candidate",
        side(candidate, found.records.1, found.errors.1, found.runs.1),
    );
    head.put("paired_records", found.paired);
    let verdicts: serde_json::Map<String, Value> = found
        .metrics
        .iter()
        .map(|metric| {
            (
                metric.label.clone(),
                json!(metric.verdict.map(MetricVerdict::as_str)),
            )
        })
        .collect();
    head.put("verdicts", verdicts);
    let metrics: Vec<Value> = found.metrics.iter().map(metric).collect();
    head.put("metrics", metrics);
    let usage: serde_json::Map<String, Value> = found
        .usage
        .iter()
        .map(|one| {
            let change = one.candidate - one.baseline;
            let mut keys = Keys::default();
            keys.put("baseline", number(one.baseline));
            keys.put("candidate", number(one.candidate));
            keys.put("difference", number(change));
            let share = (one.baseline.abs() > 0.0).then(|| 100.0 * change / one.baseline);
            keys.put(
                "change_percent",
                number(share.map(|share| (share * 10.0).round() / 10.0)),
            );
            keys.put("interval_95", interval(one.interval));
            keys.put("records", one.records);
            (one.name.to_owned(), keys.into())
        })
        .collect();
    head.put("usage_per_run", usage);
    head.put("total_flips", found.flips.len());

    let mut tail = Keys::default();
    let failures: Vec<Value> = found
        .task_failures
        .iter()
        .take(MOST_IDS)
        .map(|one| {
            json!({"dataset_record_id": one.record_id, "failed_in": if one.in_candidate { "candidate" } else { "baseline" },
                "error_type": cut_middle(&one.error_type, 200), "event_id": one.event})
        })
        .collect();
    tail.some("task_failed_on_one_side", failures);
    let (one, two) = (&found.only_in_baseline, &found.only_in_candidate);
    for (key, ids) in [("only_in_baseline", one), ("only_in_candidate", two)] {
        if !ids.is_empty() {
            let shown: Vec<&String> = ids.iter().take(MOST_IDS).collect();
            tail.put(
                key,
                json!({"records": ids.len(), "dataset_record_ids": shown}),
            );
        }
    }
    tail.some(
        "metrics_only_in_baseline",
        found.labels_on_one_side.0.clone(),
    );
    tail.some(
        "metrics_only_in_candidate",
        found.labels_on_one_side.1.clone(),
    );
    tail.some("metrics_of_two_types", found.labels_of_two_types.clone());
    caveats(found, include_failed, notes);
    let flips = found
        .flips
        .iter()
        .map(|flip| {
            let mut keys = Keys::default();
            keys.put("metric_label", flip.label.as_str());
            keys.put(
                "flip",
                match flip.outcome {
                    FlipDirection::PassToFail => "pass_to_fail",
                    FlipDirection::FailToPass => "fail_to_pass",
                },
            );
            change(&mut keys, &flip.change);
            keys.into()
        })
        .collect();
    (head, tail, flips)
}

fn side(loaded: &LoadedExperiment, records: usize, errors: usize, runs: usize) -> Value {
    let mut keys = Keys::default();
    if let Some(experiment) = &loaded.experiment {
        keys.put("experiment_id", experiment.id.as_str());
        keys.some("name", cut_middle(&experiment.name, 200));
        keys.some("status", experiment.status.clone());
        keys.some("dataset_id", experiment.dataset_id.clone());
        keys.put("dataset_version", experiment.dataset_version);
    }
    keys.put("total_events", loaded.data.events.len());
    keys.put("records", records);
    keys.put("runs_per_record", runs);
    keys.put("error_count", errors);
    keys.into()
}

fn metric(metric: &MetricComparison) -> Value {
    let mut keys = Keys::default();
    keys.put("metric_label", cut_middle(&metric.label, 200));
    keys.put("metric_type", metric.metric_type.as_str());
    keys.put("verdict", metric.verdict.map(MetricVerdict::as_str));
    keys.put(
        "measure",
        match metric.measure {
            MetricMeasure::Mean => "mean",
            MetricMeasure::TrueRate => "true_rate",
            MetricMeasure::PassRate => "pass_rate",
            MetricMeasure::Unordered => "none: its values have no order and no assessments",
        },
    );
    keys.put("records", metric.records);
    if metric.measure != MetricMeasure::Unordered {
        let direction = match metric.direction {
            BetterDirection::Higher => "higher_is_better",
            BetterDirection::Lower => "lower_is_better",
        };
        let source = match metric.direction_source {
            DirectionSource::Assumed => "assumed",
            DirectionSource::Assessments => "assessments",
            DirectionSource::Argument => "argument",
        };
        keys.put("direction", format!("{direction} ({source})"));
        keys.put("baseline", number(metric.baseline));
        keys.put("candidate", number(metric.candidate));
        keys.put("difference", number(metric.difference));
        keys.put("interval_95", interval(metric.interval));
        keys.put("p_value", number(metric.p_value));
        keys.put("p_value_corrected", number(metric.adjusted_p_value));
        keys.some("test", metric.test);
    }
    keys.some("pass_to_fail", metric.pass_to_fail);
    keys.some("fail_to_pass", metric.fail_to_pass);
    keys.some("evenly_split_records", metric.tied);
    keys.some("records_without_value", metric.records_without_value);
    let segments: Vec<Value> = metric
        .segments
        .iter()
        .take(MOST_SEGMENTS)
        .map(segment)
        .collect();
    keys.some("segments_worst_first", segments);
    keys.some(
        "other_segments",
        metric.segments.len().saturating_sub(MOST_SEGMENTS),
    );
    let drops: Vec<Value> = metric
        .largest_drops
        .iter()
        .map(|one| {
            let mut keys = Keys::default();
            change(&mut keys, one);
            keys.into()
        })
        .collect();
    keys.some("largest_drops", drops);
    let words: serde_json::Map<String, Value> = metric
        .words
        .iter()
        .take(MOST_WORDS)
        .map(|(word, one, two)| {
            (
                cut_middle(word, 120),
                json!({"baseline": one, "candidate": two}),
            )
        })
        .collect();
    keys.some("runs_by_value", words);
    keys.some(
        "other_values",
        metric.words.len().saturating_sub(MOST_WORDS),
    );
    keys.into()
}

fn segment(segment: &SegmentComparison) -> Value {
    json!({"dimension": segment.dimension, "value": cut_middle(&segment.value, 200), "records": segment.records,
        "baseline": number(segment.baseline), "candidate": number(segment.candidate),
        "difference": number(segment.candidate - segment.baseline)})
}

fn change(keys: &mut Keys, change: &RecordChange) {
    keys.put("dataset_record_id", change.record_id.as_str());
    keys.put("baseline", number(change.baseline));
    keys.put("candidate", number(change.candidate));
    keys.put("baseline_event_id", change.baseline_event.as_str());
    keys.put("candidate_event_id", change.candidate_event.as_str());
}

fn interval(ends: Option<(f64, f64)>) -> Value {
    ends.map_or(Value::Null, |(low, high)| {
        json!([number(low), number(high)])
    })
}

/// What the numbers cannot say.
fn caveats(found: &ExperimentComparison, include_failed: bool, notes: &mut Notes) {
    if found.paired == 0 {
        notes.add("no record is in both experiments, so nothing can be compared");
        return;
    }
    notes.add(
        "all values are over paired records, runs of a record averaged, so they can differ from \
         the summaries; no clear change does not mean equal: see interval_95",
    );
    let tested = found
        .metrics
        .iter()
        .filter(|metric| metric.p_value.is_some())
        .count();
    if tested > 1 {
        notes.add(format!(
            "p_value_corrected allows for {tested} metrics being tested at once"
        ));
    }
    let unevenly = |metric: &MetricComparison| {
        matches!(
            metric.measure,
            MetricMeasure::TrueRate | MetricMeasure::PassRate
        ) && metric.test == Some("paired_bootstrap")
    };
    if found.metrics.iter().any(unevenly) {
        notes.add(
            "the sides were not run equally often: pass or fail is judged by its rates, and flips \
             are examples, more likely on the side with fewer runs",
        );
    }
    let few =
        |metric: &&MetricComparison| metric.measure == MetricMeasure::Mean && metric.records < 30;
    if found
        .metrics
        .iter()
        .filter(few)
        .any(|metric| metric.records >= 10)
    {
        notes.add("intervals of means over fewer than 30 records are rough");
    }
    if found
        .metrics
        .iter()
        .any(|metric| !metric.segments.is_empty())
    {
        notes.add(format!(
            "segments are not tested: the worst of {} groups looks bad by chance too; read some of its records",
            found.segments_tried
        ));
    }
    if (found.errors.0 > 0 || found.errors.1 > 0) && !include_failed {
        notes.add(format!(
            "events whose task failed are left out (baseline {}, candidate {}); include_failed: true counts them",
            found.errors.0, found.errors.1
        ));
    }
    if found.paired_across_versions > 0 {
        notes.add(format!(
            "{} records are different versions of the same record: their content may have changed",
            found.paired_across_versions
        ));
    }
    let (one, two) = found.events_without_record;
    if one + two > 0 {
        notes.add(format!(
            "{one} events of the baseline and {two} of the candidate name no dataset record and are not compared"
        ));
    }
    let assumed = |metric: &MetricComparison| {
        metric.measure == MetricMeasure::Mean && metric.direction_source == DirectionSource::Assumed
    };
    if found.metrics.iter().any(assumed) {
        notes.add(
            "where the direction is assumed, a metric of which less is better (errors, latency) \
             has the wrong verdict: name it in lower_is_better",
        );
    }
}
