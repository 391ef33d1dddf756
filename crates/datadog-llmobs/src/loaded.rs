//! Traces and experiments as the client loads and caches them.

use std::collections::HashMap;

use llmobs_core::analysis::experiment::ExperimentData;
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Experiment, SpanError, SpanId, TimeWindow, TraceId};

/// Data that a complete answer would contain and this one does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// What is missing, for example `error messages and stacks`.
    pub what: &'static str,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} missing: {}", self.what, self.why)
    }
}

/// The structure of a trace: all its spans without large inputs and outputs.
#[derive(Debug)]
pub struct LoadedTrace {
    /// The trace id.
    pub id: TraceId,
    /// The spans, linked once for all calls that read them. A span id may occur twice.
    pub tree: TraceTree,
    /// The spans whose content is incomplete, in order. Of spans that share an id, only the first.
    pub(crate) deferred_content: Vec<NodeId>,
    /// The searched time window.
    pub window: TimeWindow,
    /// Notes for the reader: that spans are missing, and why.
    pub notes: Vec<String>,
    /// Whether it contains every span of the trace.
    pub complete: bool,
    /// The size of the responses.
    pub(crate) bytes: usize,
}

/// The error details of a trace by span, and what is missing of them.
#[derive(Debug, Default)]
pub(crate) struct ErrorDetails {
    pub(crate) by_span: HashMap<SpanId, SpanError>,
    pub(crate) gaps: Vec<Gap>,
}

/// An experiment with all its events.
#[derive(Debug)]
pub struct LoadedExperiment {
    /// Its entry in the list; `None` if the list could not be read or lacks it.
    pub experiment: Option<Experiment>,
    /// Its events and summary metrics.
    pub data: ExperimentData,
    /// Notes for the reader: that events are missing, and why.
    pub notes: Vec<String>,
    /// The size of the responses.
    pub(crate) bytes: usize,
}
