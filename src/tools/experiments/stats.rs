//! Statistics of a metric as JSON.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::{Keys, number};
use crate::render::cut_middle;
use llmobs_core::analysis::experiment::{LabelInfo, MetricStats, MetricValues};

/// Which of the two sets of key names the contract has: the summary's or the metric tool's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `min`, `max`, `values`.
    Summary,
    /// `min_value`, `max_value`, `value_counts`.
    Full,
}

/// Words, or keys of objects, that are shown.
const MOST_WORDS: usize = 20;
const MOST_WORD_CHARS: usize = 120;

/// The statistics of one metric.
pub(super) fn stats(info: &LabelInfo, stats: &MetricStats, form: Form) -> Value {
    let mut keys = Keys::default();
    if form == Form::Summary {
        keys.put("metric_type", info.metric_type.as_str());
    }
    keys.put("count", stats.count);
    values(&mut keys, &stats.values, form);
    keys.some("pass_count", stats.pass_count);
    keys.some("fail_count", stats.fail_count);
    keys.some("evaluator_errors", stats.evaluator_errors);
    keys.some("without_value", stats.no_value);
    keys.some("of_other_type", stats.other_type);
    keys.some("events_without_metric", stats.missing);
    keys.some("failed_events_left_out", stats.failed_left_out);
    keys.into()
}

fn values(keys: &mut Keys, values: &MetricValues, form: Form) {
    let (min, max, words) = match form {
        Form::Summary => ("min", "max", "values"),
        Form::Full => ("min_value", "max_value", "value_counts"),
    };
    match values {
        MetricValues::Score(None) => {
            keys.put("mean", Value::Null);
        }
        MetricValues::Score(Some(score)) => {
            keys.put("mean", number(score.mean));
            if form == Form::Full {
                keys.put("std_dev", number(score.std_dev));
            }
            keys.put(min, number(score.min));
            keys.put(max, number(score.max));
            keys.put("p50", number(score.p50));
            if form == Form::Full {
                keys.put("p90", number(score.p90));
                keys.put("p95", number(score.p95));
            }
        }
        MetricValues::Boolean {
            true_count,
            false_count,
        } => {
            keys.put("true_count", *true_count);
            keys.put("false_count", *false_count);
            let total = true_count + false_count;
            let rate = (total > 0).then(|| *true_count as f64 / total as f64);
            keys.put("true_rate", number(rate));
        }
        MetricValues::Categorical(counts) => {
            let mut sorted: Vec<_> = counts.iter().collect();
            sorted.sort_by_key(|(_, count)| Reverse(**count));
            let shown: Map<String, Value> = sorted
                .iter()
                .take(MOST_WORDS)
                .map(|(word, count)| (cut_middle(word, MOST_WORD_CHARS), json!(count)))
                .collect();
            keys.put(words, shown);
            keys.some("other_values", sorted.len().saturating_sub(MOST_WORDS));
        }
        MetricValues::Json(fields) => {
            let shown: Map<String, Value> = fields
                .iter()
                .take(MOST_WORDS)
                .map(|(key, field)| {
                    let mut one = Keys::default();
                    one.put("count", field.count);
                    if field.numbers > 0 {
                        one.put("mean", number(field.mean));
                    }
                    (cut_middle(key, MOST_WORD_CHARS), one.into())
                })
                .collect();
            keys.put("fields", shown);
            keys.some("other_fields", fields.len().saturating_sub(MOST_WORDS));
        }
    }
}
