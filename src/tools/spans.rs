//! The trace and span tools: seven of the hosted set, and one of ours that counts.
//!
//! Each loads what it needs through the client (whose cache and joining make forty parallel calls
//! on one trace cost one load), hands it to `analysis`, and lets `render` fit the answer.

mod agent_loop;
mod aggregate;
mod content;
mod details;
mod errors;
mod expand;
mod forest;
mod search;
mod summary;
mod trace;
mod why_empty;

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Notes, Window};
use super::args::{self, When};
use super::{Tool, ToolContext, ToolError};
use crate::render;
use datadog_llmobs::{ClientError, LoadedTrace, SpanSearch, SpanSelection, Upstream};
use llmobs_core::analysis::tree::{NodeId, NodeVec, TraceTree};
use llmobs_core::model::{Span, TimeWindow, TraceId};
use llmobs_core::query::combine::SpanFilters;

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

/// How far back an id is looked for, whatever window was asked: data do not live longer.
const ID_WINDOW: &str = "now-90d";
const DAY_MS: i64 = 86_400_000;

/// A trace that was found, and what is to be said about it.
struct OpenTrace {
    loaded: Arc<LoadedTrace>,
    /// The asked window, if any.
    window: Option<Window>,
    notes: Notes,
}

impl OpenTrace {
    /// The tree of its structure: everything but large inputs and outputs.
    fn structure(&mut self) -> TraceTree {
        self.note_repairs();
        self.loaded.tree.clone()
    }

    /// The tree of its spans with their content and, where they failed, what they said of it.
    async fn whole(&mut self, context: &ToolContext) -> Result<TraceTree, ToolError> {
        let tree = whole_tree(context, &self.loaded, &mut self.notes).await?;
        self.note_repairs();
        Ok(tree)
    }

    /// Says what of the trace had to be put right.
    fn note_repairs(&mut self) {
        let tree = &self.loaded.tree;
        if !tree.duplicates().is_empty() {
            self.notes.add(format!(
                "{} span ids stand on more than one span of this trace; all of them are shown",
                tree.duplicates().len()
            ));
        }
        if !tree.cycles().is_empty() {
            self.notes.add(format!(
                "{} spans name each other as parents; the circle was cut at the earliest span",
                tree.cycles().len()
            ));
        }
    }
}

/// Loads a trace by id. The id decides, not the window: a trace outside the asked one is still
/// answered, and the notes say so.
async fn open(
    context: &ToolContext,
    tool: &'static str,
    trace_id: &str,
    from: Option<&When>,
    to: Option<&When>,
) -> Result<OpenTrace, ToolError> {
    let example = || json!({"trace_id": trace_id});
    let asked = if from.is_some() || to.is_some() {
        Some(args::window(
            tool,
            from,
            to,
            ID_WINDOW,
            context.now_ms,
            example,
        )?)
    } else {
        None
    };
    let loaded = match context
        .client
        .trace(&TraceId::from(trace_id), context.now_ms)
        .await
    {
        Ok(loaded) => loaded,
        Err(ClientError::TraceNotFound { .. }) => {
            return Err(trace_not_found(context, tool, trace_id).await);
        }
        Err(error) => return Err(error.into()),
    };
    let mut notes = Notes::default();
    notes.extend(loaded.notes.iter().cloned());
    if let Some(window) = asked
        && !loaded
            .tree
            .nodes()
            .any(|node| window.contains_ms(loaded.tree.start_ns(node).div_euclid(1_000_000)))
    {
        notes.add("the trace lies outside the asked window; it was found by its id");
    }
    Ok(OpenTrace {
        loaded,
        window: asked.map(Window::from),
        notes,
    })
}

