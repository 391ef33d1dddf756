//! The notes of a comparison: what limits its numbers.

use crate::tools::answer::Notes;
use datadog_llmobs::LoadedExperiment;
use llmobs_core::analysis::experiment::{
    DirectionSource, ExperimentComparison, MetricComparison, MetricMeasure,
};
use llmobs_core::model::Experiment;

/// An interval of a mean over fewer records is rough.
const MIN_RECORDS_FOR_INTERVAL: usize = 30;
/// A metric with fewer records has no interval.
const MIN_RECORDS_FOR_NOTE: usize = 10;

/// Adds the notes about both experiments and the comparison.
pub(super) fn add_notes(
    baseline: &LoadedExperiment,
    candidate: &LoadedExperiment,
    comparison: &ExperimentComparison,
    include_failed: bool,
    notes: &mut Notes,
) {
    for (loaded, role) in [(baseline, "baseline"), (candidate, "candidate")] {
        let experiment = loaded.experiment.as_ref();
        if experiment.is_some_and(Experiment::is_running) {
            notes.add(format!(
                "the {role} is still running: the verdict may change"
            ));
        }
        if loaded.data.events.is_empty() {
            notes.add(format!("the {role} has no events"));
        }
    }
    notes.extend(candidate.notes.iter().cloned());
    if let (Some(baseline), Some(candidate)) = (&baseline.experiment, &candidate.experiment) {
        note_differences(baseline, candidate, notes);
    }
    if comparison.paired == 0 {
        notes.add("no record is in both experiments, so nothing can be compared");
        return;
    }
    notes.add(
        "all values are over paired records with their runs averaged, so they can differ from the \
         summaries; no clear change does not mean equal: see interval_95",
    );
    note_tests(comparison, notes);
    note_records(comparison, include_failed, notes);
}

/// Notes that the experiments were not run to be compared.
fn note_differences(baseline: &Experiment, candidate: &Experiment, notes: &mut Notes) {
    let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
    if candidate.parent_experiment_id.as_ref() == Some(&baseline.id) {
        notes.add(
            "the candidate is a re-run of evaluators on the outputs of the baseline: the evaluators \
             differ, not the task",
        );
    }
    if differ(&baseline.project_id, &candidate.project_id) {
        notes.add("the experiments belong to different projects");
    }
    if differ(&baseline.dataset_id, &candidate.dataset_id) {
        notes.add(
            "the experiments ran over different datasets: only records with the same id are paired",
        );
    } else if baseline.dataset_version != candidate.dataset_version {
        notes.add(
            "the experiments ran over different versions of the dataset: a record may have changed \
             between them",
        );
    }
}

/// Notes about verdicts, intervals and segments.
fn note_tests(comparison: &ExperimentComparison, notes: &mut Notes) {
    let metrics = &comparison.metrics;
    let any = |test: fn(&MetricComparison) -> bool| metrics.iter().any(test);
    let tested = metrics.iter().filter(|metric| metric.p_value.is_some());
    let tested = tested.count();
    if tested > 1 {
        notes.add(format!(
            "p_value_corrected accounts for the test of {tested} metrics at once"
        ));
    }
    if any(|metric| {
        matches!(
            metric.measure,
            MetricMeasure::TrueRate | MetricMeasure::PassRate
        ) && metric.test == Some("paired_bootstrap")
    }) {
        notes.add(
            "the experiments have different numbers of runs: pass or fail is compared by rates, \
             and flips are examples that are more frequent in the experiment with fewer runs",
        );
    }
    if any(|metric| {
        metric.measure == MetricMeasure::Mean
            && (MIN_RECORDS_FOR_NOTE..MIN_RECORDS_FOR_INTERVAL).contains(&metric.records)
    }) {
        notes.add(format!(
            "intervals of means over fewer than {MIN_RECORDS_FOR_INTERVAL} records are rough"
        ));
    }
    if any(|metric| !metric.segments.is_empty()) {
        notes.add(format!(
            "segments are not tested: the worst of {} segments is low by chance too; read some of \
             its records",
            comparison.segments_tried
        ));
    }
    if any(|metric| {
        metric.measure == MetricMeasure::Mean && metric.direction_source == DirectionSource::Assumed
    }) {
        notes.add(
            "where the direction is assumed, the verdict is wrong for metrics whose lower values \
             are better (errors, latency): name these in lower_is_better",
        );
    }
}

/// Notes about records that are excluded or only partly comparable.
fn note_records(comparison: &ExperimentComparison, include_failed: bool, notes: &mut Notes) {
    let (baseline_errors, candidate_errors) = comparison.errors;
    if baseline_errors + candidate_errors > 0 && !include_failed {
        notes.add(format!(
            "events whose task failed are excluded (baseline {baseline_errors}, candidate \
             {candidate_errors}); include_failed: true includes them"
        ));
    }
    if comparison.paired_across_versions > 0 {
        notes.add(format!(
            "{} records are different versions of the same record: their content may have changed",
            comparison.paired_across_versions
        ));
    }
    let (of_baseline, of_candidate) = comparison.events_without_record;
    if of_baseline + of_candidate > 0 {
        notes.add(format!(
            "{of_baseline} events of the baseline and {of_candidate} of the candidate name no \
             dataset record and are not compared"
        ));
    }
}
