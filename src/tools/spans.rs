//! The tools for spans and traces: the seven hosted ones, and one for aggregation.
//!
//! Each tool loads what it needs through the client, passes it to `llmobs_core::analysis`, and fits
//! the answer into its budget. The client caches and joins requests: forty parallel calls on one
//! trace load it once.

mod agent_loop;
mod aggregate;
mod content;
mod details;
mod errors;
mod expand;
mod forest;
mod opened_trace;
mod search;
mod searching;
mod summary;
mod trace;
mod why_empty;

pub(super) use self::searching::span_search;
use super::tool::Tool;

/// The tools in the order in which an investigation uses them.
pub(super) const TOOLS: &[Tool] = &[
    search::TOOL,
    trace::TOOL,
    details::TOOL,
    content::TOOL,
    errors::TOOL,
    expand::TOOL,
    agent_loop::TOOL,
    aggregate::TOOL,
];
