//! Spans: search, whole traces, contents, and the gaps of the documented API.
//!
//! Everything is read through the documented `POST /api/v2/llm-obs/v1/spans/events/search`. What
//! it does not bring and a tool needs is asked for at the private endpoints behind the official
//! tools, and if those refuse, the answer is given all the same with a [`Gap`] that says so.

mod aggregate;
mod contents;
mod evaluation;
mod gaps;
mod request;
mod search;
mod trace;
pub(super) mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::call::{JSON_API, Operation};
use super::retry::OperationClass;
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};
use llmobs_core::query::combine::SpanFilters;

pub(crate) use gaps::ErrorDetails;
pub(super) use gaps::PrivateError;
pub(crate) use gaps::{FIND_ERROR_SPANS, PRIVATE_SEARCH, SPAN_CONTENT};

/// The documented search.
pub(crate) static SEARCH: Operation = Operation {
    name: "span search",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/spans/events/search",
    media: JSON_API,
};

/// A question for one page of spans.
#[derive(Debug, Clone)]
pub struct SpanSearch {
    /// The caller's query, in the span query language.
    pub query: Option<String>,
    /// Structured filters; all of them hold, beside the query.
    pub filters: SpanFilters,
    /// The APM trace id, which is resolved to LLM Observability trace ids first.
    pub apm_trace_id: Option<String>,
    /// The range of time, by span start.
    pub window: TimeWindow,
    /// Spans per page, 1 to 500.
    pub limit: usize,
    /// Where the last page ended, as that page gave it.
    pub cursor: Option<String>,
    /// The newest first, or the oldest.
    pub newest_first: bool,
    /// Whether inputs and outputs above 25 KB are wanted too.
    pub content: bool,
}

/// One page of spans.
#[derive(Debug, Clone, Default)]
pub struct SpanPage {
    /// The spans, in the order asked for.
    pub spans: Vec<Arc<Span>>,
    /// Where to go on; `None` on the last page.
    pub next_cursor: Option<String>,
    /// Whether the upstream ran out of time, or could not apply a filter: there may be more.
    pub partial: bool,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// Something that a complete answer would hold and this one does not.
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

/// The structure of a trace: all its spans with everything but large inputs and outputs.
#[derive(Debug)]
pub struct LoadedTrace {
    /// The trace.
    pub id: TraceId,
    /// Its spans, linked once for all calls that read them; a span id may occur twice.
    pub tree: TraceTree,
    /// The spans whose content did not come whole, in order; of a span id that occurs twice the
    /// first.
    pub(crate) apart: Vec<NodeId>,
    /// The range of time that was searched.
    pub window: TimeWindow,
    /// What the reader should know: that spans are missing, and why.
    pub notes: Vec<String>,
    /// Whether every span of the trace is here.
    pub complete: bool,
    /// Size of the answers it came in.
    pub(crate) bytes: usize,
}

/// Which spans' contents are wanted.
#[derive(Debug, Clone, Copy)]
pub enum SpanSelection<'a> {
    /// Those of the whole trace.
    All,
    /// These; ids that the trace does not have are passed over.
    Spans(&'a [SpanId]),
}

/// The whole inputs and outputs of spans.
#[derive(Debug, Clone, Default)]
pub struct SpanContents {
    /// By span id, the spans whose content had to be read apart from the structure.
    pub spans: HashMap<SpanId, Arc<Span>>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl SpanContents {
    /// A span of the structure with its content.
    pub fn with_content<'a>(&'a self, structure: &'a Arc<Span>) -> &'a Arc<Span> {
        if self.spans.is_empty() {
            return structure;
        }
        self.spans.get(&structure.span_id).unwrap_or(structure)
    }
}
