//! `get_llmobs_trace`: a trace as a tree.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::forest::{ForestPage, max_nodes, nest};
use super::opened_trace::{OpenedTrace, millis, trace_url};
use crate::tools::args::{self, PageArgs};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::tree::TraceTree;

const NAME: &str = "get_llmobs_trace";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Open a trace",
    description: "Show one LLM trace as a tree: hierarchy of spans, counts by span kind, errors, \
        total duration. Start here once you have a trace_id from search_llmobs_spans. Branches \
        that do not fit are collapsed and show how many spans and errors they hide: open them with \
        expand_llmobs_spans, or send next_cursor as cursor. Spans whose parent is not in the trace \
        are under `orphans`. The answer has no prompts or outputs: read those with \
        get_llmobs_span_content.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: String,
    /// false: only the root spans and their direct children. Default true.
    include_tree: Option<bool>,
    #[serde(flatten)]
    page: PageArgs,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (trace_id, page) = (&arguments.trace_id, &arguments.page);
    let mut trace = OpenedTrace::open(context, NAME, trace_id, page.window()).await?;
    let tree = trace.tree();
    let include_tree = arguments.include_tree.unwrap_or(true);
    let list = ListRequest::new(
        NAME,
        [trace_id.clone(), include_tree.to_string()],
        json!({"trace_id": trace_id}),
    );
    let offset = list.offset(page.cursor.as_deref())?;
    let depth = if include_tree { usize::MAX } else { 1 };
    let range = offset..offset.saturating_add(max_nodes(page.budget()));
    let forest = ForestPage::new(&tree, tree.top_level(), depth, range, |_| true);
    if !tree.orphans().is_empty() {
        trace.notes.add(format!(
            "{} spans name a parent that is not in this trace; they are under `orphans`",
            tree.orphans().len()
        ));
    }
    let (tail, next_offset) = (trace.tail(), forest.next_offset());
    Page::custom(
        head(context, trace_id, &tree),
        forest.nodes,
        |node| node.chars(),
        |nodes, notes| {
            let (mut spans, mut orphans) = (Vec::new(), Vec::new());
            for (id, node) in nest(&tree, nodes, notes) {
                if tree.parent(id).is_none() && !tree.span(id).is_root() {
                    orphans.push(node);
                } else {
                    spans.push(node);
                }
            }
            let mut keys = JsonObject::default();
            keys.set("spans", json!(spans));
            keys.set_unless_empty("orphans", json!(orphans));
            keys.0
        },
    )
    .next_cursor(|count| list.token(&next_offset(count)?))
    .tail(tail)
    .notes(trace.notes)
    .write(page.budget())
}

/// The keys about the trace as a whole.
fn head(context: &ToolContext, trace_id: &str, tree: &TraceTree) -> JsonObject {
    let error_count = tree.errors().len();
    let mut head = JsonObject::default();
    head.set("trace_id", trace_id);
    head.set_some("trace_url", trace_url(context, trace_id));
    head.set("total_duration_ms", millis(tree.total_duration_ns()));
    head.set("total_spans", tree.len());
    head.set("tree_depth", tree.depth());
    head.set("span_kinds", json!(tree.kind_counts()));
    head.set("error_count", error_count);
    head.set("has_errors", error_count > 0);
    head
}
