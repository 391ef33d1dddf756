//! Trees within a budget.
//!
//! Nodes are listed level by level, so that the deepest nodes are left out first. A page is a range
//! of that list. A node is nested in its parent if the parent is on the same page, and is otherwise
//! an entry of the top level with its `parent_id`. A node with children that are not shown is
//! `collapsed` and has the number of spans that it hides.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use super::summary::parent_id;
use crate::render::{Budget, cut_middle, json_chars};
use crate::tools::answer::Notes;
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{SpanId, SpanKind};

/// Maximum nesting of spans in JSON: the parsers of some clients stop at about 100 levels.
const MAX_NESTING: usize = 32;
const MAX_NAME_CHARS: usize = 200;
/// No node has fewer characters of JSON.
const MIN_NODE_CHARS: usize = 150;

/// One span in a tree.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TreeNode {
    span_id: SpanId,
    parent_id: String,
    name: String,
    span_kind: SpanKind,
    status: &'static str,
    start_ms: i64,
    duration_ms: f64,
    has_input: bool,
    has_output: bool,
    has_error: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    children_count: usize,
    collapsed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_spans: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_errors: Option<usize>,
    children: Vec<TreeNode>,
}

/// A node before it is nested.
pub(super) struct FlatNode {
    id: NodeId,
    /// The position of the parent on the page, if it is on the page.
    parent: Option<usize>,
    node: TreeNode,
}

impl FlatNode {
    /// Characters of JSON without children.
    pub(super) fn chars(&self) -> usize {
        json_chars(&self.node)
    }
}

/// The most nodes that fit into a budget.
pub(super) fn max_nodes(budget: Budget) -> usize {
    budget.chars() / MIN_NODE_CHARS + 1
}

/// A range of the nodes of some trees.
pub(super) struct ForestPage {
    pub(super) nodes: Vec<FlatNode>,
    /// Nodes before the page.
    first: usize,
    /// Whether nodes follow the page.
    more: bool,
}

/// A node of the list, with the position of its parent in the list.
#[derive(Clone, Copy)]
struct ListedNode {
    id: NodeId,
    parent: Option<usize>,
    level: usize,
}

impl ForestPage {
    /// The nodes with positions in `range`, among the roots and those of their descendants, at most
    /// `depth` levels below, that `filter` selects. Nodes after the range are not visited.
    pub(super) fn new(
        tree: &TraceTree,
        roots: impl IntoIterator<Item = NodeId>,
        depth: usize,
        range: Range<usize>,
        filter: impl Fn(NodeId) -> bool,
    ) -> Self {
        let mut listed: Vec<ListedNode> = roots
            .into_iter()
            .take(range.end.saturating_add(1))
            .map(|id| ListedNode {
                id,
                parent: None,
                level: 0,
            })
            .collect();
        let mut next = 0;
        while listed.len() <= range.end
            && let Some(parent) = listed.get(next).copied()
        {
            if parent.level < depth {
                let children = tree.children(parent.id).iter().copied();
                listed.extend(
                    children
                        .filter(|child| filter(*child))
                        .map(|id| ListedNode {
                            id,
                            parent: Some(next),
                            level: parent.level + 1,
                        }),
                );
            }
            next += 1;
        }
        let more = listed.len() > range.end;
        listed.truncate(range.end);
        let first = range.start.min(listed.len());
        let nodes = listed.into_iter().skip(first).map(|listed| FlatNode {
            id: listed.id,
            parent: listed.parent.and_then(|parent| parent.checked_sub(first)),
            node: tree_node(tree, listed.id, listed.level),
        });
        Self {
            nodes: nodes.collect(),
            first,
            more,
        }
    }

    /// The offset after the first nodes of the page, by their number, if nodes follow.
    pub(super) fn next_offset(&self) -> impl Fn(usize) -> Option<usize> + use<> {
        let (first, more, len) = (self.first, self.more, self.nodes.len());
        move |count| (more || count < len).then_some(first + count)
    }
}

/// What the children of a node have shown of its subtree.
#[derive(Clone, Default)]
struct ShownSubtree {
    nested: Vec<TreeNode>,
    children: usize,
    spans: usize,
    errors: usize,
}

/// Nests the nodes of a page: the entries of the top level, with their ids.
pub(super) fn nest(
    tree: &TraceTree,
    nodes: &[FlatNode],
    notes: &mut Notes,
) -> Vec<(NodeId, TreeNode)> {
    let levels = nesting_levels(nodes);
    let mut shown = vec![ShownSubtree::default(); nodes.len()];
    let mut top_level = Vec::new();
    // Children follow their parents, so in reverse order a node comes after its children.
    for (flat, level) in nodes.iter().zip(levels).rev() {
        let mut below = shown.pop().unwrap_or_default();
        below.nested.reverse();
        let descendants = tree.descendant_count(flat.id);
        let errors = tree.errors_in_subtree(flat.id);
        let mut node = flat.node.clone();
        if below.children < node.children_count {
            let own_error = usize::from(tree.is_error(flat.id));
            node.hide(
                descendants - below.spans,
                errors.saturating_sub(own_error + below.errors),
            );
        }
        node.children = below.nested;
        let Some(parent) = flat.parent.and_then(|parent| shown.get_mut(parent)) else {
            top_level.push((flat.id, node));
            continue;
        };
        parent.children += 1;
        // The node shows the spans that it hides, so its whole subtree counts as shown.
        parent.spans += 1 + descendants;
        parent.errors += errors;
        if level > 1 {
            parent.nested.push(node);
        } else {
            notes.add(format!(
                "branches deeper than {MAX_NESTING} levels continue as entries of the top level: \
                 see parent_id"
            ));
            top_level.push((flat.id, node));
        }
    }
    top_level.reverse();
    top_level
}

/// The nesting level of each node, from 1. A branch that reaches the maximum starts again at 1.
fn nesting_levels(nodes: &[FlatNode]) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let parent = node.parent.and_then(|parent| levels.get(parent));
        levels.push(parent.map_or(1, |level| level % MAX_NESTING + 1));
    }
    levels
}

impl TreeNode {
    fn hide(&mut self, spans: usize, errors: usize) {
        self.collapsed = spans > 0;
        self.hidden_spans = (spans > 0).then_some(spans);
        self.hidden_errors = (spans > 0 && errors > 0).then_some(errors);
    }
}

/// A node without children.
fn tree_node(tree: &TraceTree, id: NodeId, level: usize) -> TreeNode {
    let span = tree.span(id);
    TreeNode {
        span_id: span.span_id.clone(),
        parent_id: parent_id(span),
        name: cut_middle(&span.name, MAX_NAME_CHARS),
        span_kind: span.kind.clone(),
        status: span.status.as_str(),
        start_ms: span.start_ms(),
        duration_ms: span.duration_ms(),
        has_input: !span.input.is_empty(),
        has_output: !span.output.is_empty(),
        has_error: span.is_error(),
        metadata: replay_metadata(&span.metadata, level),
        children_count: tree.children(id).len(),
        collapsed: false,
        hidden_spans: None,
        hidden_errors: None,
        children: Vec::new(),
    }
}

/// The metadata that replaying a trace needs. It is on roots only.
fn replay_metadata(metadata: &Map<String, Value>, level: usize) -> Map<String, Value> {
    if level > 0 {
        return Map::new();
    }
    metadata
        .iter()
        .filter(|(key, _)| key.starts_with("replay_"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
