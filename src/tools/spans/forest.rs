//! Trees within a budget.
//!
//! Nodes are taken level by level, so that what gives way first is what lies deepest. A page is a
//! run of that order: its nodes stand nested where their parent is on the same page, and as entries
//! of their own, with `parent_id`, where it is not. A node whose children are not all shown is
//! `collapsed` and says how many spans it hides.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::render::{Budget, cut_middle, to_json};
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{ROOT_PARENT, SpanId, SpanKind};

/// How deep JSON is nested at most: readers of clients stop at about a hundred levels.
const MAX_NESTING: usize = 32;
const MAX_NAME: usize = 200;

/// One span in a tree.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Node {
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
    children: Vec<Node>,
}

/// A node to show, and the entry that it stands under.
#[derive(Debug, Clone, Copy)]
struct Entry {
    node: NodeId,
    parent: Option<usize>,
    level: usize,
}

/// The most nodes that a page of this size can hold: none is shorter than this.
pub(super) fn most_nodes(budget: Budget) -> usize {
    budget.chars() / 150 + 1
}

/// The nodes to show, level by level, as far as the page of them that is shown.
pub(super) struct Forest<'t> {
    tree: &'t TraceTree,
    /// The nodes up to the end of the page.
    entries: Vec<Entry>,
    /// Where the page starts.
    first: usize,
    /// Whether nodes follow after the page.
    more: bool,
}

impl<'t> Forest<'t> {
    /// A page of the nodes below `tops`, at most `depth` levels below them, that `wanted` lets
    /// through. What follows after the page is not looked at.
    pub(super) fn new(
        tree: &'t TraceTree,
        tops: impl IntoIterator<Item = NodeId>,
        depth: usize,
        page: Range<usize>,
        wanted: impl Fn(NodeId) -> bool,
    ) -> Self {
        let mut entries: Vec<Entry> = tops
            .into_iter()
            .take(page.end.saturating_add(1))
            .map(|node| Entry {
                node,
                parent: None,
                level: 0,
            })
            .collect();
        let mut next = 0;
        while entries.len() <= page.end
            && let Some(entry) = entries.get(next).copied()
        {
            if entry.level < depth {
                entries.extend(
                    tree.children(entry.node)
                        .iter()
                        .filter(|child| wanted(**child))
                        .map(|child| Entry {
                            node: *child,
                            parent: Some(next),
                            level: entry.level + 1,
                        }),
                );
            }
            next += 1;
        }
        let more = entries.len() > page.end;
        entries.truncate(page.end);
        Self {
            tree,
            first: page.start.min(entries.len()),
            entries,
            more,
        }
    }

    /// How many nodes the page has.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.first
    }

    /// Where the first `count` nodes of the page end, if more follow.
    pub(super) fn next_offset(&self, count: usize) -> Option<usize> {
        (self.more || count < self.len()).then_some(self.first + count)
    }

    /// The size of each of the first `count` nodes of the page, without its children.
    pub(super) fn sizes(&self, count: usize) -> impl Iterator<Item = usize> {
        self.page(count).map(|(_, entry)| {
            to_json(&self.node(&entry, 0, 0)).map_or(0, |text| text.chars().count())
        })
    }

    /// Builds the page's first `count` nodes as nested trees, each with whether it stands below an
    /// orphan.
    pub(super) fn build(&self, count: usize) -> Built {
        // Leaves first: by the time a parent is built, its children are.
        let mut open: Vec<Vec<Node>> = vec![Vec::new(); count];
        let mut shown: Vec<(usize, usize, usize)> = vec![(0, 0, 0); count];
        let mut built = Built::default();
        let mut nesting = vec![1_usize; count];
        for (index, entry) in self.page(count) {
            if let Some(parent) = self.slot(entry.parent) {
                let level = nesting.get(parent).copied().unwrap_or(1) + 1;
                if let Some(slot) = nesting.get_mut(index) {
                    *slot = if level > MAX_NESTING { 1 } else { level };
                }
            }
        }
        let page: Vec<(usize, Entry)> = self.page(count).collect();
        for (index, entry) in page.into_iter().rev() {
            let (children, spans, errors) = shown.get(index).copied().unwrap_or_default();
            let below = self.tree.descendant_count(entry.node);
            let errors_here = usize::from(self.tree.is_error(entry.node));
            let all_errors = self.tree.errors_in_subtree(entry.node);
            let hidden = if children < self.tree.children(entry.node).len() {
                below - spans
            } else {
                0
            };
            let hidden_errors = if hidden > 0 {
                all_errors.saturating_sub(errors_here + errors)
            } else {
                0
            };
            let mut node = self.node(&entry, hidden, hidden_errors);
            let mut nested = open.get_mut(index).map(std::mem::take).unwrap_or_default();
            nested.reverse();
            node.children = nested;
            if let Some(parent) = self.slot(entry.parent) {
                if let Some(tally) = shown.get_mut(parent) {
                    tally.0 += 1;
                    // What the child hides it says itself, so its whole subtree counts as told.
                    tally.1 += 1 + below;
                    tally.2 += all_errors;
                }
                if nesting.get(index).is_some_and(|level| *level > 1)
                    && let Some(siblings) = open.get_mut(parent)
                {
                    siblings.push(node);
                    continue;
                }
                built.split_by_depth = true;
            }
            built.tops.push((entry.node, node));
        }
        built.tops.reverse();
        built
    }

    fn page(&self, count: usize) -> impl Iterator<Item = (usize, Entry)> + '_ {
        self.entries
            .iter()
            .copied()
            .skip(self.first)
            .take(count)
            .enumerate()
    }

    /// The place on this page of an entry, if it is on it.
    fn slot(&self, entry: Option<usize>) -> Option<usize> {
        entry.and_then(|entry| entry.checked_sub(self.first))
    }

    fn node(&self, entry: &Entry, hidden: usize, hidden_errors: usize) -> Node {
        let span = self.tree.span(entry.node);
        Node {
            span_id: span.span_id.clone(),
            parent_id: span
                .parent_id
                .as_ref()
                .map_or(ROOT_PARENT.to_owned(), ToString::to_string),
            name: cut_middle(&span.name, MAX_NAME),
            span_kind: span.kind.clone(),
            status: span.status.as_str(),
            start_ms: span.start_ms(),
            duration_ms: span.duration_ms(),
            has_input: !span.input.is_empty(),
            has_output: !span.output.is_empty(),
            has_error: span.is_error(),
            metadata: replay_metadata(&span.metadata, entry.level),
            children_count: self.tree.children(entry.node).len(),
            collapsed: hidden > 0,
            hidden_spans: (hidden > 0).then_some(hidden),
            hidden_errors: (hidden_errors > 0).then_some(hidden_errors),
            children: Vec::new(),
        }
    }
}

/// A page of trees.
#[derive(Default)]
pub(super) struct Built {
    /// The outermost nodes of the page, in order.
    pub(super) tops: Vec<(NodeId, Node)>,
    /// Whether a branch deeper than the nesting limit was continued as an entry of its own.
    pub(super) split_by_depth: bool,
}

/// What a replay needs stands in the root's metadata under these keys.
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
