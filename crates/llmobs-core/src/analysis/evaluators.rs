//! Evaluators as data: the forms they are written in, what a valid one is, what a write would
//! change, what a judge would read, and what its evaluations add up to.

mod changes;
mod form;
mod placeholders;
mod prompt;
mod schema;
mod stats;
mod validate;

#[cfg(any(test, feature = "testing"))]
pub mod properties;

pub use changes::{ConfigurationDiff, FieldChange, diff_configurations};
pub use form::{EvaluatorDraft, keep_unlisted_fields, nested_form, read_draft};
pub use placeholders::{PlaceholderError, PromptTemplate};
pub use prompt::{RenderedPrompt, render_prompt, session_context, span_context, trace_context};
pub use schema::wrap_schema;
pub use stats::{EvaluationCounter, EvaluationStats};
pub use validate::{corrected_fields, find_problems, name_problem};

/// What is wrong with one field of an evaluator.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldProblem {
    /// The field, as the caller wrote it where it is unknown; cleaned by who shows it.
    pub field: String,
    /// Why it is refused: words to follow the field's name.
    pub reason: String,
    /// A value for the field that is accepted; `None` when the field is to be left out.
    pub suggestion: Option<serde_json::Value>,
}

impl FieldProblem {
    fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        suggestion: Option<serde_json::Value>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            suggestion,
        }
    }
}
