//! The spans of one trace as a tree that always exists.
//!
//! Real traces are ragged: parents that never reported, several roots, ids sent twice, ids that
//! point at each other. Every span is nonetheless one node, reachable from exactly one top, and
//! what was wrong is named instead of hidden.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Span, SpanId, SpanKind};

/// A span's place in its tree. Nodes are numbered by start time, then span id.
pub type NodeId = usize;

/// The spans of one trace, linked to their parents.
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
    nodes: Vec<Node>,
    by_id: HashMap<SpanId, NodeId>,
    roots: Vec<NodeId>,
    orphans: Vec<NodeId>,
    /// All nodes, each followed by what is below it.
    preorder: Vec<NodeId>,
    duplicates: Vec<SpanId>,
    cycles: Vec<SpanId>,
    nobody: Arc<Span>,
}

#[derive(Debug, Clone)]
struct Node {
    span: Arc<Span>,
    parent: Option<NodeId>,
    children: Vec<NodeId>,
    depth: usize,
    /// Where this node stands in `preorder`.
    position: usize,
    /// Nodes below this one, itself included.
    size: usize,
}

impl Node {
    fn new(span: &Arc<Span>) -> Self {
        Self {
            span: Arc::clone(span),
            parent: None,
            children: Vec::new(),
            depth: 0,
            position: 0,
            size: 1,
        }
    }
}

impl TraceTree {
    /// Links the spans of one trace, given in any order.
    pub fn build(spans: &[Arc<Span>]) -> Self {
        let mut sorted: Vec<&Arc<Span>> = spans.iter().collect();
        sorted.sort_by(|a, b| order(a).cmp(&order(b)));
        let mut tree = Self {
            nodes: sorted.into_iter().map(Node::new).collect(),
            by_id: HashMap::with_capacity(spans.len()),
            preorder: Vec::with_capacity(spans.len()),
            ..Self::default()
        };
        tree.index();
        let parents = tree.resolve_parents();
        tree.link(parents);
        tree.measure();
        tree
    }

    /// Remembers the first span of each id, and which ids came more than once.
    fn index(&mut self) {
        let mut named = HashSet::new();
        for (node, entry) in self.nodes.iter().enumerate() {
            let id = &entry.span.span_id;
            if !self.by_id.contains_key(id.as_str()) {
                self.by_id.insert(id.clone(), node);
            } else if named.insert(id) {
                self.duplicates.push(id.clone());
            }
        }
    }

