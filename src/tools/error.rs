//! The error of every tool: what is wrong, how to fix it, and a call that works.

use serde::Serialize;
use serde_json::Value;

use crate::render;
use datadog_llmobs::ClientError;

/// Why a call failed, as the model reads it.
///
/// `error` and `hint` are text of this server; untrusted text from traces is in `candidates` only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolError {
    /// What is wrong. Keeps the words that clients branch on (`404`, `not found`).
    pub error: String,
    /// The HTTP status of the upstream, or the status that describes the error best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How to fix the call.
    pub hint: String,
    /// A call that works: `{tool, arguments}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Value>,
    /// Existing values near the one that was sent, cleaned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// Seconds to wait before a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// Whether a write may have happened despite the error.
    #[serde(skip_serializing_if = "is_false")]
    pub outcome_unknown: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ToolError {
    /// An error with a status and a hint.
    pub fn new(status: Option<u16>, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            status,
            hint: hint.into(),
            example: None,
            candidates: Vec::new(),
            retry_after_seconds: None,
            outcome_unknown: false,
        }
    }

    /// An error in the arguments, with status 400.
    pub fn arguments(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Some(400), error, hint)
    }

    /// Adds an example call that works.
    #[must_use]
    pub fn example(mut self, tool: &str, arguments: Value) -> Self {
        let tool = Value::from(tool);
        let example = [
            ("tool".to_owned(), tool),
            ("arguments".to_owned(), arguments),
        ];
        self.example = Some(Value::Object(example.into_iter().collect()));
        self
    }

    /// Replaces the hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }

    /// Adds existing values. They are cleaned here, because they may be untrusted text.
    #[must_use]
    pub fn candidates<T: AsRef<str>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.candidates = values
            .into_iter()
            .map(|value| render::candidate(value.as_ref()))
            .filter(|value| !value.is_empty())
            .take(10)
            .collect();
        self
    }

    /// The error as the JSON object that the caller receives.
    pub fn to_json(&self) -> String {
        render::to_json(self).unwrap_or_else(|_| r#"{"error":"unreadable error"}"#.to_owned())
    }
}

impl From<ClientError> for ToolError {
    fn from(error: ClientError) -> Self {
        Self {
            retry_after_seconds: error.retry_after_seconds(),
            outcome_unknown: error.outcome_unknown(),
            ..Self::new(error.status(), error.to_string(), error.hint())
        }
    }
}

impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(
            Some(500),
            format!("the answer cannot be written as JSON: {error}"),
            "this is a bug in the server: please report it with the call that caused it",
        )
    }
}
