//! The measures of one group, accumulated unit by unit.

use serde_json::{Map, Number, Value};

use super::MeasureValues;
use super::durations::Durations;
use super::measure::{EvaluationSource, EvaluationStat, Measure, Usage, UsageStat};
use super::rows::EvaluationOutcome;
use super::usage::Contribution;

/// A sum in fixed point, which does not depend on the order of its terms: pages and stores return
/// spans in different orders. The resolution is 1e-12, finer than the price of a token.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ExactSum(i128);

impl ExactSum {
    const SCALE: f64 = 1e12;

    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    pub(super) fn add(&mut self, value: f64) {
        self.0 = self.0.saturating_add((value * Self::SCALE).round() as i128);
    }

    pub(super) fn value(self) -> f64 {
        self.0 as f64 / Self::SCALE
    }
}

/// The sum of one kind of usage in a unit or a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsageSum {
    sum: ExactSum,
    /// Number of calls with a value.
    known: u64,
    /// Number of calls without a value.
    unknown: u64,
    /// Number of units with a value.
    units: u64,
}

impl UsageSum {
    /// Adds the contribution of a call.
    pub(super) fn add(&mut self, contribution: Contribution) {
        match contribution {
            Contribution::Nothing => {}
            Contribution::Unknown => self.unknown += 1,
            Contribution::Value(value) => {
                self.sum.add(value);
                self.known += 1;
            }
        }
    }
}

/// The stats of one unit: a span or a trace.
#[derive(Debug, Clone, Default)]
pub(super) struct UnitStats {
    pub(super) has_error: bool,
    pub(super) failed: bool,
    pub(super) duration_ns: i64,
    pub(super) usage: [UsageSum; 4],
    /// The outcome for each label of the request.
    pub(super) outcomes: Vec<EvaluationOutcome>,
}

#[derive(Debug, Clone, Copy, Default)]
struct LabelSum {
    scored: u64,
    score: ExactSum,
    assessed: u64,
    passed: u64,
}

/// The accumulated stats of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupStats {
    pub(super) count: u64,
    errors: u64,
    failures: u64,
    durations_ns: Vec<i64>,
    usage: [UsageSum; 4],
    labels: Vec<LabelSum>,
}

impl GroupStats {
    pub(super) fn add(&mut self, unit: &UnitStats, with_duration: bool) {
        self.count += 1;
        self.errors += u64::from(unit.has_error);
        self.failures += u64::from(unit.failed);
        if with_duration {
            self.durations_ns.push(unit.duration_ns);
        }
        for (sum, other) in self.usage.iter_mut().zip(&unit.usage) {
            sum.sum.0 = sum.sum.0.saturating_add(other.sum.0);
            sum.known += other.known;
            sum.unknown += other.unknown;
            sum.units += u64::from(other.known > 0);
        }
        self.add_verdicts(&unit.outcomes);
    }

    /// Adds a unit that is one span.
    pub(super) fn add_span(
        &mut self,
        failed: bool,
        duration_ns: Option<i64>,
        outcomes: &[EvaluationOutcome],
    ) {
        self.count += 1;
        self.errors += u64::from(failed);
        self.failures += u64::from(failed);
        self.durations_ns.extend(duration_ns);
        self.add_verdicts(outcomes);
    }

    fn add_verdicts(&mut self, outcomes: &[EvaluationOutcome]) {
        self.labels.resize(outcomes.len(), LabelSum::default());
        for (sum, outcome) in self.labels.iter_mut().zip(outcomes) {
            if let Some(score) = outcome.score {
                sum.scored += 1;
                sum.score.add(score);
            }
            if let Some(passed) = outcome.passed {
                sum.assessed += 1;
                sum.passed += u64::from(passed);
            }
        }
    }

    /// The durations of its units.
    pub(super) fn durations_ns(&self) -> &[i64] {
        &self.durations_ns
    }

    /// Adds all units of another group of single spans.
    pub(super) fn merge(&mut self, other: &Self) {
        self.merge_sums(other);
        self.durations_ns.extend_from_slice(&other.durations_ns);
    }

    /// Same as [`Self::merge`], reusing the memory of the other group.
    pub(super) fn absorb(&mut self, mut other: Self) {
        if self.durations_ns.len() < other.durations_ns.len() {
            std::mem::swap(&mut self.durations_ns, &mut other.durations_ns);
        }
        self.merge(&other);
    }

