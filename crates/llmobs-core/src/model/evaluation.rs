//! Evaluations and end-user feedback on a span, a trace or a session.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An evaluation, made by a judge, by code or by a person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Name of the metric; contains no dot.
    pub label: String,
    /// Evaluation or end-user feedback.
    pub event_kind: EventKind,
    /// The type of `value`.
    pub metric_type: MetricType,
    /// A number, a boolean, text or an object, by `metric_type`; `None` when the evaluation failed.
    pub value: Option<Value>,
    /// Pass or fail, if criteria are defined.
    pub assessment: Option<Assessment>,
    /// The judge's explanation.
    pub reasoning: Option<String>,
    /// Whether the evaluation succeeded.
    pub status: EvalStatus,
    /// Why the evaluation failed: `{type, message, …}`.
    pub error: Option<Value>,
    /// Tags as sent, `key:value`.
    pub tags: Vec<String>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// When it was made, in milliseconds since the Unix epoch. The newest of a label is used.
    pub timestamp_ms: i64,
    /// Other keys, unchanged (`submitter`, `eval_scope`, …).
    pub extra: Map<String, Value>,
}

impl Evaluation {
    /// The value as a number; true is 1 and false is 0. `None` for other values.
    pub fn score(&self) -> Option<f64> {
        match self.value.as_ref()? {
            Value::Bool(true) => Some(1.0),
            Value::Bool(false) => Some(0.0),
            value => value.as_f64(),
        }
    }
}

/// Evaluation or end-user feedback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Made by a judge or by code.
    #[default]
    Evaluation,
    /// Made by a user of the application.
    Feedback,
}

/// The type of an evaluation's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// A number.
    #[default]
    Score,
    /// One of a set of categories.
    Categorical,
    /// True or false.
    Boolean,
    /// An object.
    Json,
    /// Free text (feedback only).
    Text,
}

impl MetricType {
    /// All types, in the order of Datadog's documentation.
    pub const ALL: [MetricType; 5] = [
        MetricType::Score,
        MetricType::Categorical,
        MetricType::Boolean,
        MetricType::Json,
        MetricType::Text,
    ];

    /// The wire form. The key of the value on the wire is `<type>_value`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Score => "score",
            MetricType::Categorical => "categorical",
            MetricType::Boolean => "boolean",
            MetricType::Json => "json",
            MetricType::Text => "text",
        }
    }

    /// Parses the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|metric_type| metric_type.as_str() == text)
    }
}

/// The outcome of an evaluation with criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assessment {
    /// The criteria are met.
    Pass,
    /// The criteria are not met.
    Fail,
}

impl Assessment {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Assessment::Pass => "pass",
            Assessment::Fail => "fail",
        }
    }

    /// Parses the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        match text {
            "pass" => Some(Assessment::Pass),
            "fail" => Some(Assessment::Fail),
            _ => None,
        }
    }
}

/// Whether an evaluation succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EvalStatus {
    /// The evaluation succeeded.
    #[default]
    Ok,
    /// The evaluation was skipped or is uncertain; it may have no value.
    Warn,
    /// The evaluation failed and has no value.
    Error,
}

impl EvalStatus {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            EvalStatus::Ok => "OK",
            EvalStatus::Warn => "WARN",
            EvalStatus::Error => "ERROR",
        }
    }

    /// Parses the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        match text {
            "OK" => Some(EvalStatus::Ok),
            "WARN" => Some(EvalStatus::Warn),
            "ERROR" => Some(EvalStatus::Error),
            _ => None,
        }
    }
}
