//! Statistics of a metric as a JSON object.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use crate::render::cut_middle;
use crate::tools::object::{JsonObject, statistic};
use llmobs_core::analysis::experiment::{LabelInfo, MetricStats, MetricValues};

/// The two sets of key names: the hosted tools differ in them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyNames {
    /// `min`, `max`, `values`, as the experiment summary has them.
    Summary,
    /// `min_value`, `max_value`, `value_counts`, as the metric tool has them.
    Metric,
}

/// Categories, or keys of JSON values, that are shown.
const MAX_CATEGORIES: usize = 20;
const MAX_CATEGORY_CHARS: usize = 120;

/// The statistics of one metric.
pub(super) fn stats(info: &LabelInfo, stats: &MetricStats, names: KeyNames) -> Value {
    let mut object = JsonObject::default();
    if names == KeyNames::Summary {
        object.set("metric_type", info.metric_type.as_str());
    }
    object.set("count", stats.count);
    set_values(&mut object, &stats.values, names);
    object.set_unless_empty("pass_count", stats.pass_count);
    object.set_unless_empty("fail_count", stats.fail_count);
    object.set_unless_empty("evaluator_errors", stats.evaluator_errors);
    object.set_unless_empty("without_value", stats.no_value);
    object.set_unless_empty("of_other_type", stats.other_type);
    object.set_unless_empty("events_without_metric", stats.missing);
    object.set_unless_empty("failed_events_left_out", stats.failed_left_out);
    object.into()
}

fn set_values(object: &mut JsonObject, values: &MetricValues, names: KeyNames) {
    let (min, max, counts_key) = match names {
        KeyNames::Summary => ("min", "max", "values"),
        KeyNames::Metric => ("min_value", "max_value", "value_counts"),
    };
    match values {
        MetricValues::Score(None) => {
            object.set("mean", Value::Null);
        }
        MetricValues::Score(Some(score)) => {
            object.set("mean", statistic(score.mean));
            if names == KeyNames::Metric {
                object.set("std_dev", statistic(score.std_dev));
            }
            object.set(min, statistic(score.min));
            object.set(max, statistic(score.max));
            object.set("p50", statistic(score.p50));
            if names == KeyNames::Metric {
                object.set("p90", statistic(score.p90));
                object.set("p95", statistic(score.p95));
            }
        }
        MetricValues::Boolean {
            true_count,
            false_count,
        } => {
            object.set("true_count", *true_count);
            object.set("false_count", *false_count);
            let total = true_count + false_count;
            let rate = (total > 0).then(|| *true_count as f64 / total as f64);
            object.set("true_rate", statistic(rate));
        }
        MetricValues::Categorical(counts) => {
            let mut sorted: Vec<_> = counts.iter().collect();
            sorted.sort_by_key(|(_, count)| Reverse(**count));
            let categories = sorted.iter().take(MAX_CATEGORIES);
            let categories: Map<String, Value> = categories
                .map(|(category, count)| (cut_middle(category, MAX_CATEGORY_CHARS), json!(count)))
                .collect();
            object.set(counts_key, categories);
            object.set_unless_empty("other_values", sorted.len().saturating_sub(MAX_CATEGORIES));
        }
        MetricValues::Json(fields) => {
            let shown = fields.iter().take(MAX_CATEGORIES);
            let shown: Map<String, Value> = shown
                .map(|(key, field)| {
                    let mut object = JsonObject::default();
                    object.set("count", field.count);
                    if field.numbers > 0 {
                        object.set("mean", statistic(field.mean));
                    }
                    (cut_middle(key, MAX_CATEGORY_CHARS), object.into())
                })
                .collect();
            object.set("fields", shown);
            object.set_unless_empty("other_fields", fields.len().saturating_sub(MAX_CATEGORIES));
        }
    }
}
