//! Nodes by span id.
//!
//! The index keeps only a hash of each id and compares the id itself in its span. The hash is
//! keyed, so a sender cannot choose ids that collide.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::node::{NodeId, NodeVec};
use crate::model::Span;

/// The first node of each span id.
#[derive(Debug, Default)]
pub(super) struct SpanIdIndex {
    keys: RandomState,
    first: HashMap<u64, NodeId, BuildHasherDefault<IdentityHasher>>,
    /// First nodes of ids whose hash equals that of another id; almost always empty.
    colliding: Vec<NodeId>,
}

/// Whether the index already held an id.
pub(super) enum Insertion {
    New,
    Duplicate,
}

impl SpanIdIndex {
    pub(super) fn with_capacity(ids: usize) -> Self {
        Self {
            first: HashMap::with_capacity_and_hasher(ids, BuildHasherDefault::default()),
            ..Self::default()
        }
    }

    /// Inserts the id of the span at a node, unless an earlier node has the same id.
    pub(super) fn insert(&mut self, node: NodeId, spans: &NodeVec<Arc<Span>>) -> Insertion {
        let id = span_id(node, spans);
        match self.first.entry(self.keys.hash_one(id)) {
            Entry::Vacant(entry) => {
                entry.insert(node);
                return Insertion::New;
            }
            Entry::Occupied(entry) if span_id(*entry.get(), spans) == id => {
                return Insertion::Duplicate;
            }
            Entry::Occupied(_) => {}
        }
        if self.find_colliding(id, spans).is_some() {
            return Insertion::Duplicate;
        }
        self.colliding.push(node);
        Insertion::New
    }

    pub(super) fn find(&self, id: &str, spans: &NodeVec<Arc<Span>>) -> Option<NodeId> {
        let first = self.first.get(&self.keys.hash_one(id)).copied()?;
        if span_id(first, spans) == id {
            return Some(first);
        }
        self.find_colliding(id, spans)
    }

    fn find_colliding(&self, id: &str, spans: &NodeVec<Arc<Span>>) -> Option<NodeId> {
        let mut nodes = self.colliding.iter().copied();
        nodes.find(|node| span_id(*node, spans) == id)
    }
}

fn span_id(node: NodeId, spans: &NodeVec<Arc<Span>>) -> &str {
    spans[node].span_id.as_str()
}

/// Returns a key that is already a hash unchanged.
#[derive(Debug, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
