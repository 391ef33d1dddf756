//! Loading a trace by its id, for every tool about one trace.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::searching::{ID_WINDOW, id_window, span_search};
use crate::render::{self, candidate};
use crate::tools::answer::{Notes, WindowText};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::tool::ToolContext;
use datadog_llmobs::{ClientError, LoadedTrace, SpanSearch, SpanSelection, Upstream};
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Span, SpanError, TraceId};
use llmobs_core::query::combine::SpanFilters;

/// A loaded trace with the notes about it.
pub(super) struct OpenedTrace {
    pub(super) loaded: Arc<LoadedTrace>,
    /// The requested time window, if any.
    window: Option<WindowText>,
    pub(super) notes: Notes,
}

impl OpenedTrace {
    /// Loads a trace. The id decides, not the time window: a trace outside the requested window is
    /// returned with a note.
    pub(super) async fn open(
        context: &ToolContext,
        tool: &'static str,
        trace_id: &str,
        window: (Option<&str>, Option<&str>),
    ) -> Result<Self, ToolError> {
        let window = match window {
            (None, None) => None,
            window => Some(args::window(
                tool,
                window,
                ID_WINDOW,
                context.now_ms,
                || json!({"trace_id": trace_id}),
            )?),
        };
        let id = TraceId::from(trace_id);
        let loaded = match context.client.trace(&id, context.now_ms).await {
            Ok(loaded) => loaded,
            Err(ClientError::TraceNotFound { .. }) => {
                return Err(trace_not_found(context, tool, trace_id).await);
            }
            Err(error) => return Err(error.into()),
        };
        let tree = &loaded.tree;
        let mut notes = Notes::default();
        notes.extend(loaded.notes.iter().cloned());
        if let Some(window) = window
            && !tree
                .nodes()
                .any(|node| window.contains_ms(tree.start_ns(node).div_euclid(1_000_000)))
        {
            notes.add("the trace is outside the requested time window; it was found by its id");
        }
        Ok(Self {
            window: window.map(WindowText::from),
            notes,
            loaded,
        })
    }

    /// The tree without large inputs and outputs.
    pub(super) fn tree(&mut self) -> TraceTree {
        self.note_irregularities();
        self.loaded.tree.clone()
    }

    /// The tree whose spans have their content and, if they failed, their error message and stack.
    pub(super) async fn tree_with_content(
        &mut self,
        context: &ToolContext,
    ) -> Result<TraceTree, ToolError> {
        let tree = load_content(context, &self.loaded, &mut self.notes).await?;
        self.note_irregularities();
        Ok(tree)
    }

    /// The keys that follow `next_cursor`: the requested time window.
    pub(super) fn tail(&self) -> JsonObject {
        let mut tail = JsonObject::default();
        tail.set_some("window", self.window.clone());
        tail
    }

    fn note_irregularities(&mut self) {
        let tree = &self.loaded.tree;
        if !tree.duplicates().is_empty() {
            self.notes.add(format!(
                "{} span ids occur on more than one span of this trace; all of these spans are shown",
                tree.duplicates().len()
            ));
        }
        if !tree.cycles().is_empty() {
            self.notes.add(format!(
                "{} spans name each other as parents; the cycle is cut at the earliest span",
                tree.cycles().len()
            ));
        }
    }
}

/// The tree of a trace with content and error details. It is the loaded tree if that has them all.
async fn load_content(
    context: &ToolContext,
    loaded: &LoadedTrace,
    notes: &mut Notes,
) -> Result<TraceTree, ToolError> {
    let tree = &loaded.tree;
    let contents = context.client.contents(loaded, SpanSelection::All).await?;
    notes.add_gaps(&contents.gaps);
    let (details, gaps) = context.client.error_details(loaded).await?;
    notes.add_gaps(&gaps);
    let mut with_error: HashMap<NodeId, Arc<Span>> = HashMap::new();
    for node in tree.errors() {
        let span = contents.with_content(tree.span(*node));
        if let Some(error) = details.get(&span.span_id)
            && span.error.as_ref() != Some(error)
        {
            let span = add_error(span, error);
            with_error.insert(*node, span.into());
        }
    }
    if contents.spans.is_empty() && with_error.is_empty() {
        return Ok(tree.clone());
    }
    let spans = tree.nodes().zip(tree.spans()).map(|(node, span)| {
        let with_error = with_error.remove(&node);
        with_error.unwrap_or_else(|| Arc::clone(contents.with_content(span)))
    });
    Ok(tree.with_spans(spans.collect()))
}

