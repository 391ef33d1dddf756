//! One line of an export: a complete body of the documented intake.
//!
//! A line can be sent to Datadog's HTTP API unchanged, and lines of other programs can be imported.
//! If the documented format would lose something, the line also contains the exact item under
//! `_llmobs_mcp`. The writer reads each line back to decide that.

mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::{evaluation_line, span_line};

#[cfg(test)]
mod tests;
