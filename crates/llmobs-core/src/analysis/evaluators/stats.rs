//! Statistics of the evaluations with one name.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use crate::model::{Assessment, EvalStatus, MetricType, Span};

/// Maximum number of listed values.
const MAX_TOP_VALUES: usize = 10;

/// Statistics of the evaluations with one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EvaluationStats {
    /// The most frequent type: `boolean`, `score`, `categorical` or `json`; absent without
    /// evaluations.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<&'static str>,
    /// Number of evaluations, including those without a value.
    pub total_count: u64,
    /// Number of passed evaluations; absent without assessments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_count: Option<u64>,
    /// Number of failed evaluations; absent without assessments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_count: Option<u64>,
    /// Fraction of assessed evaluations that passed, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_rate: Option<f64>,
    /// The distribution of the scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreDistribution>,
    /// The most frequent values of a boolean or categorical evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top_values: Vec<ValueCount>,
    /// Number of distinct values, if more than are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_values: Option<usize>,
    /// Number of evaluations per status, if some are not `OK`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_status: BTreeMap<&'static str, u64>,
}

/// The distribution of scores. Percentiles use the nearest rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreDistribution {
    /// The mean.
    pub mean: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
}

/// A value and its number of occurrences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueCount {
    /// The value.
    pub value: Value,
    /// The number of occurrences.
    pub count: u64,
}

/// Counts the evaluations with one name, span by span.
#[derive(Debug, Default)]
pub struct EvaluationCounter {
    label: String,
    sessions: HashSet<String>,
    types: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<&'static str, u64>,
    passed: u64,
    failed: u64,
    scores: Vec<f64>,
    values: BTreeMap<String, (Value, u64)>,
}

impl EvaluationCounter {
    /// A counter for evaluations with the given label.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            ..Self::default()
        }
    }

    /// Counts a span's evaluation with the label, if there is one. The evaluation of a session is
    /// joined to the root spans of all its traces and counts once.
    pub fn add(&mut self, span: &Span) {
        let Some(evaluation) = span.evaluations.get(&self.label) else {
            return;
        };
        let scope = evaluation.extra.get("eval_scope").and_then(Value::as_str);
        if scope == Some("session")
            && let Some(session) = &span.session_id
            && !self.sessions.insert(session.clone())
        {
            return;
        }
        let metric_type = evaluation.metric_type;
        *self.types.entry(metric_type.as_str()).or_default() += 1;
        *self.statuses.entry(evaluation.status.as_str()).or_default() += 1;
        match evaluation.assessment {
            Some(Assessment::Pass) => self.passed += 1,
            Some(Assessment::Fail) => self.failed += 1,
            None => {}
        }
        match (&evaluation.value, metric_type) {
            (Some(Value::Number(number)), MetricType::Score) => self.scores.extend(number.as_f64()),
            (Some(value), MetricType::Boolean | MetricType::Categorical) => {
                let entry = self.values.entry(value.to_string());
                entry.or_insert_with(|| (value.clone(), 0)).1 += 1;
            }
            _ => {}
        }
    }

    /// The statistics of all counted evaluations.
    pub fn finish(mut self) -> EvaluationStats {
        let assessed = self.passed + self.failed;
        let most_frequent = |counts: &BTreeMap<&'static str, u64>| {
            counts
                .iter()
                .max_by_key(|(_, count)| **count)
                .map(|(name, _)| *name)
        };
        let distinct = self.values.len();
        let mut top_values: Vec<ValueCount> = self
            .values
            .into_values()
            .map(|(value, count)| ValueCount { value, count })
            .collect();
        top_values.sort_by_key(|value| std::cmp::Reverse(value.count));
        top_values.truncate(MAX_TOP_VALUES);
        let not_ok = self
            .statuses
            .keys()
            .any(|status| *status != EvalStatus::Ok.as_str());
        self.scores.sort_by(f64::total_cmp);
        EvaluationStats {
            metric_type: most_frequent(&self.types),
            total_count: self.types.values().sum(),
            pass_count: (assessed > 0).then_some(self.passed),
            fail_count: (assessed > 0).then_some(self.failed),
            pass_rate: (assessed > 0).then(|| rounded(self.passed as f64 / assessed as f64)),
            score: distribution(&self.scores),
            distinct_values: (distinct > MAX_TOP_VALUES).then_some(distinct),
            top_values,
            by_status: if not_ok {
                self.statuses
            } else {
                BTreeMap::new()
            },
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// The distribution of sorted scores.
fn distribution(sorted: &[f64]) -> Option<ScoreDistribution> {
    let rank = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    };
    Some(ScoreDistribution {
        mean: rounded(sorted.iter().sum::<f64>() / sorted.len() as f64),
        min: *sorted.first()?,
        max: *sorted.last()?,
        p50: rank(50)?,
        p90: rank(90)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Evaluation;
    use serde_json::json;

    fn evaluated_span(
        value: Value,
        metric_type: MetricType,
        assessment: Option<Assessment>,
    ) -> Span {
        let evaluation = Evaluation {
            label: "tone".into(),
            value: Some(value),
            metric_type,
            assessment,
            ..Evaluation::default()
        };
        Span {
            evaluations: [("tone".to_owned(), evaluation)].into(),
            ..Span::default()
        }
    }

    fn stats_of(spans: &[Span]) -> Value {
        let mut counter = EvaluationCounter::new("tone");
        spans.iter().for_each(|span| counter.add(span));
        serde_json::to_value(counter.finish()).unwrap()
    }

    #[test]
    fn scores_have_a_distribution_and_a_pass_rate() {
        let spans: Vec<Span> = (1..=10)
            .map(|n| {
                let assessment = if n > 4 {
                    Assessment::Pass
                } else {
                    Assessment::Fail
                };
                evaluated_span(json!(n), MetricType::Score, Some(assessment))
            })
            .collect();
        assert_eq!(
            stats_of(&spans),
            json!({"type": "score", "total_count": 10, "pass_count": 6, "fail_count": 4,
                "pass_rate": 0.6, "score": {"mean": 5.5, "min": 1.0, "max": 10.0, "p50": 5.0, "p90": 9.0}})
        );
    }

    #[test]
    fn counts_categories_without_pass_counts() {
        let category = |name: &str| evaluated_span(json!(name), MetricType::Categorical, None);
        assert_eq!(
            stats_of(&[category("a"), category("b"), category("b"), Span::default()]),
            json!({"type": "categorical", "total_count": 3,
                "top_values": [{"value": "b", "count": 2}, {"value": "a", "count": 1}]})
        );
        assert_eq!(stats_of(&[]), json!({"total_count": 0}));
    }

    #[test]
    fn session_evaluation_counts_once() {
        let mut root = evaluated_span(json!(true), MetricType::Boolean, None);
        root.session_id = Some("s".into());
        let evaluation = root.evaluations.get_mut("tone").unwrap();
        evaluation
            .extra
            .insert("eval_scope".into(), json!("session"));
        evaluation.status = EvalStatus::Warn;
        assert_eq!(
            stats_of(&[root.clone(), root]),
            json!({"type": "boolean", "total_count": 1, "top_values": [{"value": true, "count": 1}],
                "by_status": {"WARN": 1}})
        );
    }
}
