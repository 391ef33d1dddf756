//! Errors in a query: the position, what is wrong, and how to fix it.

use thiserror::Error;

/// A syntax error in a query. The message quotes at most single characters of the query, so it
/// carries no untrusted text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} (at byte {position} of the query); {hint}")]
pub struct ParseError {
    /// The byte offset in the text; at most its length.
    pub position: usize,
    /// What is wrong.
    pub message: String,
    /// How to fix it, with an example that parses.
    pub hint: String,
}

impl ParseError {
    pub(super) fn new(
        position: usize,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            position,
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn unclosed_quote(position: usize) -> Self {
        Self::new(
            position,
            "the quote that starts here is never closed",
            r#"close it, or escape a quote that belongs to the text: "timed out", or 5\""#,
        )
    }

    pub(super) fn unclosed_bracket(position: usize, bracket: char) -> Self {
        Self::new(
            position,
            format!("the `{bracket}` here is never closed"),
            "close it, or quote the text: (@status:error OR @status:ok), @duration:[1s TO 5s], \"f(x\"",
        )
    }

    pub(super) fn unmatched_bracket(position: usize, bracket: char) -> Self {
        Self::new(
            position,
            format!("this `{bracket}` has no matching opening bracket"),
            "remove it, or quote the text: (@status:error OR @status:ok), \"f(x)\"",
        )
    }

    pub(super) fn trailing_backslash(position: usize) -> Self {
        Self::new(
            position,
            "the backslash at the end has no character to escape",
            r"remove it, or double a backslash that belongs to the text: C:\\logs\\",
        )
    }
}
