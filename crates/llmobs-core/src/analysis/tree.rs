//! The spans of one trace as a tree.
//!
//! Real traces are irregular: parents are missing, there are several roots, ids repeat, or spans
//! name each other as parent. Every span is nonetheless one node, reachable from exactly one root
//! span or orphan, and the tree reports each irregularity.
//!
//! A tree is built once, when its trace is loaded. What callers read of every node is kept in one
//! compact list: spans are scattered in memory, and reading ten thousand of them costs more than
//! the analysis itself.

mod build;
mod index;
mod node;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub use node::{NodeId, NodeVec};

use crate::model::{Span, SpanId, SpanKind};
use index::SpanIdIndex;

/// The spans of one trace, linked to their parents. Clones share their data.
///
/// - A span without a parent id is a **root span**. A span whose parent id names no span of the
///   trace is an **orphan**. Both are **top-level** nodes.
/// - Spans with the same id stay separate nodes, so counts include all of them. Children attach to
///   the one that starts first, and [`TraceTree::find`] returns it.
///   [`TraceTree::duplicates`] lists the id.
/// - A cycle of parents is cut at the span that starts first. That span becomes an orphan, and
///   [`TraceTree::cycles`] lists it. The same applies to a span that is its own parent.
///
/// Methods that take a [`NodeId`] panic if it belongs to a larger tree.
#[derive(Debug, Clone, Default)]
pub struct TraceTree {
    spans: Arc<NodeVec<Arc<Span>>>,
    structure: Arc<Structure>,
}

/// Everything of a tree except its spans.
#[derive(Debug, Default)]
struct Structure {
    nodes: NodeVec<Node>,
    /// The children of all nodes; siblings are adjacent.
    children: Vec<NodeId>,
    by_id: SpanIdIndex,
    roots: Vec<NodeId>,
    orphans: Vec<NodeId>,
    /// All nodes, each followed by its descendants.
    preorder: Vec<NodeId>,
    duplicates: Vec<SpanId>,
    cycles: Vec<SpanId>,
    kind_counts: BTreeMap<SpanKind, usize>,
    errors: Vec<NodeId>,
    total_duration_ns: i64,
    depth: usize,
}

/// What the tree answers about a node without reading its span.
#[derive(Debug, Clone)]
struct Node {
    start_ns: i64,
    end_ns: i64,
    parent: Option<NodeId>,
    /// Range of its children in [`Structure::children`].
    children: Range<usize>,
    depth: usize,
    /// Index in [`Structure::preorder`].
    preorder_index: usize,
    /// Number of nodes in its subtree, itself included.
    size: usize,
    /// Number of error spans in its subtree, itself included.
    errors: usize,
    kind: SpanKind,
    is_error: bool,
}

impl Structure {
    fn children_of(&self, node: NodeId) -> &[NodeId] {
        slice(&self.children, self.nodes[node].children.clone())
    }

    fn subtree(&self, node: NodeId) -> &[NodeId] {
        let Node {
            preorder_index,
            size,
            ..
        } = self.nodes[node];
        slice(&self.preorder, preorder_index..preorder_index + size)
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the build stores ranges of the lists that it writes"
)]
fn slice(list: &[NodeId], range: Range<usize>) -> &[NodeId] {
    &list[range]
}

impl TraceTree {
    /// Links the spans of one trace, in any order.
    pub fn build(spans: &[Arc<Span>]) -> Self {
        let (spans, structure) = build::build(spans);
        Self {
            spans: Arc::new(spans),
            structure: Arc::new(structure),
        }
    }

    /// The same tree over other versions of its spans, for example with their content. Ids,
    /// parents, kinds, times and status must be the same.
    pub fn with_spans(&self, spans: NodeVec<Arc<Span>>) -> Self {
        debug_assert_eq!(spans.len(), self.len());
        Self {
            spans: Arc::new(spans),
            structure: Arc::clone(&self.structure),
        }
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.structure.nodes[node]
    }

    /// Number of spans, including those with a repeated id.
    pub fn len(&self) -> usize {
        self.structure.nodes.len()
    }

    /// Whether the trace has no span.
    pub fn is_empty(&self) -> bool {
        self.structure.nodes.is_empty()
    }

