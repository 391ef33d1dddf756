//! `expand_llmobs_spans`: what lies below given spans.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::forest::{Forest, Node, most_nodes};
use super::{OpenTrace, asked_spans, open};
use crate::render::{Budget, Shrink, fit};
use crate::tools::answer::{Notes, Window, offset_cursor, read_offset};
use crate::tools::args::{self, Count, Ids, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::tree::{NodeId, NodeVec, TraceTree};
use llmobs_core::model::SpanKind;

const NAME: &str = "expand_llmobs_spans";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Expand spans",
    description: "Load the children of given spans of one trace as trees, to open branches that \
        get_llmobs_trace left collapsed. max_depth says how many levels below each span; \
        filter_kind keeps only branches that hold a span of that kind (llm, tool, …), with the \
        path that leads to it.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// Spans to expand.
    span_ids: Ids,
    /// Levels below each span. Default 1.
    max_depth: Option<Count>,
    /// Only branches with a span of this kind: agent, workflow, llm, tool, task, embedding, retrieval.
    filter_kind: Option<Text>,
    /// Start of the time window.
    from: Option<When>,
    /// End of the time window.
    to: Option<When>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

#[derive(Serialize)]
struct Answer<'t> {
    trace_id: String,
    spans: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_span_ids: Vec<String>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    forest: Forest<'t>,
    #[serde(skip)]
    question: Vec<String>,
    #[serde(skip)]
    count: usize,
}

impl Shrink for Answer<'_> {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        self.forest.sizes(self.count)
    }

    fn keep(&mut self, count: usize) {
        self.count = count;
        let built = self.forest.build(count);
        if built.split_by_depth {
            self.notes.add(
                "branches deeper than 32 levels go on as entries of their own: follow parent_id",
            );
        }
        self.spans = built.tops.into_iter().map(|(_, node)| node).collect();
        let question: Vec<&str> = self.question.iter().map(String::as_str).collect();
        self.next_cursor = self
            .forest
            .next_offset(count)
            .map(|offset| offset_cursor(offset, &question));
    }
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let trace_id = &arguments.trace_id.0;
    let (from, to) = (arguments.from.as_ref(), arguments.to.as_ref());
    let mut opened = open(context, NAME, trace_id, from, to).await?;
    let tree = opened.structure();
    let OpenTrace {
        loaded: _,
        window,
        mut notes,
    } = opened;
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );

    let (tops, missing) = asked_spans(NAME, trace_id, &tree, &arguments.span_ids.0)?;
    let depth = arguments.max_depth.map_or(1, |count| count.0.max(1));
    let filter = arguments
        .filter_kind
        .map_or_else(String::new, |kind| kind.0.to_ascii_lowercase());
    let kind = (!filter.is_empty()).then(|| SpanKind::from(filter.as_str()));
    let keep = kind
        .as_ref()
        .map(|kind| leads_to(&tree, &tops, depth, kind));
    if let Some(kind) = kind.filter(|kind| !tree.kind_counts().contains_key(kind)) {
        notes.add(format!(
            "no span of kind `{}` is in this trace",
            crate::render::candidate(kind.as_str())
        ));
    }
    let mut question = vec![trace_id.clone(), depth.to_string(), filter];
    question.extend(arguments.span_ids.0);
    let offset = {
        let parts: Vec<&str> = question.iter().map(String::as_str).collect();
        let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
        read_offset(
            NAME,
            cursor,
            &parts,
            || json!({"trace_id": trace_id, "span_ids": parts.get(3..)}),
        )?
    };
    let page = offset..offset.saturating_add(most_nodes(budget));
    let forest = Forest::new(&tree, tops, depth, page, |node| {
        keep.as_ref().is_none_or(|keep| keep[node])
    });
    let most = forest.len();
    let mut answer = Answer {
        trace_id: trace_id.clone(),
        spans: Vec::new(),
        missing_span_ids: missing,
        next_cursor: None,
        window,
        notes,
        forest,
        question,
        count: most,
    };
    answer.keep(most);
    Ok(fit(answer, budget)?)
}

/// For each node, whether it is of the kind or a path to one, at most `depth` levels below a top.
fn leads_to(tree: &TraceTree, tops: &[NodeId], depth: usize, kind: &SpanKind) -> NodeVec<bool> {
    let mut keep = NodeVec::filled(false, tree.len());
    for top in tops {
        let floor = tree.depth_of(*top).saturating_add(depth);
        // Children stand after their parents in the walk, so backwards they are judged first.
        let below: Vec<NodeId> = tree
            .subtree(*top)
            .iter()
            .copied()
            .filter(|node| tree.depth_of(*node) <= floor)
            .collect();
        for node in below.into_iter().rev() {
            let wanted = *tree.kind(node) == *kind
                || tree
                    .children(node)
                    .iter()
                    .any(|child| tree.depth_of(*child) <= floor && keep[*child]);
            keep[node] |= wanted;
        }
    }
    keep
}
