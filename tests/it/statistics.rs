//! The statistics of experiments, compared with results of SciPy and NumPy that
//! `tests/statistics/make.py` wrote.

use llmobs_core::analysis::experiment::{
    LabelInfo, MetricValues, holm_correction, mcnemar_exact, metric_stats, paired_bootstrap,
    percentile,
};
use llmobs_core::model::{ExperimentEvent, ExperimentMetric, MetricType};
use serde_json::Value;

fn numbers() -> Value {
    serde_json::from_str(include_str!("../statistics/numbers.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_f64().unwrap()).collect()
}

fn assert_close(ours: f64, theirs: f64, what: &str) {
    let difference = (ours - theirs).abs();
    assert!(
        difference <= 1e-9 * theirs.abs().max(1e-300),
        "{what}: {ours} against {theirs}"
    );
}

#[test]
fn means_deviations_and_percentiles_equal_numpy() {
    for case in numbers()["described"].as_array().unwrap() {
        let events: Vec<ExperimentEvent> = floats(&case["values"])
            .into_iter()
            .map(|value| ExperimentEvent {
                metrics: vec![ExperimentMetric {
                    label: "m".into(),
                    value: Some(value.into()),
                    ..ExperimentMetric::default()
                }],
                ..ExperimentEvent::default()
            })
            .collect();
        let info = LabelInfo {
            label: "m".into(),
            metric_type: MetricType::Score,
        };
        let MetricValues::Score(Some(score)) = metric_stats(&events, &info, false).values else {
            panic!("no numbers");
        };
        // A sum of 1e15 and 1: plain addition in NumPy loses digits that our sum keeps.
        let loose = score.max > 1e14;
        let mean = case["mean"].as_f64().unwrap();
        if loose {
            assert!((score.mean.unwrap() - mean).abs() < 1.0);
        } else {
            assert_close(score.mean.unwrap(), mean, "mean");
        }
        match case["std_dev"].as_f64() {
            Some(theirs) => assert_close(score.std_dev.unwrap(), theirs, "std_dev"),
            None => assert_eq!(score.std_dev, None),
        }
        let mut sorted = floats(&case["values"]);
        sorted.sort_by(f64::total_cmp);
        for (q, theirs) in case["percentiles"].as_object().unwrap() {
            let ours = percentile(&sorted, q.parse().unwrap()).unwrap();
            assert_close(ours, theirs.as_f64().unwrap(), &format!("percentile {q}"));
        }
    }
}

#[test]
fn exact_test_equals_scipy() {
    for case in numbers()["mcnemar"].as_array().unwrap() {
        let count = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let (b, c) = (count("b"), count("c"));
        assert_close(
            mcnemar_exact(b, c),
            case["p"].as_f64().unwrap(),
            &format!("{b} against {c}"),
        );
    }
}

#[test]
fn correction_for_many_metrics_equals_holm() {
    for case in numbers()["holm"].as_array().unwrap() {
        let ours = holm_correction(&floats(&case["p"]));
        for (ours, theirs) in ours.into_iter().zip(floats(&case["corrected"])) {
            assert_close(ours, theirs, "corrected p-value");
        }
    }
}

#[test]
fn interval_equals_scipy_within_its_error() {
    for (name, case) in numbers()["bootstrap"].as_object().unwrap() {
        let differences = floats(&case["differences"]);
        for resamples in [2_000, 10_000] {
            let ours = paired_bootstrap(&differences, resamples).unwrap();
            let (low, high) = (
                case["low"].as_f64().unwrap(),
                case["high"].as_f64().unwrap(),
            );
            let width = high - low;
            let error = (ours.low - low).abs().max((ours.high - high).abs()) / width;
            println!(
                "{name}, {resamples} resamples: off by {:.2} % of the width",
                100.0 * error
            );
            // Three times the documented error of one bound: 2 % at 2,000 resamples, 1 % at 10,000.
            let stated = if resamples == 2_000 { 0.02 } else { 0.01 };
            assert!(
                error < 3.0 * stated,
                "{name}: {ours:?} against {low}..{high}"
            );
            assert_eq!(
                ours.p_value < 0.05,
                !(ours.low <= 0.0 && ours.high >= 0.0),
                "{name}: {ours:?}"
            );
        }
    }
}
