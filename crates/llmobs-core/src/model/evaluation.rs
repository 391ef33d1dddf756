//! Evaluations and end-user feedback: judgements about a span, a trace or a session.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One judgement, by a judge model, by code or by a person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Name of the metric; holds no dot.
    pub label: String,
    /// An evaluation or end-user feedback.
    pub event_kind: EventKind,
    /// How to read `value`.
    pub metric_type: MetricType,
    /// A number, a boolean, text or an object, by `metric_type`; `None` when it failed.
    pub value: Option<Value>,
    /// Pass or fail, when criteria exist.
    pub assessment: Option<Assessment>,
    /// Why, in the judge's words.
    pub reasoning: Option<String>,
    /// Whether the judgement itself worked.
    pub status: EvalStatus,
    /// What went wrong with the judgement: `{type, message, …}`.
    pub error: Option<Value>,
    /// Tags as sent, `key:value`.
    pub tags: Vec<String>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// When it was made, in milliseconds since the Unix epoch. The newest of a label counts.
    pub timestamp_ms: i64,
    /// Other keys as sent (`submitter`, `eval_scope`, …).
    pub extra: Map<String, Value>,
}

impl Evaluation {
    /// The value as a number, if it is one; true is 1 and false is 0.
    pub fn score(&self) -> Option<f64> {
        match self.value.as_ref()? {
            Value::Bool(true) => Some(1.0),
            Value::Bool(false) => Some(0.0),
            value => value.as_f64(),
        }
    }
}

/// Whether a judgement is an evaluation or end-user feedback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// By a judge model or by code.
    #[default]
    Evaluation,
    /// By a person who used the application.
    Feedback,
}

/// The type of an evaluation's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// A number.
    #[default]
    Score,
    /// One of a set of words.
    Categorical,
    /// True or false.
    Boolean,
    /// An object.
    Json,
    /// Free text (feedback only).
    Text,
}

impl MetricType {
    /// All types, in the order of the documentation.
    pub const ALL: [MetricType; 5] = [
        MetricType::Score,
        MetricType::Categorical,
        MetricType::Boolean,
        MetricType::Json,
        MetricType::Text,
    ];

    /// The type as the wire writes it; its value stands under `<type>_value`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Score => "score",
            MetricType::Categorical => "categorical",
            MetricType::Boolean => "boolean",
            MetricType::Json => "json",
            MetricType::Text => "text",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|metric_type| metric_type.as_str() == text)
    }
}

/// The verdict of an evaluation with criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assessment {
    /// The criteria are met.
    Pass,
    /// They are not.
    Fail,
}

impl Assessment {
    /// The verdict as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Assessment::Pass => "pass",
            Assessment::Fail => "fail",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        match text {
            "pass" => Some(Assessment::Pass),
            "fail" => Some(Assessment::Fail),
            _ => None,
        }
    }
}

/// Whether a judgement itself worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EvalStatus {
    /// It did.
    #[default]
    Ok,
    /// It was skipped or is unsure; there may be no value.
    Warn,
    /// It failed; there is no value.
    Error,
}

impl EvalStatus {
    /// The status as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            EvalStatus::Ok => "OK",
            EvalStatus::Warn => "WARN",
            EvalStatus::Error => "ERROR",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        match text {
            "OK" => Some(EvalStatus::Ok),
            "WARN" => Some(EvalStatus::Warn),
            "ERROR" => Some(EvalStatus::Error),
            _ => None,
        }
    }
}
