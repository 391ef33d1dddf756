//! Statistics of one metric over events.

use std::collections::BTreeMap;

use serde_json::Value;

use super::numbers::{mean, percentile, std_dev};
use crate::model::{Assessment, EvalStatus, ExperimentEvent, MetricType, find_label};

/// A metric of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelInfo {
    /// Name of the metric.
    pub label: String,
    /// The most frequent type of its values.
    pub metric_type: MetricType,
}

/// Statistics of one metric. Each event is counted in exactly one of the first six fields.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricStats {
    /// Number of values in the statistics.
    pub count: usize,
    /// Number of events on which the evaluator failed.
    pub evaluator_errors: usize,
    /// Number of events whose metric has neither a value nor an error.
    pub no_value: usize,
    /// Number of values of another type, which are excluded.
    pub other_type: usize,
    /// Number of events without this metric.
    pub missing: usize,
    /// Number of events excluded because their task failed, with or without the metric.
    pub failed_left_out: usize,
    /// Number of values with assessment `pass`.
    pub pass_count: usize,
    /// Number of values with assessment `fail`.
    pub fail_count: usize,
    /// Statistics of the values, by type.
    pub values: MetricValues,
}

/// Statistics of values, by type.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValues {
    /// Numbers; `None` without values.
    Score(Option<ScoreStats>),
    /// Booleans.
    Boolean {
        /// Number of true values.
        true_count: usize,
        /// Number of false values.
        false_count: usize,
    },
    /// Number of values per category.
    Categorical(BTreeMap<String, usize>),
    /// Statistics per top-level key of objects.
    Json(BTreeMap<String, FieldStats>),
}

/// Statistics of numbers. Values that would not be finite are `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreStats {
    /// The mean.
    pub mean: Option<f64>,
    /// The sample standard deviation; `None` for fewer than two values.
    pub std_dev: Option<f64>,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
    /// The median.
    pub p50: Option<f64>,
    /// The 90th percentile.
    pub p90: Option<f64>,
    /// The 95th percentile.
    pub p95: Option<f64>,
}

/// Statistics of one key of JSON values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FieldStats {
    /// Number of objects with the key.
    pub count: usize,
    /// Number of numeric values, with booleans as 0 and 1.
    pub numbers: usize,
    /// The mean of the numeric values.
    pub mean: Option<f64>,
}

/// The metrics of the events, sorted by label.
pub fn metric_labels(events: &[ExperimentEvent]) -> Vec<LabelInfo> {
    // For each label, sorted: the number of valid values and the number of metrics of each type.
    // The numbers of metrics decide where no value is valid.
    let mut by_label: Vec<(&str, [(usize, usize); MetricType::ALL.len()])> = Vec::new();
    for event in events {
        // Most events have the same labels in the same order.
        let mut guess = 0;
        for metric in &event.metrics {
            let label = metric.label.as_str();
            guess = find_label(&by_label, guess, |(label, _)| label, label).unwrap_or_else(
                |insert_at| {
                    by_label.insert(insert_at, (label, Default::default()));
                    insert_at
                },
            );
            let type_index = MetricType::ALL
                .iter()
                .position(|metric_type| *metric_type == metric.metric_type);
            let counts = by_label.get_mut(guess).map(|(_, counts)| counts);
            if let Some((valid, declared)) = counts
                .zip(type_index)
                .and_then(|(counts, type_index)| counts.get_mut(type_index))
            {
                *valid += usize::from(metric.valid_value().is_some());
                *declared += 1;
            }
            guess += 1;
        }
    }
    by_label
        .into_iter()
        .map(|(label, counts)| {
            let most_frequent = counts
                .iter()
                .zip(MetricType::ALL)
                .rev()
                .max_by_key(|(count, _)| **count);
            LabelInfo {
                label: label.to_owned(),
                metric_type: most_frequent
                    .map(|(_, metric_type)| metric_type)
                    .unwrap_or_default(),
            }
        })
        .collect()
}