    /// Same as [`Self::merge`], without the durations.
    pub(super) fn merge_sums(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.failures += other.failures;
        self.labels.resize(
            other.labels.len().max(self.labels.len()),
            LabelSum::default(),
        );
        for (sum, other) in self.labels.iter_mut().zip(&other.labels) {
            sum.scored += other.scored;
            sum.score.0 = sum.score.0.saturating_add(other.score.0);
            sum.assessed += other.assessed;
            sum.passed += other.passed;
        }
    }

    /// Computes the measures; `labels` are in the order of the outcomes.
    pub(super) fn measure(
        &self,
        measures: &[Measure],
        labels: &[(EvaluationSource, String)],
    ) -> MeasureValues {
        self.measure_with_durations(&[&self.durations_ns], measures, labels)
    }

    /// Same as [`Self::measure`], with durations that are stored elsewhere.
    pub(super) fn measure_with_durations(
        &self,
        durations_ns: &[&[i64]],
        measures: &[Measure],
        labels: &[(EvaluationSource, String)],
    ) -> MeasureValues {
        let durations = Durations::new(durations_ns);
        let mut values = Map::new();
        for measure in measures {
            let label = match measure {
                Measure::Evaluation(source, label, _) => labels
                    .iter()
                    .position(|(by, name)| by == source && name == label)
                    .and_then(|at| self.labels.get(at))
                    .copied()
                    .unwrap_or_default(),
                _ => LabelSum::default(),
            };
            let Some((value, known, all)) = self.value_of(measure, label, &durations) else {
                continue;
            };
            values.insert(measure.to_string(), value);
            if known < all
                && let Some(source) = measure.source()
            {
                let known_for = Value::from(format!("{known} of {all}"));
                values.insert(format!("{source}.known_for"), known_for);
            }
        }
        MeasureValues {
            count: self.count,
            values,
        }
    }

    /// The value of a measure, the number of units or calls for which it is known, and their total
    /// number.
    fn value_of(
        &self,
        measure: &Measure,
        label: LabelSum,
        durations: &Durations<'_>,
    ) -> Option<(Value, u64, u64)> {
        let complete = |value| Some((value, 0, 0));
        match measure {
            // Part of every answer, outside the measures.
            Measure::Count => None,
            Measure::ErrorRate => complete(ratio(self.errors as f64, self.count)),
            Measure::FailureRate => complete(ratio(self.failures as f64, self.count)),
            Measure::Duration(percent) => complete(match durations.percentile(*percent) {
                Some(ns) => rounded(ns as f64 / 1e6),
                None => Value::Null,
            }),
            Measure::Usage(usage, stat) => {
                let sum = self.usage_of(*usage);
                let value = match stat {
                    UsageStat::Sum => sum_or_null(&sum),
                    UsageStat::Mean => ratio(sum.sum.value(), sum.units),
                };
                Some((value, sum.known, sum.known + sum.unknown))
            }
            Measure::CostPerSuccess => {
                let sum = self.usage_of(Usage::Cost);
                let value = match sum_or_null(&sum) {
                    Value::Null => Value::Null,
                    _ => ratio(sum.sum.value(), self.count - self.failures),
                };
                Some((value, sum.known, sum.known + sum.unknown))
            }
            Measure::Evaluation(_, _, stat) => {
                let known = label.scored.max(label.assessed);
                let value = match stat {
                    EvaluationStat::Mean => ratio(label.score.value(), label.scored),
                    EvaluationStat::PassRate => ratio(label.passed as f64, label.assessed),
                };
                Some((value, known, self.count))
            }
        }
    }

    fn usage_of(&self, usage: Usage) -> UsageSum {
        self.usage.get(usage as usize).copied().unwrap_or_default()
    }
}

/// The sum; null if there are calls and none has a value.
fn sum_or_null(sum: &UsageSum) -> Value {
    if sum.known == 0 && sum.unknown > 0 {
        Value::Null
    } else {
        rounded(sum.sum.value())
    }
}

/// A fraction; null if the denominator is 0.
pub(super) fn ratio(numerator: f64, denominator: u64) -> Value {
    if denominator == 0 {
        return Value::Null;
    }
    rounded(numerator / denominator as f64)
}

/// Rounds to six significant digits or three decimals, whichever is more precise. Sums of the same
/// numbers in any order agree to that. Integers have no decimal point.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn rounded(value: f64) -> Value {
    let value = if value.abs() >= 1_000.0 {
        (value * 1_000.0).round() / 1_000.0
    } else {
        format!("{value:.5e}").parse().unwrap_or(value)
    };
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Value::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}