    /// The parent of each node, with cycles cut.
    fn resolve_parents(&mut self) -> Vec<Option<NodeId>> {
        let mut cut = Vec::new();
        let mut parents: Vec<Option<NodeId>> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(node, entry)| {
                let parent_id = entry.span.parent_id.as_ref()?;
                if *parent_id == entry.span.span_id {
                    cut.push(node);
                    return None;
                }
                self.by_id.get(parent_id.as_str()).copied()
            })
            .collect();
        for node in cycle_starts(&parents) {
            if let Some(parent) = parents.get_mut(node) {
                *parent = None;
            }
            cut.push(node);
        }
        cut.sort_unstable();
        self.cycles = cut
            .into_iter()
            .map(|node| self.span(node).span_id.clone())
            .collect();
        parents
    }

    fn link(&mut self, parents: Vec<Option<NodeId>>) {
        for (node, parent) in parents.into_iter().enumerate() {
            let is_root = self.span(node).is_root();
            match parent.and_then(|parent| self.nodes.get_mut(parent)) {
                Some(above) => above.children.push(node),
                None if is_root => self.roots.push(node),
                None => self.orphans.push(node),
            }
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.parent = parent;
            }
        }
    }

    /// Depths, pre-order and subtree sizes.
    fn measure(&mut self) {
        let mut stack: Vec<(NodeId, usize)> = self.tops().map(|top| (top, 1)).collect();
        stack.reverse();
        while let Some((node, depth)) = stack.pop() {
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.depth = depth;
                entry.position = self.preorder.len();
                self.preorder.push(node);
                stack.extend(entry.children.iter().rev().map(|child| (*child, depth + 1)));
            }
        }
        for node in self.preorder.iter().rev() {
            let Some((parent, size)) = self
                .nodes
                .get(*node)
                .and_then(|entry| Some((entry.parent?, entry.size)))
            else {
                continue;
            };
            if let Some(above) = self.nodes.get_mut(parent) {
                above.size += size;
            }
        }
    }

    /// Number of spans, repeated ids included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the trace has no span.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, by start time.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        0..self.nodes.len()
    }

    /// The span at a node.
    pub fn span(&self, n: NodeId) -> &Arc<Span> {
        self.nodes.get(n).map_or(&self.nobody, |entry| &entry.span)
    }

    /// The spans without a parent, by start, then span id.
    pub fn roots(&self) -> &[NodeId] {
        &self.roots
    }

    /// The tops that have a parent id nonetheless: it names no span of the trace, or following it
    /// would go in a circle.
    pub fn orphans(&self) -> &[NodeId] {
        &self.orphans
    }

    /// Roots, then orphans: every span is below exactly one of them.
    pub fn tops(&self) -> impl Iterator<Item = NodeId> {
        self.roots.iter().chain(&self.orphans).copied()
    }

    /// The spans right below a node, by start.
    pub fn children(&self, n: NodeId) -> &[NodeId] {
        self.nodes
            .get(n)
            .map_or(&[], |entry| entry.children.as_slice())
    }

    /// The span right above a node.
    pub fn parent(&self, n: NodeId) -> Option<NodeId> {
        self.nodes.get(n)?.parent
    }

    /// How deep a node lies; 1 is a top.
    pub fn depth_of(&self, n: NodeId) -> usize {
        self.nodes.get(n).map_or(0, |entry| entry.depth)
    }

    /// The node of a span id; the first by start when the id came more than once.
    pub fn find(&self, id: &str) -> Option<NodeId> {
        self.by_id.get(id).copied()
    }

    /// Span ids that came more than once, each named once.
    pub fn duplicates(&self) -> &[SpanId] {
        &self.duplicates
    }

    /// Spans that were cut from their parent because following it would go in a circle.
    pub fn cycles(&self) -> &[SpanId] {
        &self.cycles
    }

    /// Number of spans below a node, itself not counted.
    pub fn descendants_count(&self, n: NodeId) -> usize {
        self.nodes.get(n).map_or(0, |entry| entry.size - 1)
    }

    /// A node and all spans below it, parents before children, siblings by start.
    pub fn walk(&self, n: NodeId) -> impl Iterator<Item = NodeId> {
        let range = self
            .nodes
            .get(n)
            .map_or(0..0, |entry| entry.position..entry.position + entry.size);
        self.preorder.get(range).unwrap_or_default().iter().copied()
    }

    /// Where a node stands when the whole tree is walked, from 0: what lies below a node follows
    /// it directly.
    pub fn position(&self, n: NodeId) -> usize {
        self.nodes.get(n).map_or(0, |entry| entry.position)
    }

    /// Whether a node lies below another one; no node lies below itself.
    pub fn is_below(&self, n: NodeId, ancestor: NodeId) -> bool {
        let (Some(node), Some(above)) = (self.nodes.get(n), self.nodes.get(ancestor)) else {
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
        let first = self.nodes.iter().map(|entry| entry.span.start_ns).min();
        let last = self.nodes.iter().map(|entry| entry.span.end_ns()).max();
        first
            .zip(last)
            .map_or(0, |(first, last)| last.saturating_sub(first))
    }

    /// Levels of the tree; 0 without spans.
    pub fn depth(&self) -> usize {
        self.nodes
            .iter()
            .map(|entry| entry.depth)
            .max()
            .unwrap_or_default()
    }

    /// Number of spans of each kind.
    pub fn kinds(&self) -> BTreeMap<SpanKind, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.nodes {
            *counts.entry(entry.span.kind.clone()).or_default() += 1;
        }
        counts
    }
}

/// The order of nodes: by start and id; the rest only settles repeated ids.
fn order(span: &Span) -> (i64, &SpanId, Option<&SpanId>, &str, i64) {
    (
        span.start_ns,
        &span.span_id,
        span.parent_id.as_ref(),
        &span.name,
        span.duration_ns,
    )
}

/// The lowest node of each cycle. Each node has at most one parent, so following parents from
/// every unseen node meets each cycle once.
fn cycle_starts(parents: &[Option<NodeId>]) -> Vec<NodeId> {
    let mut starts = Vec::new();
    // The walk that first came by; 0 is unseen.
    let mut seen_by = vec![0_usize; parents.len()];
    for start in 0..parents.len() {
        let walk = start + 1;
        let mut at = Some(start);
        while let Some(node) = at {
            match seen_by.get_mut(node) {
                Some(mark) if *mark == 0 => *mark = walk,
                Some(mark) if *mark == walk => {
                    starts.push(lowest_of_cycle(parents, node));
                    break;
                }
                _ => break,
            }
            at = parents.get(node).copied().flatten();
        }
    }
    starts
}

fn lowest_of_cycle(parents: &[Option<NodeId>], member: NodeId) -> NodeId {
    let mut lowest = member;
    let mut at = parents.get(member).copied().flatten();
    while let Some(node) = at.filter(|node| *node != member) {
        lowest = lowest.min(node);
        at = parents.get(node).copied().flatten();
    }
    lowest
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