/// Every span of a trace with its content and, where it failed, with what it said of it. Where the
/// structure holds all of that already, it is the structure.
async fn whole_tree(
    context: &ToolContext,
    loaded: &LoadedTrace,
    notes: &mut Notes,
) -> Result<TraceTree, ToolError> {
    let tree = &loaded.tree;
    let contents = context.client.contents(loaded, SpanSelection::All).await?;
    notes.gaps(&contents.gaps);
    let (details, gaps) = context.client.error_details(loaded).await?;
    notes.gaps(&gaps);
    let mut explained: Vec<(NodeId, Arc<Span>)> = Vec::new();
    for node in tree.errors() {
        let full = contents.with_content(tree.span(*node));
        if let Some(error) = details.get(&full.span_id)
            && full.error.as_ref() != Some(error)
        {
            let mut span = full.as_ref().clone();
            span.error = Some(error.clone());
            explained.push((*node, span.into()));
        }
    }
    if contents.spans.is_empty() && explained.is_empty() {
        return Ok(tree.clone());
    }
    let structure = tree.spans().iter();
    let mut spans: NodeVec<Arc<Span>> = structure
        .map(|span| Arc::clone(contents.with_content(span)))
        .collect();
    for (node, span) in explained {
        spans[node] = span;
    }
    Ok(tree.with_spans(spans))
}

/// Explains a 404, and looks whether the id is that of an APM trace, the usual mistake.
async fn trace_not_found(context: &ToolContext, tool: &str, trace_id: &str) -> ToolError {
    let error = ToolError::new(
        Some(404),
        format!("no spans found for trace {}", render::candidate(trace_id)),
        "check the id with search_llmobs_spans: it is the LLM Observability trace id, 32 \
         hexadecimal digits in SDK data, and not the APM trace id; the site and the organisation \
         must be the ones the application sends to",
    );
    let search = SpanSearch {
        query: None,
        filters: SpanFilters::default(),
        apm_trace_id: Some(trace_id.to_owned()),
        window: id_window(context.now_ms),
        limit: 5,
        cursor: None,
        newest_first: true,
        content: false,
    };
    // Only a hint hangs on it: whatever goes wrong here, the 404 stands.
    let twins = context
        .client
        .search_spans(&search)
        .await
        .map(|page| page.spans)
        .unwrap_or_default();
    let mut ids: Vec<&str> = twins.iter().map(|span| span.trace_id.as_str()).collect();
    ids.dedup();
    match ids.first() {
        Some(id) => ToolError {
            hint: "this is an APM trace id; `candidates` holds the LLM Observability trace of it"
                .to_owned(),
            ..error
        }
        .example(tool, json!({"trace_id": render::candidate(id)}))
        .candidates(&ids),
        None => error.example(
            "search_llmobs_spans",
            json!({"root_spans_only": true, "from": "now-7d", "limit": 5}),
        ),
    }
}

fn id_window(now_ms: i64) -> TimeWindow {
    TimeWindow {
        from_ms: now_ms - 90 * DAY_MS,
        to_ms: now_ms,
    }
}

/// The link to a trace's page, where there is one.
fn trace_url(context: &ToolContext, trace_id: &str) -> Option<String> {
    match context.client.upstream() {
        Upstream::Site(site) => Some(render::trace_url(site.app_base(), trace_id)),
        Upstream::Local | Upstream::Url(_) => None,
    }
}

/// The nodes of the asked spans, and the ids that the trace does not have.
///
/// # Errors
///
/// When it has none of them.
fn asked_spans(
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

/// The refusal of span ids of which the trace has none, with ids that it does have.
fn span_not_found(tool: &str, trace_id: &str, missing: &[String], tree: &TraceTree) -> ToolError {
    let first = missing
        .first()
        .map(|id| render::candidate(id))
        .unwrap_or_default();
    let known: Vec<&str> = tree
        .top_level()
        .map(|top| tree.span(top).span_id.as_str())
        .take(10)
        .collect();
    let id = known.first().copied().unwrap_or_default();
    ToolError::new(
        Some(404),
        format!("span not found: {first}"),
        "the trace exists and has no such span; `candidates` holds its outermost spans, and \
         get_llmobs_trace shows all of them",
    )
    .example(
        tool,
        json!({"trace_id": trace_id, "span_ids": [render::candidate(id)]}),
    )
    .candidates(known)
}

/// Nanoseconds as milliseconds, with microseconds kept as decimals.
fn millis(duration_ns: i64) -> f64 {
    (duration_ns as f64 / 1_000.0).round() / 1_000.0
}

/// A number as JSON people write it: whole numbers without a decimal point.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Value::from(value as i64)
    } else {
        serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}