    /// All nodes, by start.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.structure.nodes.nodes()
    }

    /// The span at a node.
    pub fn span(&self, node: NodeId) -> &Arc<Span> {
        &self.spans[node]
    }

    /// All spans, in order of their nodes.
    pub fn spans(&self) -> &[Arc<Span>] {
        self.spans.as_slice()
    }

    /// The kind of the span at a node.
    pub fn kind(&self, node: NodeId) -> &SpanKind {
        &self.node(node).kind
    }

    /// Whether the span at a node has status `error`.
    pub fn is_error(&self, node: NodeId) -> bool {
        self.node(node).is_error
    }

    /// Start of the span at a node, in nanoseconds since the Unix epoch.
    pub fn start_ns(&self, node: NodeId) -> i64 {
        self.node(node).start_ns
    }

    /// End of the span at a node, in nanoseconds since the Unix epoch; never before its start.
    pub fn end_ns(&self, node: NodeId) -> i64 {
        self.node(node).end_ns
    }

    /// The root spans, by start, then span id.
    pub fn roots(&self) -> &[NodeId] {
        &self.structure.roots
    }

    /// The orphans: spans whose parent is not in the trace, and spans that a cycle was cut at.
    pub fn orphans(&self) -> &[NodeId] {
        &self.structure.orphans
    }

    /// Root spans, then orphans. Every span is in the subtree of exactly one of them.
    pub fn top_level(&self) -> impl Iterator<Item = NodeId> {
        self.roots().iter().chain(self.orphans()).copied()
    }

    /// The children of a node, by start.
    pub fn children(&self, node: NodeId) -> &[NodeId] {
        self.structure.children_of(node)
    }

    /// The parent of a node.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.node(node).parent
    }

    /// The level of a node; top-level nodes have level 1.
    pub fn depth_of(&self, node: NodeId) -> usize {
        self.node(node).depth
    }

    /// The node of a span id; the first by start if several spans have the id.
    pub fn find(&self, id: &str) -> Option<NodeId> {
        self.structure.by_id.find(id, &self.spans)
    }

    /// Span ids that several spans have, each listed once.
    pub fn duplicates(&self) -> &[SpanId] {
        &self.structure.duplicates
    }

    /// Spans that were cut from their parent because the parents form a cycle.
    pub fn cycles(&self) -> &[SpanId] {
        &self.structure.cycles
    }

    /// Number of descendants of a node.
    pub fn descendant_count(&self, node: NodeId) -> usize {
        self.node(node).size - 1
    }

    /// Number of error spans in the subtree of a node, itself included.
    pub fn errors_in_subtree(&self, node: NodeId) -> usize {
        self.node(node).errors
    }

    /// The error spans, by start.
    pub fn errors(&self) -> &[NodeId] {
        &self.structure.errors
    }

    /// A node and its descendants: parents before children, siblings by start.
    pub fn subtree(&self, node: NodeId) -> &[NodeId] {
        self.structure.subtree(node)
    }

    /// All nodes: parents before children, the subtree of each top-level node in turn.
    pub fn preorder(&self) -> &[NodeId] {
        &self.structure.preorder
    }

    /// The index of a node in [`TraceTree::preorder`]. The descendants of a node follow it
    /// directly.
    pub fn preorder_index(&self, node: NodeId) -> usize {
        self.node(node).preorder_index
    }

    /// Whether a node is a descendant of another node. A node is not its own descendant.
    pub fn is_descendant(&self, node: NodeId, ancestor: NodeId) -> bool {
        let index = self.preorder_index(node);
        let ancestor = self.node(ancestor);
        let first = ancestor.preorder_index;
        (first + 1..first + ancestor.size).contains(&index)
    }

    /// The ancestors of a node, nearest first.
    pub fn ancestors(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.parent(node), |ancestor| self.parent(*ancestor))
    }

    /// Time from the first start to the last end, in nanoseconds.
    pub fn total_duration_ns(&self) -> i64 {
        self.structure.total_duration_ns
    }

    /// Number of levels; 0 without spans.
    pub fn depth(&self) -> usize {
        self.structure.depth
    }

    /// Number of spans of each kind.
    pub fn kind_counts(&self) -> &BTreeMap<SpanKind, usize> {
        &self.structure.kind_counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(id: &str, parent: Option<&str>, start_ns: i64) -> Arc<Span> {
        Arc::new(Span {
            span_id: id.into(),
            parent_id: parent.map(SpanId::from),
            start_ns,
            duration_ns: 10,
            ..Span::default()
        })
    }

    fn ids(tree: &TraceTree, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        nodes
            .into_iter()
            .map(|node| tree.span(node).span_id.to_string())
            .collect()
    }

    #[test]
    fn orders_children_by_start() {
        let tree = TraceTree::build(&[
            span("late", Some("root"), 9),
            span("leaf", Some("early"), 4),
            span("early", Some("root"), 3),
            span("root", None, 1),
        ]);
        let root = tree.find("root").unwrap();
        assert_eq!(
            ids(&tree, tree.subtree(root).to_vec()),
            ["root", "early", "leaf", "late"]
        );
        assert_eq!(tree.descendant_count(root), 3);
        assert_eq!(tree.depth(), 3);
        let leaf = tree.find("leaf").unwrap();
        assert_eq!(ids(&tree, tree.ancestors(leaf)), ["early", "root"]);
        assert!(tree.is_descendant(leaf, root) && !tree.is_descendant(root, root));
        assert_eq!(tree.total_duration_ns(), 18);
    }

    #[test]
    fn span_with_missing_parent_is_an_orphan() {
        let tree = TraceTree::build(&[
            span("a", None, 2),
            span("b", None, 1),
            span("orphan", Some("never"), 0),
        ]);
        assert_eq!(ids(&tree, tree.roots().to_vec()), ["b", "a"]);
        assert_eq!(ids(&tree, tree.orphans().to_vec()), ["orphan"]);
        assert_eq!(ids(&tree, tree.top_level()), ["b", "a", "orphan"]);
    }

    #[test]
    fn repeated_id_keeps_both_spans_and_links_children_to_the_first() {
        let tree = TraceTree::build(&[
            span("root", None, 0),
            span("twin", Some("root"), 5),
            span("twin", Some("root"), 3),
            span("child", Some("twin"), 6),
        ]);
        assert_eq!(tree.len(), 4);
        assert_eq!(
            ids(&tree, tree.children(tree.find("root").unwrap()).to_vec()),
            ["twin", "twin"]
        );
        assert_eq!(tree.duplicates(), [SpanId::from("twin")]);
        let first = tree.find("twin").unwrap();
        assert_eq!(tree.span(first).start_ns, 3);
        assert_eq!(ids(&tree, tree.children(first).to_vec()), ["child"]);
    }

    #[test]
    fn cuts_cycle_at_its_earliest_span() {
        let tree = TraceTree::build(&[
            span("tail", Some("c"), 9),
            span("c", Some("b"), 3),
            span("b", Some("a"), 2),
            span("a", Some("c"), 1),
            span("self", Some("self"), 5),
        ]);
        assert_eq!(
            tree.cycles(),
            [SpanId::from("a"), SpanId::from("self")].as_slice()
        );
        assert_eq!(ids(&tree, tree.orphans().to_vec()), ["a", "self"]);
        let a = tree.find("a").unwrap();
        assert_eq!(
            ids(&tree, tree.subtree(a).to_vec()),
            ["a", "b", "c", "tail"]
        );
    }

    #[test]
    fn builds_chain_of_ten_thousand_spans() {
        let spans: Vec<_> = (0..10_000)
            .map(|n: i64| {
                let parent = (n > 0).then(|| (n - 1).to_string());
                span(&n.to_string(), parent.as_deref(), n)
            })
            .collect();
        let tree = TraceTree::build(&spans);
        let (first, last) = (tree.find("0").unwrap(), tree.find("9999").unwrap());
        assert_eq!(tree.depth(), 10_000);
        assert_eq!(tree.descendant_count(first), 9_999);
        assert_eq!(tree.ancestors(last).count(), 9_999);
    }

    #[test]
    fn empty_trace_is_an_empty_tree() {
        let tree = TraceTree::build(&[]);
        assert!(tree.is_empty());
        assert_eq!(tree.find(""), None);
        assert_eq!(tree.preorder(), []);
        assert_eq!((tree.depth(), tree.total_duration_ns()), (0, 0));
    }

    proptest! {
        #[test]
        fn every_span_is_in_the_subtree_of_one_top_level_node(
            links in prop::collection::vec((0..12_u8, prop::option::of(0..15_u8), 0..6_i64), 0..40)
        ) {
            let spans: Vec<_> = links
                .iter()
                .map(|(id, parent, start)| {
                    span(&id.to_string(), parent.map(|p| p.to_string()).as_deref(), *start)
                })
                .collect();
            let tree = TraceTree::build(&spans);
            let mut visited: Vec<_> = tree.top_level().flat_map(|top| tree.subtree(top)).copied().collect();
            prop_assert_eq!(visited.len(), spans.len());
            for (index, node) in visited.iter().enumerate() {
                prop_assert_eq!(tree.preorder_index(*node), index);
            }
            visited.sort_unstable();
            prop_assert!(visited.into_iter().eq(tree.nodes()));
            let total: usize = tree.top_level().map(|top| 1 + tree.descendant_count(top)).sum();
            prop_assert_eq!(total, spans.len());
            prop_assert_eq!(tree.kind_counts().values().sum::<usize>(), spans.len());
            for node in tree.nodes() {
                prop_assert_eq!(tree.depth_of(node), tree.ancestors(node).count() + 1);
                for child in tree.children(node) {
                    prop_assert_eq!(tree.parent(*child), Some(node));
                    prop_assert!(tree.is_descendant(*child, node));
                }
            }
        }
    }
}
