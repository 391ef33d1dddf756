//! Links the spans of a trace. Each span is visited once for what stands in it, and once for its
//! ids; everything else works on the compact list of nodes.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{IdIndex, Noted};
use super::{Node, NodeId, Shape};
use crate::model::{Span, SpanId, SpanKind};

/// The spans in the order of their nodes, and their tree.
pub(super) fn build(spans: &[Arc<Span>]) -> (Vec<Arc<Span>>, Shape) {
    let spans = in_order(spans);
    let mut shape = Shape {
        nodes: Vec::with_capacity(spans.len()),
        children: vec![0; spans.len()],
        by_id: IdIndex::with_capacity(spans.len()),
        preorder: Vec::with_capacity(spans.len()),
        ..Shape::default()
    };
    shape.take_in(&spans);
    let parents = shape.resolve_parents(&spans);
    shape.link(&parents, &spans);
    shape.measure();
    (spans, shape)
}

/// The spans by start and id; the rest only settles repeated ids. Spans come sorted as a rule, so
/// the starts are compared first and by themselves.
fn in_order(spans: &[Arc<Span>]) -> Vec<Arc<Span>> {
    let mut starts: Vec<(i64, &Arc<Span>)> =
        spans.iter().map(|span| (span.start_ns, span)).collect();
    starts.sort_by(|(a_ns, a), (b_ns, b)| a_ns.cmp(b_ns).then_with(|| ties(a).cmp(&ties(b))));
    let sorted = starts.into_iter();
    sorted.map(|(_, span)| Arc::clone(span)).collect()
}

fn ties(span: &Span) -> (&SpanId, Option<&SpanId>, &str, i64) {
    (
        &span.span_id,
        span.parent_id.as_ref(),
        &span.name,
        span.duration_ns,
    )
}

impl Shape {
    /// Notes what stands in the spans: times, kinds, status, and the first span of each id.
    fn take_in(&mut self, spans: &[Arc<Span>]) {
        let mut named = HashSet::new();
        let mut counts: Vec<usize> = Vec::new();
        let (mut first_ns, mut last_ns) = (i64::MAX, i64::MIN);
        for (node, span) in spans.iter().enumerate() {
            let kind = self.kind_of(&span.kind);
            match counts.get_mut(kind) {
                Some(count) => *count += 1,
                None => counts.push(1),
            }
            let end_ns = span.end_ns();
            first_ns = first_ns.min(span.start_ns);
            last_ns = last_ns.max(end_ns);
            let is_error = span.is_error();
            if is_error {
                self.errors.push(node);
            }
            self.nodes.push(Node {
                start_ns: span.start_ns,
                end_ns,
                parent: None,
                first_child: 0,
                children: 0,
                depth: 0,
                position: 0,
                size: 1,
                errors: usize::from(is_error),
                kind,
                is_error,
            });
            if matches!(self.by_id.note(node, spans), Noted::Repeated)
                && named.insert(&span.span_id)
            {
                self.duplicates.push(span.span_id.clone());
            }
        }
        if !spans.is_empty() {
            self.total_duration_ns = last_ns.saturating_sub(first_ns);
        }
        self.kind_counts = self.kinds.iter().cloned().zip(counts).collect();
    }

    /// The place of a kind among those that occur: there are few.
    fn kind_of(&mut self, kind: &SpanKind) -> usize {
        if let Some(known) = self.kinds.iter().position(|known| known == kind) {
            return known;
        }
        self.kinds.push(kind.clone());
        self.kinds.len() - 1
    }

    /// The parent of each node, with cycles cut.
    fn resolve_parents(&mut self, spans: &[Arc<Span>]) -> Vec<Option<NodeId>> {
        let mut cut = Vec::new();
        let mut parents: Vec<Option<NodeId>> = Vec::with_capacity(spans.len());
        // Siblings mostly follow each other.
        let mut known: Option<(&SpanId, Option<NodeId>)> = None;
        for (node, span) in spans.iter().enumerate() {
            let parent = match &span.parent_id {
                None => None,
                Some(id) if *id == span.span_id => {
                    cut.push(node);
                    None
                }
                Some(id) => match known {
                    Some((last, parent)) if last == id => parent,
                    _ => {
                        let parent = self.by_id.find(id.as_str(), spans);
                        known = Some((id, parent));
                        parent
                    }
                },
            };
            parents.push(parent);
        }
        for node in cycle_starts(&parents) {
            if let Some(parent) = parents.get_mut(node) {
                *parent = None;
            }
            cut.push(node);
        }
        cut.sort_unstable();
        let ids = cut.into_iter().filter_map(|node| spans.get(node));
        self.cycles = ids.map(|span| span.span_id.clone()).collect();
        parents
    }

    /// Puts each node under its parent. Children are counted first, so that those of one parent
    /// can stand side by side.
    fn link(&mut self, parents: &[Option<NodeId>], spans: &[Arc<Span>]) {
        for (node, parent) in parents.iter().enumerate() {
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.parent = *parent;
            }
            if let Some(above) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                above.children += 1;
            } else if spans.get(node).is_some_and(|span| span.is_root()) {
                self.roots.push(node);
            } else {
                self.orphans.push(node);
            }
        }
        let mut next = 0;
        for entry in &mut self.nodes {
            entry.first_child = next;
            next += entry.children;
            entry.children = 0;
        }
        for (node, parent) in parents.iter().enumerate() {
            if let Some(above) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                if let Some(place) = self.children.get_mut(above.first_child + above.children) {
                    *place = node;
                }
                above.children += 1;
            }
        }
        self.children.truncate(next);
    }

    /// Depths, pre-order, and what lies below each node.
    fn measure(&mut self) {
        let tops = self.roots.iter().chain(&self.orphans);
        let mut stack: Vec<(NodeId, usize)> = tops.map(|top| (*top, 1)).collect();
        stack.reverse();
        while let Some((node, depth)) = stack.pop() {
            self.depth = self.depth.max(depth);
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.depth = depth;
                entry.position = self.preorder.len();
                self.preorder.push(node);
                let range = entry.first_child..entry.first_child + entry.children;
                let children = self.children.get(range).unwrap_or_default();
                stack.extend(children.iter().rev().map(|child| (*child, depth + 1)));
            }
        }
        for node in self.preorder.iter().rev() {
            let Some((parent, size, errors)) = self
                .nodes
                .get(*node)
                .and_then(|entry| Some((entry.parent?, entry.size, entry.errors)))
            else {
                continue;
            };
            if let Some(above) = self.nodes.get_mut(parent) {
                above.size += size;
                above.errors += errors;
            }
        }
    }
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
