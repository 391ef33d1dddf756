//! The measures of a group, and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One measure of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Measure {
    /// Number of units; part of every answer.
    Count,
    /// Fraction of the units with an error: spans with status `error`, traces with any such span.
    ErrorRate,
    /// Fraction of the units that failed: spans with status `error`, traces whose root span has it.
    FailureRate,
    /// A percentile of the durations, in milliseconds. The duration of a trace is the time from its
    /// first start to its last end.
    Duration(u8),
    /// Tokens or cost of model calls.
    Usage(Usage, UsageStat),
    /// Cost of all units divided by the number of units that did not fail, in USD.
    CostPerSuccess,
    /// Evaluations or feedback with one label.
    Evaluation(EvaluationSource, String, EvaluationStat),
}

/// Usage of a model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// `input_tokens`.
    InputTokens,
    /// `output_tokens`.
    OutputTokens,
    /// `total_tokens`, else the sum of input and output tokens.
    TotalTokens,
    /// Cost in USD, as in [`crate::model::cost`].
    Cost,
}

/// A statistic of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageStat {
    /// The sum.
    Sum,
    /// The mean over the units that have a value.
    Mean,
}

/// Where an evaluation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvaluationSource {
    /// An evaluator.
    Evaluation,
    /// Feedback of an end user.
    Feedback,
}

/// A statistic of evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationStat {
    /// The mean score; true counts as 1, false as 0. A trace has the mean of its spans.
    Mean,
    /// Fraction of the assessed units that passed. A trace passes if none of its spans failed.
    PassRate,
}

/// The error for a name that is not a measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a measure is one of count, error_rate, failure_rate, duration.p50 (or p95, p99), \
     input_tokens, output_tokens, total_tokens or cost with .sum or .mean, cost.per_success, \
     evaluation.<label>.mean, evaluation.<label>.pass_rate, feedback.<label>.mean"
)]
pub struct MeasureError;

impl Usage {
    /// All kinds of usage, in the order of the sums.
    pub(super) const ALL: [Self; 4] = [
        Self::InputTokens,
        Self::OutputTokens,
        Self::TotalTokens,
        Self::Cost,
    ];

    /// Its name in a measure.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::TotalTokens => "total_tokens",
            Self::Cost => "cost",
        }
    }
}

impl EvaluationSource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation",
            Self::Feedback => "feedback",
        }
    }
}

impl Measure {
    /// The measures that a name selects: one measure, or a family such as `duration`, `cost` or
    /// `evaluation.tone`.
    ///
    /// # Errors
    ///
    /// If the name is neither.
    pub fn family(text: &str) -> Result<Vec<Self>, MeasureError> {
        let text = text.trim();
        if let Ok(measure) = text.parse() {
            return Ok(vec![measure]);
        }
        let usage = |usage| {
            vec![
                Self::Usage(usage, UsageStat::Sum),
                Self::Usage(usage, UsageStat::Mean),
            ]
        };
        Ok(match text {
            "duration" | "latency" | "duration_ms" => [50, 95, 99].map(Self::Duration).to_vec(),
            "errors" | "error" => vec![Self::ErrorRate],
            "tokens" | "total_tokens" => usage(Usage::TotalTokens),
            "input_tokens" => usage(Usage::InputTokens),
            "output_tokens" => usage(Usage::OutputTokens),
            "cost" | "total_cost" | "estimated_total_cost" => usage(Usage::Cost),
            _ => {
                let (source, label) = parse_evaluation(text).ok_or(MeasureError)?;
                [EvaluationStat::Mean, EvaluationStat::PassRate]
                    .map(|stat| Self::Evaluation(source, label.to_owned(), stat))
                    .to_vec()
            }
        })
    }

    /// The common prefix of measures with the same source: `cost`, `evaluation.tone`.
    pub(super) fn source(&self) -> Option<String> {
        match self {
            Self::Usage(usage, _) => Some(usage.as_str().to_owned()),
            Self::CostPerSuccess => Some(Usage::Cost.as_str().to_owned()),
            Self::Evaluation(source, label, _) => Some(format!("{}.{label}", source.as_str())),
            Self::Count | Self::ErrorRate | Self::FailureRate | Self::Duration(_) => None,
        }
    }
}

