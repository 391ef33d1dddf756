//! Statistics of one metric over some events.

use std::collections::BTreeMap;

use serde_json::Value;

use super::numbers::{mean, percentile, std_dev};
use crate::model::{Assessment, EvalStatus, ExperimentEvent, MetricType, find_label};

/// A metric that occurs in an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelInfo {
    /// Its name.
    pub label: String,
    /// The type that most of its values have.
    pub metric_type: MetricType,
}

/// What the values of one metric come to.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricStats {
    /// MetricValues that were counted.
    pub count: usize,
    /// Events on which the evaluator failed: no value.
    pub evaluator_errors: usize,
    /// Events whose metric has neither a value nor an error.
    pub no_value: usize,
    /// MetricValues of another type than most; they are not counted.
    pub other_type: usize,
    /// Events without this metric.
    pub missing: usize,
    /// Events left out because their task failed, whether or not they have the metric.
    pub failed_left_out: usize,
    /// Counted values judged as passed.
    pub pass_count: usize,
    /// Counted values judged as failed.
    pub fail_count: usize,
    /// The values themselves, by type.
    pub values: MetricValues,
}

/// Statistics by type.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValues {
    /// Numbers; none when there are no values.
    Score(Option<ScoreStats>),
    /// True and false.
    Boolean {
        /// How many are true.
        true_count: usize,
        /// How many are false.
        false_count: usize,
    },
    /// How often each word occurs.
    Categorical(BTreeMap<String, usize>),
    /// What the objects hold, by their top-level key.
    Json(BTreeMap<String, FieldStats>),
}

/// Statistics of numbers. Each is finite; what would not be is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreStats {
    /// The mean.
    pub mean: Option<f64>,
    /// Standard deviation of the sample; none below two values.
    pub std_dev: Option<f64>,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The median.
    pub p50: Option<f64>,
    /// The 90th percentile.
    pub p90: Option<f64>,
    /// The 95th percentile.
    pub p95: Option<f64>,
}

/// One key of JSON values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FieldStats {
    /// MetricValues that have it.
    pub count: usize,
    /// How many of them are numbers (or booleans, as 0 and 1).
    pub numbers: usize,
    /// The mean of those.
    pub mean: Option<f64>,
}

/// All metrics of these events, by label.
pub fn metric_labels(events: &[ExperimentEvent]) -> Vec<LabelInfo> {
    // Usable values first, declared types where there are none. By label.
    let mut seen: Vec<(&str, [(usize, usize); MetricType::ALL.len()])> = Vec::new();
    for event in events {
        // Most events have the same labels in the same order.
        let mut next = 0;
        for metric in &event.metrics {
            let label = metric.label.as_str();
            next = find_label(&seen, next, |(known, _)| known, label).unwrap_or_else(|free| {
                seen.insert(free, (label, Default::default()));
                free
            });
            let place = MetricType::ALL
                .iter()
                .position(|one| *one == metric.metric_type);
            let counts = seen.get_mut(next).map(|(_, counts)| counts);
            if let Some((usable, declared)) = counts
                .zip(place)
                .and_then(|(counts, place)| counts.get_mut(place))
            {
                *usable += usize::from(metric.valid_value().is_some());
                *declared += 1;
            }
            next += 1;
        }
    }
    seen.into_iter()
        .map(|(label, counts)| {
            let most = counts
                .iter()
                .zip(MetricType::ALL)
                .rev()
                .max_by_key(|(count, _)| **count);
            LabelInfo {
                label: label.to_owned(),
                metric_type: most.map(|(_, one)| one).unwrap_or_default(),
            }
        })
        .collect()
}

/// Statistics of a metric over these events.
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
    let mut place = 0;
    for event in events {
        if event.is_error() && !include_failed {
            stats.failed_left_out += 1;
            continue;
        }
        let Some(metric) = event.metric_near(&info.label, &mut place) else {
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
    stats.values = match info.metric_type {
        MetricType::Score => MetricValues::Score(score(&values)),
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
                let word = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                *counts.entry(word).or_default() += 1;
            }
            MetricValues::Categorical(counts)
        }
        MetricType::Json => MetricValues::Json(fields(&values)),
    };
    stats
}

fn score(values: &[&Value]) -> Option<ScoreStats> {
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

fn fields(values: &[&Value]) -> BTreeMap<String, FieldStats> {
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
    fn what_is_no_value_is_counted_apart() {
        let events = [
            event(Some(json!(1)), Status::Ok),
            event(Some(json!(3)), Status::Ok),
            event(Some(json!(0)), Status::Error),
            event(Some(Value::Null), Status::Ok),
            event(Some(json!("high")), Status::Ok),
            event(None, Status::Ok),
        ];
        let found = stats(&events, false);
        assert_eq!((found.count, found.failed_left_out), (2, 1));
        assert_eq!(
            (found.evaluator_errors, found.other_type, found.missing),
            (1, 1, 1)
        );
        assert_eq!((found.pass_count, found.fail_count), (1, 0));
        let MetricValues::Score(Some(score)) = found.values else {
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
    fn objects_are_counted_by_key() {
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
    fn a_label_has_the_type_of_most_of_its_values() {
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
        fn every_event_is_counted_in_one_place(
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
                let places = s.count + s.evaluator_errors + s.no_value + s.other_type + s.missing + s.failed_left_out;
                prop_assert_eq!(places, events.len());
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
