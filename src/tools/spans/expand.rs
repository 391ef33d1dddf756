//! `expand_llmobs_spans`: the descendants of given spans.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::forest::{ForestPage, max_nodes, nest};
use super::opened_trace::{OpenedTrace, find_spans};
use crate::render::candidate;
use crate::tools::args::{self, IdList, PageArgs};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::SpanKind;

const NAME: &str = "expand_llmobs_spans";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Expand spans",
    description: "Load the children of given spans of one trace as trees, to open branches that \
        get_llmobs_trace left collapsed. max_depth is the number of levels below each span; \
        filter_kind keeps only branches that contain a span of that kind (llm, tool, …), with the \
        path to it.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: String,
    /// Spans to expand.
    span_ids: IdList,
    /// Levels below each span. Default 1.
    max_depth: Option<usize>,
    /// Only branches with a span of this kind: agent, workflow, llm, tool, task, embedding, retrieval.
    filter_kind: Option<String>,
    #[serde(flatten)]
    page: PageArgs,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (trace_id, page) = (&arguments.trace_id, &arguments.page);
    let mut trace = OpenedTrace::open(context, NAME, trace_id, page.window()).await?;
    let tree = trace.tree();
    let (roots, missing) = find_spans(NAME, trace_id, &tree, &arguments.span_ids)?;
    let depth = arguments.max_depth.unwrap_or(1).max(1);
    let kind_name = arguments
        .filter_kind
        .unwrap_or_default()
        .to_ascii_lowercase();
    let kind = (!kind_name.is_empty()).then(|| SpanKind::from(kind_name.as_str()));
    if let Some(kind) = kind
        .as_ref()
        .filter(|kind| !tree.kind_counts().contains_key(*kind))
    {
        trace.notes.add(format!(
            "this trace has no span of kind `{}`",
            candidate(kind.as_str())
        ));
    }
    let mut request = vec![trace_id.clone(), depth.to_string(), kind_name];
    request.extend(arguments.span_ids.iter().cloned());
    let example = json!({"trace_id": trace_id, "span_ids": *arguments.span_ids});
    let list = ListRequest::new(NAME, request, example);
    let offset = list.offset(page.cursor.as_deref())?;
    let range = offset..offset.saturating_add(max_nodes(page.budget()));
    let branches = kind.map(|kind| branches_with(&tree, &roots, depth, &kind));
    let forest = ForestPage::new(&tree, roots, depth, range, |node| {
        branches
            .as_ref()
            .is_none_or(|branches| branches.contains(&node))
    });
    let mut head = JsonObject::default();
    head.set("trace_id", trace_id.as_str());
    let (tail, next_offset) = (trace.tail(), forest.next_offset());
    Page::custom(
        head,
        forest.nodes,
        |node| node.chars(),
        |nodes, notes| {
            let nested = nest(&tree, nodes, notes).into_iter();
            let spans: Vec<_> = nested.map(|(_, node)| node).collect();
            let mut keys = JsonObject::default();
            keys.set("spans", json!(spans));
            keys.set_unless_empty("missing_span_ids", missing.clone());
            keys.0
        },
    )
    .next_cursor(|count| list.token(&next_offset(count)?))
    .tail(tail)
    .notes(trace.notes)
    .write(page.budget())
}

/// The nodes of a kind at most `depth` levels below a root, and the nodes on the paths to them.
fn branches_with(
    tree: &TraceTree,
    roots: &[NodeId],
    depth: usize,
    kind: &SpanKind,
) -> HashSet<NodeId> {
    let mut branches = HashSet::new();
    for root in roots {
        let max_depth = tree.depth_of(*root).saturating_add(depth);
        let subtree: Vec<NodeId> = tree
            .subtree(*root)
            .iter()
            .copied()
            .filter(|node| tree.depth_of(*node) <= max_depth)
            .collect();
        // The walk visits parents before children, so its reverse visits children first.
        for node in subtree.into_iter().rev() {
            let has_match = *tree.kind(node) == *kind
                || tree
                    .children(node)
                    .iter()
                    .any(|child| tree.depth_of(*child) <= max_depth && branches.contains(child));
            if has_match {
                branches.insert(node);
            }
        }
    }
    branches
}