/// Computes the statistics of a metric over the events.
pub fn metric_stats<'a>(
    events: impl IntoIterator<Item = &'a ExperimentEvent>,
    info: &LabelInfo,
    include_failed: bool,
) -> MetricStats {
    let mut stats = MetricStats {
        count: 0,
        evaluator_errors: 0,
        no_value: 0,
        other_type: 0,
        missing: 0,
        failed_left_out: 0,
        pass_count: 0,
        fail_count: 0,
        values: MetricValues::Score(None),
    };
    let mut values: Vec<&Value> = Vec::new();
    let mut guess = 0;
    for event in events {
        if event.is_error() && !include_failed {
            stats.failed_left_out += 1;
            continue;
        }
        let Some(metric) = event.metric_near(&info.label, &mut guess) else {
            stats.missing += 1;
            continue;
        };
        let Some(value) = metric.valid_value() else {
            if metric.status == EvalStatus::Error {
                stats.evaluator_errors += 1;
            } else {
                stats.no_value += 1;
            }
            continue;
        };
        if metric.metric_type != info.metric_type {
            stats.other_type += 1;
            continue;
        }
        match metric.assessment {
            Some(Assessment::Pass) => stats.pass_count += 1,
            Some(Assessment::Fail) => stats.fail_count += 1,
            None => {}
        }
        values.push(value);
    }
    stats.count = values.len();
    stats.values = summarize(&values, info.metric_type);
    stats
}

fn summarize(values: &[&Value], metric_type: MetricType) -> MetricValues {
    match metric_type {
        MetricType::Score => MetricValues::Score(score_stats(values)),
        MetricType::Boolean => {
            let true_count = values.iter().filter(|v| v.as_bool() == Some(true)).count();
            MetricValues::Boolean {
                true_count,
                false_count: values.len() - true_count,
            }
        }
        MetricType::Categorical | MetricType::Text => {
            let mut counts = BTreeMap::new();
            for value in values {
                let category = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                *counts.entry(category).or_default() += 1;
            }
            MetricValues::Categorical(counts)
        }
        MetricType::Json => MetricValues::Json(field_stats(values)),
    }
}

fn score_stats(values: &[&Value]) -> Option<ScoreStats> {
    let mut numbers: Vec<f64> = values
        .iter()
        .filter_map(|value| value.as_f64())
        .filter(|number| number.is_finite())
        .collect();
    numbers.sort_by(f64::total_cmp);
    Some(ScoreStats {
        mean: mean(&numbers),
        std_dev: std_dev(&numbers),
        min: *numbers.first()?,
        max: *numbers.last()?,
        p50: percentile(&numbers, 0.5),
        p90: percentile(&numbers, 0.9),
        p95: percentile(&numbers, 0.95),
    })
}

