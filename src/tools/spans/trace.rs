//! `get_llmobs_trace`: the whole tree at a glance.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::forest::{Forest, Node, most_nodes};
use super::{OpenTrace, open, trace_url};
use crate::render::{Budget, Shrink, fit};
use crate::tools::answer::{Notes, Window, offset_cursor, read_offset};
use crate::tools::args::{self, Count, Flag, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::SpanKind;

const NAME: &str = "get_llmobs_trace";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Open a trace",
    description: "Show one LLM trace as a tree: hierarchy of spans, counts by span kind, errors, \
        total duration. Start here once you have a trace_id from search_llmobs_spans. Branches \
        that do not fit are collapsed and say how many spans and errors they hide: open them with \
        expand_llmobs_spans, or send next_cursor back as cursor. Spans whose parent never arrived \
        stand under `orphans`. It holds no prompts or outputs: read those with \
        get_llmobs_span_content.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// false: only the top spans and their direct children. Default true.
    include_tree: Option<Flag>,
    /// Start of the time window: now-7d, RFC 3339 or epoch ms. The id is found outside it too.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
    total_duration_ms: f64,
    total_spans: usize,
    tree_depth: usize,
    span_kinds: BTreeMap<SpanKind, usize>,
    error_count: usize,
    has_errors: bool,
    spans: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orphans: Vec<Node>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    page: Page<'t>,
}

/// What is needed to show less of the trace.
struct Page<'t> {
    forest: Forest<'t>,
    tree: &'t TraceTree,
    question: [String; 2],
    count: usize,
}

impl Shrink for Answer<'_> {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        self.page.forest.sizes(self.page.count)
    }

    fn keep(&mut self, count: usize) {
        self.page.count = count;
        let built = self.page.forest.build(count);
        if built.split_by_depth {
            self.notes.add(
                "branches deeper than 32 levels go on as entries of their own: follow parent_id",
            );
        }
        let (mut spans, mut orphans) = (Vec::new(), Vec::new());
        for (node, shown) in built.tops {
            let tree = self.page.tree;
            if tree.parent(node).is_none() && !tree.span(node).is_root() {
                orphans.push(shown);
            } else {
                spans.push(shown);
            }
        }
        (self.spans, self.orphans) = (spans, orphans);
        let question: Vec<&str> = self.page.question.iter().map(String::as_str).collect();
        self.next_cursor = self
            .page
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
    let whole = arguments.include_tree.is_none_or(|flag| flag.0);
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );

    let question = [trace_id.clone(), whole.to_string()];
    let offset = read_offset(
        NAME,
        arguments.cursor.as_ref().map(|cursor| cursor.0.as_str()),
        &[&question[0], &question[1]],
        || json!({"trace_id": trace_id}),
    )?;
    let depth = if whole { usize::MAX } else { 1 };
    let page = offset..offset.saturating_add(most_nodes(budget));
    let forest = Forest::new(&tree, tree.top_level(), depth, page, |_| true);
    if !tree.orphans().is_empty() {
        notes.add(format!(
            "{} spans name a parent that is not in this trace; they stand under `orphans`",
            tree.orphans().len()
        ));
    }
    let error_count = tree.errors().len();
    let most = forest.len();
    let mut answer = Answer {
        trace_id: trace_id.clone(),
        trace_url: trace_url(context, trace_id),
        total_duration_ms: super::millis(tree.total_duration_ns()),
        total_spans: tree.len(),
        tree_depth: tree.depth(),
        span_kinds: tree.kind_counts().clone(),
        error_count,
        has_errors: error_count > 0,
        spans: Vec::new(),
        orphans: Vec::new(),
        next_cursor: None,
        window,
        notes,
        page: Page {
            forest,
            tree: &tree,
            question,
            count: most,
        },
    };
    answer.keep(most);
    Ok(fit(answer, budget)?)
}
