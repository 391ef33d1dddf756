//! `get_llmobs_agent_loop`: the iterations of an agent.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::opened_trace::{OpenedTrace, span_not_found};
use crate::render::{cut_middle, json_chars};
use crate::tools::args::{self, PageArgs};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::agent_loop::{AgentLoop, Iteration, agent_loop, truncate_texts};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::SpanKind;

const NAME: &str = "get_llmobs_agent_loop";
const DEFAULT_CONTENT_CHARS: usize = 2_000;
const MIN_CONTENT_CHARS: usize = 80;
const MAX_NAME_CHARS: usize = 200;
/// No iteration has fewer characters of JSON.
const MIN_ITERATION_CHARS: usize = 150;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Follow an agent's loop",
    description: "Follow what an agent did step by step: one iteration per decision of the model, \
        with its text, the tools it called, their arguments and results, errors, tokens, cost and \
        duration, then the conversation as a timeline. Understands nested frameworks (LangGraph, \
        OpenAI Agents, Pydantic AI), hand-offs and sub-agents, and traces without an agent span. \
        repeated_calls shows an agent that repeats itself. span_id selects an agent; without it \
        the outermost agents are followed.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: String,
    /// Span of the agent to follow, or any other span: its subtree is followed.
    span_id: Option<String>,
    /// Characters per text. Default 2000.
    max_content_length: Option<usize>,
    #[serde(flatten)]
    page: PageArgs,
}

/// An iteration, with the size of its entries in the timeline.
struct IterationRow<'t> {
    iteration: Iteration<'t>,
    timeline_chars: usize,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (trace_id, page) = (&arguments.trace_id, &arguments.page);
    let mut trace = OpenedTrace::open(context, NAME, trace_id, page.window()).await?;
    let start = arguments.span_id.as_deref();
    if let Some(id) = start
        && trace.loaded.tree.find(id).is_none()
    {
        return Err(agent_not_found(trace_id, id, &trace.tree()));
    }
    let content_chars = arguments
        .max_content_length
        .map_or(DEFAULT_CONTENT_CHARS, |chars| chars.max(MIN_CONTENT_CHARS));
    let request = [
        trace_id,
        start.unwrap_or_default(),
        &content_chars.to_string(),
    ];
    let list = ListRequest::new(NAME, request, json!({"trace_id": trace_id}));
    let first = list.offset(page.cursor.as_deref())?;

    let tree = trace.tree_with_content(context).await?;
    let mut agent_loop = agent_loop(&tree, start.and_then(|id| tree.find(id)));
    agent_loop.agent_name = cut_middle(&agent_loop.agent_name, MAX_NAME_CHARS);
    trace.notes.extend(std::mem::take(&mut agent_loop.notes));
    // Iterations that cannot fit are removed first, so that their texts are not cut in vain.
    let max_iterations = page.budget().chars() / MIN_ITERATION_CHARS + 1;
    keep_iterations(&mut agent_loop, first, max_iterations);
    truncate_texts(&mut agent_loop, content_chars);
    let rows = iteration_rows(&mut agent_loop, first);
    let total = agent_loop.total_iterations;
    let timeline = std::mem::take(&mut agent_loop.timeline);
    let frame = match serde_json::to_value(&agent_loop)? {
        Value::Object(frame) => frame,
        _ => Map::new(),
    };
    let row_chars = |row: &IterationRow<'_>| json_chars(&row.iteration) + 1 + row.timeline_chars;
    Page::custom(JsonObject::default(), rows, row_chars, |rows, _| {
        let iterations: Vec<&Iteration<'_>> = rows.iter().map(|row| &row.iteration).collect();
        let last = first + rows.len();
        let entries = timeline.iter().filter(|entry| entry.iteration <= last);
        let mut keys = JsonObject(frame.clone());
        keys.set("iterations", json!(iterations));
        keys.set("timeline", json!(entries.collect::<Vec<_>>()));
        keys.0
    })
    .next_offset(&list, first, total)
    .tail(trace.tail())
    .notes(trace.notes)
    .write(page.budget())
}

/// Removes all iterations except `count` after the first `first`, and their timeline entries.
fn keep_iterations(agent_loop: &mut AgentLoop<'_>, first: usize, count: usize) {
    let iterations = &mut agent_loop.iterations;
    iterations.drain(..first.min(iterations.len()));
    iterations.truncate(count);
    let last = first + iterations.len();
    agent_loop
        .timeline
        .retain(|entry| entry.iteration <= last && (first == 0 || entry.iteration > first));
}

/// Takes the iterations, each with the size of its timeline entries. Entries before the first
/// decision belong to the first iteration.
fn iteration_rows<'t>(agent_loop: &mut AgentLoop<'t>, first: usize) -> Vec<IterationRow<'t>> {
    let iterations = std::mem::take(&mut agent_loop.iterations);
    let mut rows: Vec<IterationRow<'t>> = iterations
        .into_iter()
        .map(|iteration| IterationRow {
            iteration,
            timeline_chars: 0,
        })
        .collect();
    for entry in &agent_loop.timeline {
        if let Some(row) = rows.get_mut(entry.iteration.saturating_sub(first + 1)) {
            row.timeline_chars += json_chars(entry) + 1;
        }
    }
    rows
}

/// The error for an unknown start span, with the agents of the trace.
fn agent_not_found(trace_id: &str, span_id: &str, tree: &TraceTree) -> ToolError {
    let error = span_not_found(NAME, trace_id, &[span_id.to_owned()], tree)
        .example(NAME, json!({"trace_id": trace_id}));
    let agents: Vec<&str> = tree
        .preorder()
        .iter()
        .copied()
        .filter(|node| *tree.kind(*node) == SpanKind::Agent)
        .map(|node| tree.span(node).span_id.as_str())
        .collect();
    if agents.is_empty() {
        return error;
    }
    error
        .hint(
            "the trace exists but does not contain this span; `candidates` lists its agents; \
             without span_id the outermost agents are followed",
        )
        .candidates(agents)
}
