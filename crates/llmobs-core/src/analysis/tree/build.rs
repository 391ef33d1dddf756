//! Links the spans of a trace into a tree.
//!
//! The build reads each span once for its times, kind and status, and once for its ids. All other
//! steps work on the compact list of nodes.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{Insertion, SpanIdIndex};
use super::node::{NodeId, NodeVec};
use super::{Node, Structure};
use crate::model::{Span, SpanId, SpanKind};

/// Sorts the spans into the order of their nodes, and links them.
pub(super) fn build(spans: &[Arc<Span>]) -> (NodeVec<Arc<Span>>, Structure) {
    let spans = sort(spans);
    let mut structure = Structure {
        nodes: NodeVec::with_capacity(spans.len()),
        by_id: SpanIdIndex::with_capacity(spans.len()),
        preorder: Vec::with_capacity(spans.len()),
        ..Structure::default()
    };
    structure.read_spans(&spans);
    let parents = structure.resolve_parents(&spans);
    structure.link(&parents, &spans);
    structure.measure();
    (spans, structure)
}

/// Sorts spans by start, then id; the other fields order spans with the same id. Spans usually
/// arrive sorted, so a separate list of start times is compared first.
fn sort(spans: &[Arc<Span>]) -> NodeVec<Arc<Span>> {
    let mut starts: Vec<(i64, &Arc<Span>)> =
        spans.iter().map(|span| (span.start_ns, span)).collect();
    starts.sort_by(|(a_ns, a), (b_ns, b)| {
        a_ns.cmp(b_ns)
            .then_with(|| tie_breakers(a).cmp(&tie_breakers(b)))
    });
    let sorted = starts.into_iter();
    sorted.map(|(_, span)| Arc::clone(span)).collect()
}

fn tie_breakers(span: &Span) -> (&SpanId, Option<&SpanId>, &str, i64) {
    (
        &span.span_id,
        span.parent_id.as_ref(),
        &span.name,
        span.duration_ns,
    )
}

impl Structure {
    /// Reads times, kinds and status of the spans, and indexes the first span of each id.
    fn read_spans(&mut self, spans: &NodeVec<Arc<Span>>) {
        let mut reported = HashSet::new();
        // A trace has few kinds, so a list is faster than a map.
        let mut counts: Vec<(&SpanKind, usize)> = Vec::new();
        let (mut first_ns, mut last_ns) = (i64::MAX, i64::MIN);
        for span in spans.as_slice() {
            match counts.iter_mut().find(|(kind, _)| **kind == span.kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((&span.kind, 1)),
            }
            let end_ns = span.end_ns();
            first_ns = first_ns.min(span.start_ns);
            last_ns = last_ns.max(end_ns);
            let is_error = span.is_error();
            let node = self.nodes.push(Node {
                start_ns: span.start_ns,
                end_ns,
                parent: None,
                children: 0..0,
                depth: 0,
                preorder_index: 0,
                size: 1,
                errors: usize::from(is_error),
                kind: span.kind.clone(),
                is_error,
            });
            if is_error {
                self.errors.push(node);
            }
            if matches!(self.by_id.insert(node, spans), Insertion::Duplicate)
                && reported.insert(&span.span_id)
            {
                self.duplicates.push(span.span_id.clone());
            }
        }
        if !spans.is_empty() {
            self.total_duration_ns = last_ns.saturating_sub(first_ns);
        }
        let counts = counts.into_iter();
        self.kind_counts = counts.map(|(kind, count)| (kind.clone(), count)).collect();
    }

    /// The parent of each node, with cycles cut.
    fn resolve_parents(&mut self, spans: &NodeVec<Arc<Span>>) -> NodeVec<Option<NodeId>> {
        let mut cut = Vec::new();
        let mut parents = NodeVec::with_capacity(spans.len());
        // Siblings usually follow each other, so the last look-up is often the next one.
        let mut last_lookup: Option<(&SpanId, Option<NodeId>)> = None;
        for (node, span) in spans.iter() {
            let parent = match &span.parent_id {
                None => None,
                Some(id) if *id == span.span_id => {
                    cut.push(node);
                    None
                }
                Some(id) => match last_lookup {
                    Some((last, parent)) if last == id => parent,
                    _ => {
                        let parent = self.by_id.find(id.as_str(), spans);
                        last_lookup = Some((id, parent));
                        parent
                    }
                },
            };
            parents.push(parent);
        }
        for node in cycle_starts(&parents) {
            parents[node] = None;
            cut.push(node);
        }
        cut.sort_unstable();
        let ids = cut.into_iter().map(|node| spans[node].span_id.clone());
        self.cycles = ids.collect();
        parents
    }

    /// Links each node to its parent, and stores the children of one parent side by side.
    fn link(&mut self, parents: &NodeVec<Option<NodeId>>, spans: &NodeVec<Arc<Span>>) {
        let mut links: Vec<(NodeId, NodeId)> = Vec::with_capacity(parents.len());
        for (node, parent) in parents.iter() {
            self.nodes[node].parent = *parent;
            match parent {
                Some(parent) => links.push((*parent, node)),
                None if spans[node].is_root() => self.roots.push(node),
                None => self.orphans.push(node),
            }
        }
        links.sort_unstable();
        for siblings in links.chunk_by(|(left, _), (right, _)| left == right) {
            let first = self.children.len();
            self.children.extend(siblings.iter().map(|(_, node)| *node));
            if let Some((parent, _)) = siblings.first() {
                self.nodes[*parent].children = first..self.children.len();
            }
        }
    }

    /// Computes depths, the preorder, and the size of each subtree.
    fn measure(&mut self) {
        let top_level = self.roots.iter().chain(&self.orphans);
        let mut stack: Vec<(NodeId, usize)> = top_level.map(|node| (*node, 1)).collect();
        stack.reverse();
        while let Some((node, depth)) = stack.pop() {
            self.depth = self.depth.max(depth);
            self.nodes[node].depth = depth;
            self.nodes[node].preorder_index = self.preorder.len();
            self.preorder.push(node);
            let children = self.children_of(node).iter().rev();
            stack.extend(children.map(|child| (*child, depth + 1)));
        }
        for node in self.preorder.iter().rev() {
            let Node {
                parent,
                size,
                errors,
                ..
            } = self.nodes[*node];
            if let Some(parent) = parent {
                self.nodes[parent].size += size;
                self.nodes[parent].errors += errors;
            }
        }
    }
}

/// The first node of each cycle. Each node has at most one parent, so following the parents of
/// every unvisited node finds each cycle once.
fn cycle_starts(parents: &NodeVec<Option<NodeId>>) -> Vec<NodeId> {
    let mut starts = Vec::new();
    // The node whose chain of parents visited a node first.
    let mut visited_from: NodeVec<Option<NodeId>> = NodeVec::filled(None, parents.len());
    for start in parents.nodes() {
        let mut next = Some(start);
        while let Some(node) = next {
            match visited_from[node] {
                None => visited_from[node] = Some(start),
                Some(from) if from == start => {
                    starts.push(first_of_cycle(parents, node));
                    break;
                }
                Some(_) => break,
            }
            next = parents[node];
        }
    }
    starts
}

fn first_of_cycle(parents: &NodeVec<Option<NodeId>>, member: NodeId) -> NodeId {
    let mut first = member;
    let mut next = parents[member];
    while let Some(node) = next.filter(|node| *node != member) {
        first = first.min(node);
        next = parents[node];
    }
    first
}
