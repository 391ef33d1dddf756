//! The figures of one group, gathered unit by unit.

use serde_json::{Map, Number, Value};

use super::MeasureValues;
use super::durations::Durations;
use super::measure::{EvaluationSource, EvaluationStat, Measure, Usage, UsageStat};
use super::usage::Adds;

/// A sum that does not depend on the order of its parts: pages and stores give spans in different
/// orders, and the answer must not. Kept to 1e-12, finer than the price of a token.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum(i128);

impl Sum {
    const SCALE: f64 = 1e12;

    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is larger becomes the largest"
    )]
    pub(super) fn add(&mut self, value: f64) {
        self.0 = self.0.saturating_add((value * Self::SCALE).round() as i128);
    }

    pub(super) fn value(self) -> f64 {
        self.0 as f64 / Self::SCALE
    }
}

/// Sums of one usage within a unit or a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsageSum {
    sum: Sum,
    /// Calls with a value, and without.
    known: u64,
    unknown: u64,
    /// Units with a value.
    units: u64,
}

impl UsageSum {
    /// Adds what a call adds.
    pub(super) fn add(&mut self, adds: Adds) {
        match adds {
            Adds::Nothing => {}
            Adds::Unknown => self.unknown += 1,
            Adds::Value(value) => {
                self.sum.add(value);
                self.known += 1;
            }
        }
    }
}

/// A judgement of a unit by one label.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EvaluationOutcome {
    /// Its score, if it is a number; true is 1 and false is 0.
    pub score: Option<f64>,
    /// Whether it passed, if it was assessed.
    pub passed: Option<bool>,
}

/// One span or one trace.
#[derive(Debug, Clone, Default)]
pub(super) struct UnitFacts {
    pub(super) has_error: bool,
    pub(super) failed: bool,
    pub(super) duration_ns: i64,
    pub(super) usage: [UsageSum; 4],
    /// By label, in the order of the question's labels.
    pub(super) outcomes: Vec<EvaluationOutcome>,
}

#[derive(Debug, Clone, Copy, Default)]
struct LabelSum {
    scored: u64,
    score: Sum,
    assessed: u64,
    passed: u64,
}

/// A group on the way.
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
    pub(super) fn add(&mut self, unit: &UnitFacts, keep_durations: bool) {
        self.count += 1;
        self.errors += u64::from(unit.has_error);
        self.failures += u64::from(unit.failed);
        if keep_durations {
            self.durations_ns.push(unit.duration_ns);
        }
        for (sum, part) in self.usage.iter_mut().zip(&unit.usage) {
            sum.sum.0 = sum.sum.0.saturating_add(part.sum.0);
            sum.known += part.known;
            sum.unknown += part.unknown;
            sum.units += u64::from(part.known > 0);
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

    /// How long its units took.
    pub(super) fn durations_ns(&self) -> &[i64] {
        &self.durations_ns
    }

    /// Adds all units of another group of single spans.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.add_sums(other);
        self.durations_ns.extend_from_slice(&other.durations_ns);
    }

    /// Adds all units of another group of single spans, which is not needed any more.
    pub(super) fn take_over(&mut self, mut other: Self) {
        if self.durations_ns.len() < other.durations_ns.len() {
            std::mem::swap(&mut self.durations_ns, &mut other.durations_ns);
        }
        self.add_all(&other);
    }

    /// Adds all units of another group of single spans, but not how long they took.
    pub(super) fn add_sums(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.failures += other.failures;
        self.labels.resize(
            other.labels.len().max(self.labels.len()),
            LabelSum::default(),
        );
        for (sum, part) in self.labels.iter_mut().zip(&other.labels) {
            sum.scored += part.scored;
            sum.score.0 = sum.score.0.saturating_add(part.score.0);
            sum.assessed += part.assessed;
            sum.passed += part.passed;
        }
    }

    /// The figures that the measures ask for; `labels` in the order of the outcomes.
    pub(super) fn figures(
        &self,
        measures: &[Measure],
        labels: &[(EvaluationSource, String)],
    ) -> MeasureValues {
        self.figures_with(&[&self.durations_ns], measures, labels)
    }

    /// The same, of units whose durations stand elsewhere.
    pub(super) fn figures_with(
        &self,
        durations_ns: &[&[i64]],
        measures: &[Measure],
        labels: &[(EvaluationSource, String)],
    ) -> MeasureValues {
        let durations = Durations::of(durations_ns);
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
            let Some((value, known, all)) = self.figure(measure, label, &durations) else {
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

    /// The value of a measure, and of how many of how many it is known.
    fn figure(
        &self,
        measure: &Measure,
        label: LabelSum,
        durations: &Durations<'_>,
    ) -> Option<(Value, u64, u64)> {
        let whole = |value| Some((value, 0, 0));
        match measure {
            // It stands beside the others whether asked for or not.
            Measure::Count => None,
            Measure::ErrorRate => whole(ratio(self.errors as f64, self.count)),
            Measure::FailureRate => whole(ratio(self.failures as f64, self.count)),
            Measure::Duration(percent) => whole(match durations.percentile(*percent) {
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

/// The sum; null if there were calls and none had a value.
fn sum_or_null(sum: &UsageSum) -> Value {
    if sum.known == 0 && sum.unknown > 0 {
        Value::Null
    } else {
        rounded(sum.sum.value())
    }
}

/// A part of a whole; null of nothing.
pub(super) fn ratio(part: f64, whole: u64) -> Value {
    if whole == 0 {
        return Value::Null;
    }
    rounded(part / whole as f64)
}

/// Six significant digits or three decimals, whichever is more: what sums of the same numbers in
/// any order share. Whole numbers stand without a decimal point.
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
