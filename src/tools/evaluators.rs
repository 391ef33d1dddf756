//! The tools for evaluators: listing them, their statistics, a preview before they run, and writing
//! and deleting them.

mod configuration;
mod delete;
mod get;
mod list;
mod preview;
mod preview_sample;
mod scan;
mod stats;
mod write;

#[cfg(test)]
mod properties;

use super::tool::Tool;

/// The tools in the order in which they are usually called.
pub(super) const TOOLS: &[Tool] = &[
    list::ALL,
    list::BY_APP,
    get::TOOL,
    stats::TOOL,
    preview::TOOL,
    write::TOOL,
    delete::TOOL,
];
