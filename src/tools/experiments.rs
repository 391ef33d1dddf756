//! The tools for experiments, projects and datasets.
//!
//! Reading tools load the events of an experiment once (the client caches them), compute with
//! `llmobs_core::analysis::experiment`, and return small answers. Writing tools refuse unknown keys,
//! and the client repeats a write only if the first attempt certainly had no effect.

mod compare;
mod compare_answer;
mod compare_notes;
mod create;
mod dataset_records;
mod datasets;
mod dimension_values;
mod event;
mod events;
mod full_records;
mod list;
mod loading;
mod metric_values;
mod objects;
mod projects;
mod records_add;
mod stats;
mod submit;
mod summary;
mod update;

use super::tool::Tool;

/// The tools in the order in which an analysis uses them; writing tools are last.
pub(super) const TOOLS: &[Tool] = &[
    summary::TOOL,
    events::TOOL,
    event::TOOL,
    metric_values::TOOL,
    dimension_values::TOOL,
    compare::TOOL,
    list::TOOL,
    projects::LIST_TOOL,
    projects::GET_TOOL,
    datasets::TOOL,
    dataset_records::TOOL,
    full_records::TOOL,
    records_add::TOOL,
    create::TOOL,
    update::TOOL,
    submit::TOOL,
];
