//! Spans: search, traces, contents, aggregation, and the gaps of the documented API.
//!
//! Spans are read through the documented `POST /api/v2/llm-obs/v1/spans/events/search`. Data that it
//! does not return is requested from the private endpoints of the official tools. If those reject the
//! request, the answer is returned with a [`Gap`].

mod aggregate;
mod content_size;
mod contents;
mod evaluation;
mod gaps;
mod pages;
mod request;
mod search;
mod trace;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::call::{JSON_API, Operation};
use super::loaded::Gap;
use super::retry::OperationClass;
use llmobs_core::model::{Span, SpanId, TimeWindow};
use llmobs_core::query::combine::SpanFilters;

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

/// A search for one page of spans.
#[derive(Debug, Clone)]
pub struct SpanSearch {
    /// The query of the caller, in the span query language.
    pub query: Option<String>,
    /// Structured filters, which apply in addition to the query.
    pub filters: SpanFilters,
    /// An APM trace id, which is resolved to LLM Observability trace ids first.
    pub apm_trace_id: Option<String>,
    /// The time window, by span start.
    pub window: TimeWindow,
    /// The maximum number of spans, 1 to 500.
    pub limit: usize,
    /// The page token of the previous page.
    pub cursor: Option<String>,
    /// Whether the newest spans come first, or the oldest.
    pub newest_first: bool,
    /// Whether to include attachments: inputs and outputs above 25 KB.
    pub content: bool,
}

/// One page of spans.
#[derive(Debug, Clone, Default)]
pub struct SpanPage {
    /// The spans, in the requested order.
    pub spans: Vec<Arc<Span>>,
    /// The token of the next page; `None` on the last page.
    pub next_cursor: Option<String>,
    /// Whether spans may be missing, because the upstream timed out or a filter could not be
    /// applied.
    pub partial: bool,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

/// The spans whose contents are requested.
#[derive(Debug, Clone, Copy)]
pub enum SpanSelection<'a> {
    /// All spans of the trace.
    All,
    /// The spans with these ids. Ids that the trace does not have are ignored.
    Spans(&'a [SpanId]),
}

/// The complete inputs and outputs of spans.
#[derive(Debug, Clone, Default)]
pub struct SpanContents {
    /// By span id, the spans whose content was not complete in the structure.
    pub spans: HashMap<SpanId, Arc<Span>>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl SpanContents {
    /// A span of the structure with its complete content.
    pub fn with_content<'a>(&'a self, structure: &'a Arc<Span>) -> &'a Arc<Span> {
        if self.spans.is_empty() {
            return structure;
        }
        self.spans.get(&structure.span_id).unwrap_or(structure)
    }
}