fn parse_evaluation(text: &str) -> Option<(EvaluationSource, &str)> {
    let (family, label) = text.split_once('.')?;
    let source = match family {
        "evaluation" | "evaluations" => EvaluationSource::Evaluation,
        "feedback" => EvaluationSource::Feedback,
        _ => return None,
    };
    let label = label.strip_prefix("custom.").unwrap_or(label);
    (!label.is_empty()).then_some((source, label))
}

impl FromStr for Measure {
    type Err = MeasureError;

    fn from_str(text: &str) -> Result<Self, MeasureError> {
        match text {
            "count" => return Ok(Self::Count),
            "error_rate" => return Ok(Self::ErrorRate),
            "failure_rate" => return Ok(Self::FailureRate),
            "cost.per_success" | "cost_per_success" => return Ok(Self::CostPerSuccess),
            _ => {}
        }
        if let Some(percentile) = percentile(text) {
            return Ok(Self::Duration(percentile));
        }
        let (source, stat) = text.rsplit_once('.').ok_or(MeasureError)?;
        if let Some(usage) = Usage::ALL
            .into_iter()
            .find(|usage| usage.as_str() == source)
        {
            return match stat {
                "sum" | "total" => Ok(Self::Usage(usage, UsageStat::Sum)),
                "mean" | "avg" => Ok(Self::Usage(usage, UsageStat::Mean)),
                _ => Err(MeasureError),
            };
        }
        let stat = match stat {
            "mean" | "avg" => EvaluationStat::Mean,
            "pass_rate" => EvaluationStat::PassRate,
            _ => return Err(MeasureError),
        };
        let (source, label) = parse_evaluation(source).ok_or(MeasureError)?;
        Ok(Self::Evaluation(source, label.to_owned(), stat))
    }
}

/// `duration.p95`, `duration_p95`, `p95`.
fn percentile(text: &str) -> Option<u8> {
    let rest = text.strip_prefix("duration").unwrap_or(text);
    let rest = rest.strip_prefix(['.', '_']).unwrap_or(rest);
    let percent = rest.strip_prefix('p')?.parse().ok()?;
    (1..=99).contains(&percent).then_some(percent)
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::ErrorRate => f.write_str("error_rate"),
            Self::FailureRate => f.write_str("failure_rate"),
            Self::Duration(percent) => write!(f, "duration.p{percent}"),
            Self::Usage(usage, UsageStat::Sum) => write!(f, "{}.sum", usage.as_str()),
            Self::Usage(usage, UsageStat::Mean) => write!(f, "{}.mean", usage.as_str()),
            Self::CostPerSuccess => f.write_str("cost.per_success"),
            Self::Evaluation(source, label, EvaluationStat::Mean) => {
                write!(f, "{}.{label}.mean", source.as_str())
            }
            Self::Evaluation(source, label, EvaluationStat::PassRate) => {
                write!(f, "{}.{label}.pass_rate", source.as_str())
            }
        }
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl TryFrom<String> for Measure {
    type Error = MeasureError;

    fn try_from(text: String) -> Result<Self, MeasureError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_round_trip_through_their_names() {
        for text in [
            "count",
            "error_rate",
            "failure_rate",
            "duration.p50",
            "duration.p99",
            "input_tokens.sum",
            "output_tokens.mean",
            "total_tokens.sum",
            "cost.mean",
            "cost.per_success",
            "evaluation.faithfulness.mean",
            "evaluation.tone.of.voice.pass_rate",
            "feedback.thumbs.mean",
        ] {
            assert_eq!(text.parse::<Measure>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn short_names_expand_to_families() {
        let names = |text: &str| -> Vec<String> {
            let family = Measure::family(text).unwrap();
            family.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("p95"), ["duration.p95"]);
        assert_eq!(names("cost"), ["cost.sum", "cost.mean"]);
        assert_eq!(
            names("evaluation.tone"),
            ["evaluation.tone.mean", "evaluation.tone.pass_rate"]
        );
        for text in ["", "p100", "speed", "cost.max", "evaluation.", "x.y.mean"] {
            assert!(Measure::family(text).is_err(), "{text}");
        }
    }
}
