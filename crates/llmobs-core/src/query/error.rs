//! What is wrong with a query, where, and how to write it right.

use thiserror::Error;

/// A query that cannot be read. The words are ours; they repeat nothing of the query but single
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} (at byte {position} of the query); {hint}")]
pub struct ParseError {
    /// Where, in bytes from the start of the text; at most its length.
    pub position: usize,
    /// What was wrong.
    pub message: String,
    /// How to mend it, with an example that works.
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
            "a quote is opened here and never closed",
            r#"close it, or escape it when it is part of the text: "timed out", or 5\""#,
        )
    }

    pub(super) fn unclosed_bracket(position: usize, bracket: char) -> Self {
        Self::new(
            position,
            format!("`{bracket}` is opened here and never closed"),
            "close it, or quote the text: (@status:error OR @status:ok), @duration:[1s TO 5s], \"f(x\"",
        )
    }

    pub(super) fn unopened_bracket(position: usize, bracket: char) -> Self {
        Self::new(
            position,
            format!("`{bracket}` closes nothing that was opened"),
            "remove it, or quote the text: (@status:error OR @status:ok), \"f(x)\"",
        )
    }

    pub(super) fn dangling_backslash(position: usize) -> Self {
        Self::new(
            position,
            "a backslash at the end escapes nothing",
            r"remove it, or write it twice when it is part of the text: C:\\logs\\",
        )
    }
}
