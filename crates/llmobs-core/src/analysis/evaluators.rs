//! Evaluators: reading and validating their configuration, comparing configurations, rendering
//! prompts, and statistics of their evaluations.

mod changes;
mod draft;
mod example;
mod fields;
mod form;
mod placeholders;
mod problem;
mod prompt;
mod schema;
mod stats;
mod validate;

#[cfg(any(test, feature = "testing"))]
pub mod properties;

pub use changes::{ConfigurationDiff, FieldChange, diff_configurations};
pub use draft::{EvaluatorDraft, read_draft};
pub use form::{keep_unlisted_fields, nested_form};
pub use problem::FieldProblem;
pub use prompt::{RenderedPrompt, render_prompt, session_context, span_context, trace_context};
pub use schema::wrap_schema;
pub use stats::{EvaluationCounter, EvaluationStats};
pub use validate::{corrected_fields, find_problems, name_problem};
