//! The spans of one trace as a tree that always exists.
//!
//! Real traces are ragged: parents that never reported, several roots, ids sent twice, ids that
//! point at each other. Every span is nonetheless one node, reachable from exactly one top, and
//! what was wrong is named instead of hidden.
//!
//! A tree is built once, when its trace is loaded, and read by every call that follows. What calls
//! ask of every node stands in one compact list, because the spans themselves lie scattered in
//! memory: to visit ten thousand of them costs more than what is then done with them.

mod build;
mod index;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Span, SpanId, SpanKind};
use index::IdIndex;

/// A span's place in its tree. Nodes are numbered by start time, then span id.
pub type NodeId = usize;

/// The spans of one trace, linked to their parents. Copies share what they hold.
///
/// - A span without a parent is a **root**; one whose parent id names no span is an **orphan**.
/// - The same span id twice stays two nodes, so that no span is lost from a count. Children attach
///   to the first by start, and [`TraceTree::find`] finds it; the id is named in
///   [`TraceTree::duplicates`].
/// - Spans that are each other's ancestors are cut apart at the one that starts first, which
///   becomes an orphan and is named in [`TraceTree::cycles`]; so is a span that is its own parent.
///
/// A number that is no node of the tree reads as an empty span without relatives.
#[derive(Debug, Clone, Default)]
pub struct TraceTree {
    spans: Arc<Vec<Arc<Span>>>,
    shape: Arc<Shape>,
    nobody: Arc<Span>,
}

/// All of a tree but its spans.
#[derive(Debug, Default)]
struct Shape {
    nodes: Vec<Node>,
    /// The children of all nodes, those of one side by side.
    children: Vec<NodeId>,
    by_id: IdIndex,
    roots: Vec<NodeId>,
    orphans: Vec<NodeId>,
    /// All nodes, each followed by what is below it.
    preorder: Vec<NodeId>,
    duplicates: Vec<SpanId>,
    cycles: Vec<SpanId>,
    /// The kinds that occur, which nodes name by their place here.
    kinds: Vec<SpanKind>,
    kind_counts: BTreeMap<SpanKind, usize>,
    errors: Vec<NodeId>,
    total_duration_ns: i64,
    depth: usize,
}

/// What is asked of a node without looking at its span.
#[derive(Debug, Clone)]
struct Node {
    start_ns: i64,
    end_ns: i64,
    parent: Option<NodeId>,
    /// Where its children stand in the list of all children.
    first_child: usize,
    children: usize,
    depth: usize,
    /// Where this node stands in `preorder`.
    position: usize,
    /// Nodes below this one, itself included.
    size: usize,
    /// Error spans below this one, itself included.
    errors: usize,
    kind: usize,
    is_error: bool,
}

impl TraceTree {
    /// Links the spans of one trace, given in any order.
    pub fn build(spans: &[Arc<Span>]) -> Self {
        let (spans, shape) = build::build(spans);
        Self {
            spans: Arc::new(spans),
            shape: Arc::new(shape),
            nobody: Arc::default(),
        }
    }

    /// The same tree over other copies of its spans, given by node: with their content, say. Ids,
    /// parents, kinds, times and status must be the same.
    pub fn with_spans(&self, spans: Vec<Arc<Span>>) -> Self {
        Self {
            spans: Arc::new(spans),
            shape: Arc::clone(&self.shape),
            nobody: Arc::clone(&self.nobody),
        }
    }

    fn node(&self, n: NodeId) -> Option<&Node> {
        self.shape.nodes.get(n)
    }

    /// Number of spans, repeated ids included.
    pub fn len(&self) -> usize {
        self.shape.nodes.len()
    }

    /// Whether the trace has no span.
    pub fn is_empty(&self) -> bool {
        self.shape.nodes.is_empty()
    }

