//! A problem with one field of an evaluator.

use serde_json::Value;

/// A problem with one field of an evaluator.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldProblem {
    /// The field. An unknown field has the caller's name, which is untrusted text.
    pub field: String,
    /// The reason, as text that follows the field's name.
    pub reason: String,
    /// A valid value for the field; `None` if the field must be removed.
    pub suggestion: Option<Value>,
}

impl FieldProblem {
    pub(super) fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        suggestion: Option<Value>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            suggestion,
        }
    }

    /// A problem if `value` is not one of `allowed`.
    pub(super) fn unless_one_of(
        field: &str,
        value: &str,
        allowed: &[&str],
        suggestion: &str,
    ) -> Option<Self> {
        let reason = || format!("must be one of {}", allowed.join(", "));
        (!allowed.contains(&value)).then(|| Self::new(field, reason(), Some(suggestion.into())))
    }
}