fn add_error(span: &Span, error: &SpanError) -> Span {
    Span {
        error: Some(error.clone()),
        ..span.clone()
    }
}

/// The error for an unknown trace id. The usual mistake is the id of an APM trace, so that is
/// looked up.
async fn trace_not_found(context: &ToolContext, tool: &str, trace_id: &str) -> ToolError {
    let error = ToolError::new(
        Some(404),
        format!("no spans found for trace {}", candidate(trace_id)),
        "check the id with search_llmobs_spans: it must be the LLM Observability trace id (32 \
         hexadecimal digits in SDK data), not the APM trace id; site and organisation must be those \
         that the application sends to",
    );
    let search = SpanSearch {
        apm_trace_id: Some(trace_id.to_owned()),
        limit: 5,
        ..span_search(SpanFilters::default(), id_window(context.now_ms))
    };
    // The search only improves the hint: if it fails, the error is the same without it.
    let spans = match context.client.search_spans(&search).await {
        Ok(page) => page.spans,
        Err(_) => Vec::new(),
    };
    let mut ids: Vec<&str> = spans.iter().map(|span| span.trace_id.as_str()).collect();
    ids.dedup();
    match ids.first() {
        Some(id) => error
            .hint(
                "this is an APM trace id; `candidates` lists the LLM Observability trace that \
                 belongs to it",
            )
            .example(tool, json!({"trace_id": candidate(id)}))
            .candidates(&ids),
        None => error.example(
            "search_llmobs_spans",
            json!({"root_spans_only": true, "from": "now-7d", "limit": 5}),
        ),
    }
}

/// The link to the page of a trace. Only Datadog sites have such pages.
pub(super) fn trace_url(context: &ToolContext, trace_id: &str) -> Option<String> {
    match context.client.upstream() {
        Upstream::Site(site) => Some(render::trace_url(site.app_base(), trace_id)),
        Upstream::Local | Upstream::Url(_) => None,
    }
}

/// The nodes with the given span ids, and the ids that are not in the trace.
///
/// # Errors
///
/// If none of the ids is in the trace.
pub(super) fn find_spans(
    tool: &str,
    trace_id: &str,
    tree: &TraceTree,
    ids: &[String],
) -> Result<(Vec<NodeId>, Vec<String>), ToolError> {
    let (mut nodes, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        match tree.find(id) {
            Some(node) => nodes.push(node),
            None => missing.push(id.clone()),
        }
    }
    if nodes.is_empty() {
        return Err(span_not_found(tool, trace_id, &missing, tree));
    }
    Ok((nodes, missing))
}

/// The error for span ids that are not in the trace, with ids that are.
pub(super) fn span_not_found(
    tool: &str,
    trace_id: &str,
    missing: &[String],
    tree: &TraceTree,
) -> ToolError {
    let first = missing.first().map(|id| candidate(id));
    let roots: Vec<&str> = tree
        .top_level()
        .map(|node| tree.span(node).span_id.as_str())
        .take(10)
        .collect();
    let root = roots.first().copied().unwrap_or_default();
    ToolError::new(
        Some(404),
        format!("span not found: {}", first.unwrap_or_default()),
        "the trace exists but does not contain this span; `candidates` lists its root spans, and \
         get_llmobs_trace shows all spans",
    )
    .example(
        tool,
        json!({"trace_id": trace_id, "span_ids": [candidate(root)]}),
    )
    .candidates(roots)
}

/// Nanoseconds as milliseconds, with microseconds as decimals.
pub(super) fn millis(duration_ns: i64) -> f64 {
    (duration_ns as f64 / 1_000.0).round() / 1_000.0
}