    /// All nodes, by start time.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        0..self.len()
    }

    /// The span at a node.
    pub fn span(&self, n: NodeId) -> &Arc<Span> {
        self.spans.get(n).unwrap_or(&self.nobody)
    }

    /// All spans, by node.
    pub fn spans(&self) -> &[Arc<Span>] {
        &self.spans
    }

    /// The kind of the span at a node.
    pub fn kind(&self, n: NodeId) -> &SpanKind {
        self.node(n)
            .and_then(|node| self.shape.kinds.get(node.kind))
            .unwrap_or(&self.nobody.kind)
    }

    /// Whether the span at a node ended in an error.
    pub fn is_error(&self, n: NodeId) -> bool {
        self.node(n).is_some_and(|node| node.is_error)
    }

    /// When the span at a node started, in nanoseconds since the Unix epoch.
    pub fn start_ns(&self, n: NodeId) -> i64 {
        self.node(n).map_or(0, |node| node.start_ns)
    }

    /// When the span at a node ended, in nanoseconds since the Unix epoch; never before its start.
    pub fn end_ns(&self, n: NodeId) -> i64 {
        self.node(n).map_or(0, |node| node.end_ns)
    }

    /// The spans without a parent, by start, then span id.
    pub fn roots(&self) -> &[NodeId] {
        &self.shape.roots
    }

    /// The tops that have a parent id nonetheless: it names no span of the trace, or following it
    /// would go in a circle.
    pub fn orphans(&self) -> &[NodeId] {
        &self.shape.orphans
    }

    /// Roots, then orphans: every span is below exactly one of them.
    pub fn tops(&self) -> impl Iterator<Item = NodeId> {
        self.roots().iter().chain(self.orphans()).copied()
    }

    /// The spans right below a node, by start.
    pub fn children(&self, n: NodeId) -> &[NodeId] {
        self.node(n)
            .and_then(|node| {
                let range = node.first_child..node.first_child + node.children;
                self.shape.children.get(range)
            })
            .unwrap_or_default()
    }

    /// The span right above a node.
    pub fn parent(&self, n: NodeId) -> Option<NodeId> {
        self.node(n)?.parent
    }

    /// How deep a node lies; 1 is a top.
    pub fn depth_of(&self, n: NodeId) -> usize {
        self.node(n).map_or(0, |node| node.depth)
    }

    /// The node of a span id; the first by start when the id came more than once.
    pub fn find(&self, id: &str) -> Option<NodeId> {
        self.shape.by_id.find(id, &self.spans)
    }

    /// Span ids that came more than once, each named once.
    pub fn duplicates(&self) -> &[SpanId] {
        &self.shape.duplicates
    }

    /// Spans that were cut from their parent because following it would go in a circle.
    pub fn cycles(&self) -> &[SpanId] {
        &self.shape.cycles
    }

    /// Number of spans below a node, itself not counted.
    pub fn descendants_count(&self, n: NodeId) -> usize {
        self.node(n).map_or(0, |node| node.size - 1)
    }

    /// Number of error spans at or below a node.
    pub fn errors_within(&self, n: NodeId) -> usize {
        self.node(n).map_or(0, |node| node.errors)
    }

    /// The error spans, by start.
    pub fn errors(&self) -> &[NodeId] {
        &self.shape.errors
    }

    /// A node and all spans below it, parents before children, siblings by start.
    pub fn walk(&self, n: NodeId) -> impl Iterator<Item = NodeId> {
        let range = self
            .node(n)
            .map_or(0..0, |node| node.position..node.position + node.size);
        let walked = self.shape.preorder.get(range).unwrap_or_default();
        walked.iter().copied()
    }

    /// All nodes, parents before children, below each top in turn.
    pub fn walk_all(&self) -> impl Iterator<Item = NodeId> {
        self.shape.preorder.iter().copied()
    }

    /// Where a node stands when the whole tree is walked, from 0: what lies below a node follows
    /// it directly.
    pub fn position(&self, n: NodeId) -> usize {
        self.node(n).map_or(0, |node| node.position)
    }

    /// Whether a node lies below another one; no node lies below itself.
    pub fn is_below(&self, n: NodeId, ancestor: NodeId) -> bool {
        let (Some(node), Some(above)) = (self.node(n), self.node(ancestor)) else {
            return false;
        };
        (above.position + 1..above.position + above.size).contains(&node.position)
    }

    /// The spans above a node, nearest first.
    pub fn ancestors(&self, n: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.parent(n), |above| self.parent(*above))
    }

    /// From the first start to the last end, in nanoseconds.
    pub fn total_duration_ns(&self) -> i64 {
        self.shape.total_duration_ns
    }

    /// Levels of the tree; 0 without spans.
    pub fn depth(&self) -> usize {
        self.shape.depth
    }

    /// Number of spans of each kind.
    pub fn kinds(&self) -> &BTreeMap<SpanKind, usize> {
        &self.shape.kind_counts
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
    fn children_follow_their_parent_by_start_whatever_the_order_of_arrival() {
        let tree = TraceTree::build(&[
            span("late", Some("root"), 9),
            span("leaf", Some("early"), 4),
            span("early", Some("root"), 3),
            span("root", None, 1),
        ]);
        let root = tree.find("root").unwrap();
        assert_eq!(
            ids(&tree, tree.walk(root)),
            ["root", "early", "leaf", "late"]
        );
        assert_eq!(tree.descendants_count(root), 3);
        assert_eq!(tree.depth(), 3);
        let leaf = tree.find("leaf").unwrap();
        assert_eq!(ids(&tree, tree.ancestors(leaf)), ["early", "root"]);
        assert!(tree.is_below(leaf, root) && !tree.is_below(root, root));
        assert_eq!(tree.total_duration_ns(), 18);
    }

    #[test]
    fn a_span_whose_parent_never_reported_is_an_orphan_beside_the_roots() {
        let tree = TraceTree::build(&[
            span("a", None, 2),
            span("b", None, 1),
            span("lost", Some("never"), 0),
        ]);
        assert_eq!(ids(&tree, tree.roots().to_vec()), ["b", "a"]);
        assert_eq!(ids(&tree, tree.orphans().to_vec()), ["lost"]);
        assert_eq!(ids(&tree, tree.tops()), ["b", "a", "lost"]);
    }

    #[test]
    fn a_repeated_id_keeps_both_spans_and_children_go_to_the_first() {
        let tree = TraceTree::build(&[
            span("root", None, 0),
            span("twin", Some("root"), 5),
            span("twin", Some("root"), 3),
            span("child", Some("twin"), 6),
        ]);
        assert_eq!(tree.len(), 4);
        assert_eq!(ids(&tree, tree.children(0).to_vec()), ["twin", "twin"]);
        assert_eq!(tree.duplicates(), [SpanId::from("twin")]);
        let first = tree.find("twin").unwrap();
        assert_eq!(tree.span(first).start_ns, 3);
        assert_eq!(ids(&tree, tree.children(first).to_vec()), ["child"]);
    }

    #[test]
    fn a_cycle_is_cut_at_its_earliest_span() {
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
        assert_eq!(ids(&tree, tree.walk(a)), ["a", "b", "c", "tail"]);
    }

    #[test]
    fn a_chain_of_ten_thousand_spans_is_a_tree_like_any_other() {
        let spans: Vec<_> = (0..10_000)
            .map(|n: i64| {
                let parent = (n > 0).then(|| (n - 1).to_string());
                span(&n.to_string(), parent.as_deref(), n)
            })
            .collect();
        let tree = TraceTree::build(&spans);
        assert_eq!(tree.depth(), 10_000);
        assert_eq!(tree.descendants_count(0), 9_999);
        assert_eq!(tree.ancestors(9_999).count(), 9_999);
    }

    #[test]
    fn a_number_that_is_no_node_reads_as_an_empty_span() {
        let tree = TraceTree::build(&[]);
        assert!(tree.is_empty());
        assert_eq!(tree.span(7).span_id.as_str(), "");
        assert_eq!(tree.walk(7).count(), 0);
        assert_eq!((tree.depth(), tree.total_duration_ns()), (0, 0));
    }

    proptest! {
        #[test]
        fn every_span_is_below_exactly_one_top(
            links in prop::collection::vec((0..12_u8, prop::option::of(0..15_u8), 0..6_i64), 0..40)
        ) {
            let spans: Vec<_> = links
                .iter()
                .map(|(id, parent, start)| {
                    span(&id.to_string(), parent.map(|p| p.to_string()).as_deref(), *start)
                })
                .collect();
            let tree = TraceTree::build(&spans);
            let mut walked: Vec<_> = tree.tops().flat_map(|top| tree.walk(top)).collect();
            prop_assert_eq!(walked.len(), spans.len());
            for (position, node) in walked.iter().enumerate() {
                prop_assert_eq!(tree.position(*node), position);
            }
            walked.sort_unstable();
            prop_assert!(walked.into_iter().eq(0..spans.len()));
            let below: usize = tree.tops().map(|top| 1 + tree.descendants_count(top)).sum();
            prop_assert_eq!(below, spans.len());
            prop_assert_eq!(tree.kinds().values().sum::<usize>(), spans.len());
            for node in 0..tree.len() {
                prop_assert_eq!(tree.depth_of(node), tree.ancestors(node).count() + 1);
                for child in tree.children(node) {
                    prop_assert_eq!(tree.parent(*child), Some(node));
                    prop_assert!(tree.is_below(*child, node));
                }
            }
        }
    }
}
