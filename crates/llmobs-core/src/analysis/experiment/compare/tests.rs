//! Scenarios of comparisons, and properties of every comparison.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Assessment, ExperimentMetric, ExperimentSpan, MetricType, Status};

fn metric(label: &str, value: Value) -> ExperimentMetric {
    ExperimentMetric {
        label: label.into(),
        metric_type: match value {
            Value::Bool(_) => MetricType::Boolean,
            Value::String(_) => MetricType::Categorical,
            _ => MetricType::Score,
        },
        value: Some(value),
        ..ExperimentMetric::default()
    }
}

/// An event of a record, with metrics sorted by label.
fn event(id: usize, record: usize, metrics: Vec<ExperimentMetric>) -> ExperimentEvent {
    let region = ["eu", "asia", "africa"][record % 3];
    ExperimentEvent {
        span: ExperimentSpan {
            span_id: id.to_string().into(),
            tags: vec![
                format!("dataset_record_id:r{record:03}"),
                format!("region:{region}"),
                format!("run_id:{id}"),
                "env:dev".into(),
            ],
            duration_ns: 1_000_000,
            ..ExperimentSpan::default()
        },
        metrics,
        ..ExperimentEvent::default()
    }
}

fn events_with_value(records: usize, value: impl Fn(usize) -> Value) -> Vec<ExperimentEvent> {
    (0..records)
        .map(|record| event(record, record, vec![metric("m", value(record))]))
        .collect()
}

fn only_metric(comparison: &ExperimentComparison) -> &MetricComparison {
    &comparison.metrics[0]
}

#[test]
fn more_runs_of_the_same_quality_are_no_improvement() {
    // Five of six records pass in each run of either experiment.
    let passes = |record: usize, shift: usize| json!(!(record + shift).is_multiple_of(6));
    let baseline = events_with_value(120, |record| passes(record, 0));
    let twice = |shifts: [usize; 2]| -> Vec<ExperimentEvent> {
        let runs = shifts.into_iter().enumerate();
        runs.flat_map(|(run, shift)| {
            (0..120).map(move |record| {
                let value = passes(record, shift);
                event(run * 120 + record, record, vec![metric("m", value)])
            })
        })
        .collect()
    };
    let comparison = compare(&baseline, &twice([1, 2]), CompareOptions::default());
    let metric = only_metric(&comparison);
    assert_eq!((metric.pass_to_fail, metric.fail_to_pass), (0, 20));
    assert_eq!(metric.difference, Some(0.0));
    assert_eq!(metric.test, Some("paired_bootstrap"));
    assert_eq!(metric.verdict, Some(MetricVerdict::NoClearChange));
    let both_twice = compare(&twice([3, 4]), &twice([1, 2]), CompareOptions::default());
    assert_eq!(only_metric(&both_twice).test, Some("mcnemar_exact"));
}

#[test]
fn finds_segment_that_regressed() {
    let baseline = events_with_value(60, |_| json!(true));
    let candidate = events_with_value(60, |record| json!(record % 3 != 1 || record % 2 == 0));
    let comparison = compare(&baseline, &candidate, CompareOptions::default());
    let metric = only_metric(&comparison);
    assert_eq!(metric.verdict, Some(MetricVerdict::Regressed));
    assert_eq!((metric.pass_to_fail, metric.fail_to_pass), (10, 0));
    assert_eq!(metric.segments.len(), 1);
    assert_eq!(metric.segments[0].value, "asia");
    assert_eq!(comparison.flips[0].change.record_id, "r001");
    let named = CompareOptions {
        segment_by: Some("region"),
        ..CompareOptions::default()
    };
    assert_eq!(
        only_metric(&compare(&baseline, &candidate, named))
            .segments
            .len(),
        3
    );
}

#[test]
fn few_records_give_no_verdict() {
    let few = compare(
        &events_with_value(5, |_| json!(true)),
        &events_with_value(5, |_| json!(false)),
        CompareOptions::default(),
    );
    assert_eq!(
        only_metric(&few).verdict,
        Some(MetricVerdict::TooFewRecords)
    );
    let numbers = compare(
        &events_with_value(9, |_| json!(0.1)),
        &events_with_value(9, |_| json!(0.9)),
        CompareOptions::default(),
    );
    assert_eq!(
        only_metric(&numbers).verdict,
        Some(MetricVerdict::TooFewRecords)
    );
    let same = compare(
        &events_with_value(40, |r| json!(r)),
        &events_with_value(40, |r| json!(r)),
        CompareOptions::default(),
    );
    assert_eq!(
        only_metric(&same).verdict,
        Some(MetricVerdict::NoClearChange)
    );
    assert_eq!(only_metric(&same).interval, Some((0.0, 0.0)));
}

#[test]
fn direction_comes_from_assessments_or_options() {
    let evaluated = |high: bool| {
        (0..20)
            .map(|record| {
                let mut value = metric("m", json!(if high { 0.9 } else { 0.1 }));
                value.assessment = Some(if high {
                    Assessment::Fail
                } else {
                    Assessment::Pass
                });
                event(record, record, vec![value])
            })
            .collect::<Vec<_>>()
    };
    let comparison = compare(
        &evaluated(true),
        &evaluated(false),
        CompareOptions::default(),
    );
    let metric = only_metric(&comparison);
    assert_eq!(metric.verdict, Some(MetricVerdict::Improved));
    assert_eq!(metric.direction_source, DirectionSource::Assessments);
    assert_eq!(metric.fail_to_pass, 20);

    let labels = ["m".to_owned()];
    let options = CompareOptions {
        lower_is_better: &labels,
        ..CompareOptions::default()
    };
    let (up, down) = (
        events_with_value(20, |_| json!(2)),
        events_with_value(20, |_| json!(1)),
    );
    assert_eq!(
        only_metric(&compare(&up, &down, options)).verdict,
        Some(MetricVerdict::Improved)
    );
    assert_eq!(
        only_metric(&compare(&up, &down, CompareOptions::default())).verdict,
        Some(MetricVerdict::Regressed)
    );
}