fn field_stats(values: &[&Value]) -> BTreeMap<String, FieldStats> {
    let mut numbers: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
    for map in values.iter().filter_map(|value| value.as_object()) {
        for (key, value) in map {
            let (count, numbers) = numbers.entry(key).or_default();
            *count += 1;
            let number = match value {
                Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
                other => other.as_f64(),
            };
            numbers.extend(number.filter(|number| number.is_finite()));
        }
    }
    numbers
        .into_iter()
        .map(|(key, (count, numbers))| {
            let stats = FieldStats {
                count,
                numbers: numbers.len(),
                mean: mean(&numbers),
            };
            (key.to_owned(), stats)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExperimentMetric, ExperimentSpan, Status};
    use proptest::prelude::*;
    use serde_json::json;

    fn event(value: Option<Value>, status: Status) -> ExperimentEvent {
        let metric = value.map(|value| ExperimentMetric {
            label: "m".into(),
            metric_type: match value {
                Value::Bool(_) => MetricType::Boolean,
                Value::String(_) => MetricType::Categorical,
                Value::Object(_) => MetricType::Json,
                _ => MetricType::Score,
            },
            status: if value.is_null() {
                EvalStatus::Error
            } else {
                EvalStatus::Ok
            },
            assessment: (value == json!(1)).then_some(Assessment::Pass),
            value: Some(value).filter(|value| !value.is_null()),
            ..ExperimentMetric::default()
        });
        ExperimentEvent {
            span: ExperimentSpan {
                status,
                ..ExperimentSpan::default()
            },
            metrics: metric.into_iter().collect(),
            ..ExperimentEvent::default()
        }
    }

    fn stats(events: &[ExperimentEvent], include_failed: bool) -> MetricStats {
        let info = metric_labels(events).remove(0);
        metric_stats(events, &info, include_failed)
    }

    #[test]
    fn counts_events_without_value_separately() {
        let events = [
            event(Some(json!(1)), Status::Ok),
            event(Some(json!(3)), Status::Ok),
            event(Some(json!(0)), Status::Error),
            event(Some(Value::Null), Status::Ok),
            event(Some(json!("high")), Status::Ok),
            event(None, Status::Ok),
        ];
        let without_failed = stats(&events, false);
        assert_eq!(
            (without_failed.count, without_failed.failed_left_out),
            (2, 1)
        );
        assert_eq!(
            (
                without_failed.evaluator_errors,
                without_failed.other_type,
                without_failed.missing
            ),
            (1, 1, 1)
        );
        assert_eq!(
            (without_failed.pass_count, without_failed.fail_count),
            (1, 0)
        );
        let MetricValues::Score(Some(score)) = without_failed.values else {
            panic!()
        };
        assert_eq!(
            (score.mean, score.min, score.max, score.p50),
            (Some(2.0), 1.0, 3.0, Some(2.0))
        );
        let with_failed = stats(&events, true);
        assert_eq!((with_failed.count, with_failed.failed_left_out), (3, 0));
    }

    #[test]
    fn counts_objects_by_key() {
        let events = [
            event(Some(json!({"a": 1, "b": {"c": 1}})), Status::Ok),
            event(Some(json!({"a": true})), Status::Ok),
        ];
        let MetricValues::Json(fields) = stats(&events, false).values else {
            panic!()
        };
        assert_eq!(
            fields["a"],
            FieldStats {
                count: 2,
                numbers: 2,
                mean: Some(1.0)
            }
        );
        assert_eq!(
            fields["b"],
            FieldStats {
                count: 1,
                numbers: 0,
                mean: None
            }
        );
    }

    #[test]
    fn label_has_most_frequent_type() {
        let failed = ExperimentEvent {
            metrics: vec![ExperimentMetric {
                label: "m".into(),
                metric_type: MetricType::Categorical,
                status: EvalStatus::Error,
                ..ExperimentMetric::default()
            }],
            ..ExperimentEvent::default()
        };
        let only_failed = [failed.clone(), failed.clone()];
        assert_eq!(
            metric_labels(&only_failed)[0].metric_type,
            MetricType::Categorical
        );
        let mixed = [failed.clone(), failed, event(Some(json!(1)), Status::Ok)];
        assert_eq!(metric_labels(&mixed)[0].metric_type, MetricType::Score);
    }

    proptest! {
        #[test]
        fn counts_every_event_once(
            kinds in prop::collection::vec((0_u8..6, any::<bool>(), any::<f64>()), 0..60), include in any::<bool>(),
        ) {
            let events: Vec<_> = kinds.iter().map(|(kind, failed, number)| {
                let value = match kind {
                    0 => None,
                    1 => Some(Value::Null),
                    2 => Some(json!("w")),
                    3 => Some(json!(true)),
                    _ => Some(json!(number)),
                };
                event(value, if *failed { Status::Error } else { Status::Ok })
            }).collect();
            for info in metric_labels(&events) {
                let s = metric_stats(&events, &info, include);
                let counted = s.count + s.evaluator_errors + s.no_value + s.other_type + s.missing + s.failed_left_out;
                prop_assert_eq!(counted, events.len());
                if let MetricValues::Score(Some(score)) = s.values {
                    prop_assert!(score.min <= score.max);
                    for part in [score.mean, score.std_dev, score.p50, score.p90, score.p95] {
                        prop_assert!(part.is_none_or(f64::is_finite));
                    }
                }
            }
        }
    }
}