#[test]
fn runs_are_averaged_and_ties_do_not_flip() {
    let runs = |second: bool| {
        let mut events = events_with_value(8, |_| json!(true));
        events.extend((0..8).map(|r| event(100 + r, r, vec![metric("m", json!(second))])));
        events
    };
    let comparison = compare(&runs(true), &runs(false), CompareOptions::default());
    let metric = only_metric(&comparison);
    assert_eq!(comparison.runs, (2, 2));
    assert_eq!((metric.records, metric.tied), (8, 8));
    assert_eq!((metric.baseline, metric.candidate), (Some(1.0), Some(0.5)));
    assert_eq!(metric.p_value, Some(1.0));
}

#[test]
fn pairs_versions_of_a_record_by_canonical_id() {
    let version = |prefix: &str, canonical: bool| {
        (0..12)
            .map(|record| {
                let mut one = event(record, record, vec![metric("m", json!(record))]);
                one.span.tags = vec![format!("dataset_record_id:{prefix}{record}")];
                if canonical {
                    one.span
                        .tags
                        .push(format!("dataset_record_canonical_id:c{record}"));
                }
                one
            })
            .collect::<Vec<_>>()
    };
    let comparison = compare(
        &version("a", true),
        &version("b", true),
        CompareOptions::default(),
    );
    assert_eq!(
        (comparison.paired, comparison.paired_across_versions),
        (12, 12)
    );
    // A re-evaluation carries record ids only.
    let rerun = compare(
        &version("a", true),
        &version("a", false),
        CompareOptions::default(),
    );
    assert_eq!((rerun.paired, rerun.paired_across_versions), (12, 0));
    let unrelated = compare(
        &version("a", true),
        &version("b", false),
        CompareOptions::default(),
    );
    assert_eq!(
        (unrelated.paired, unrelated.only_in_baseline.len()),
        (0, 12)
    );
    assert_eq!(
        only_metric(&unrelated).verdict,
        Some(MetricVerdict::TooFewRecords)
    );
}

#[test]
fn excludes_and_lists_failed_tasks() {
    let baseline = events_with_value(12, |_| json!(1));
    let mut candidate = events_with_value(12, |_| json!(1));
    for event in candidate.iter_mut().take(2) {
        event.span.status = Status::Error;
        event.metrics[0].value = Some(json!(0));
    }
    let comparison = compare(&baseline, &candidate, CompareOptions::default());
    assert_eq!(
        (comparison.errors, only_metric(&comparison).records),
        ((0, 2), 10)
    );
    assert_eq!(only_metric(&comparison).records_without_value, 2);
    assert_eq!(only_metric(&comparison).difference, Some(0.0));
    assert!(
        comparison
            .task_failures
            .iter()
            .all(|failure| failure.in_candidate)
    );
    let options = CompareOptions {
        include_failed: true,
        ..CompareOptions::default()
    };
    assert_eq!(
        only_metric(&compare(&baseline, &candidate, options)).records,
        12
    );
}

#[test]
fn categories_without_criteria_have_no_order() {
    let comparison = compare(
        &events_with_value(20, |_| json!("polite")),
        &events_with_value(20, |r| json!(if r < 5 { "rude" } else { "polite" })),
        CompareOptions::default(),
    );
    let metric = only_metric(&comparison);
    assert_eq!(
        (metric.measure, metric.verdict),
        (MetricMeasure::Unordered, None)
    );
    assert_eq!(
        metric.words,
        [("polite".into(), 20, 15), ("rude".into(), 0, 5)]
    );
}

proptest! {
    #[test]
    fn swapping_the_experiments_negates_the_comparison(
        values in prop::collection::vec((any::<bool>(), any::<bool>()), 0..40),
        numbers in prop::collection::vec((-9.0_f64..9.0, -9.0_f64..9.0), 0..40),
    ) {
        let make = |second: bool| {
            let mut events: Vec<_> = values.iter().enumerate().map(|(r, pair)| {
                event(r, r, vec![metric("flag", json!(if second { pair.1 } else { pair.0 }))])
            }).collect();
            events.extend(numbers.iter().enumerate().map(|(r, pair)| {
                event(100 + r, 100 + r, vec![metric("number", json!(if second { pair.1 } else { pair.0 }))])
            }));
            events
        };
        let there = compare(&make(false), &make(true), CompareOptions::default());
        let back = compare(&make(true), &make(false), CompareOptions::default());
        for (one, other) in there.metrics.iter().zip(&back.metrics) {
            prop_assert_eq!(one.pass_to_fail, other.fail_to_pass);
            prop_assert_eq!(one.records, other.records);
            if one.measure == MetricMeasure::TrueRate {
                prop_assert_eq!(one.adjusted_p_value, other.adjusted_p_value);
            }
            if let (Some(a), Some(b)) = (one.difference, other.difference) {
                prop_assert!((a + b).abs() < 1e-9);
            }
        }
        let verdict = |c: &ExperimentComparison| c.metrics.iter().map(|m| m.verdict).collect::<Vec<_>>();
        prop_assert_eq!(verdict(&there).len(), verdict(&back).len());
    }
}
