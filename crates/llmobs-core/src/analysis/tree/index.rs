//! Nodes by span id.
//!
//! Only a hash of each id is kept: the id itself stands in its span, where a look-up checks it.
//! The hash is keyed, so nobody can choose ids that collide.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::NodeId;
use crate::model::Span;

/// The first node of each span id.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    keys: RandomState,
    first: HashMap<u64, NodeId, BuildHasherDefault<Hashed>>,
    /// First nodes of ids that share their hash with another one: as good as never any.
    others: Vec<NodeId>,
}

/// Whether an id was new to the index.
pub(super) enum Noted {
    New,
    Repeated,
}

impl IdIndex {
    pub(super) fn with_capacity(ids: usize) -> Self {
        Self {
            first: HashMap::with_capacity_and_hasher(ids, BuildHasherDefault::default()),
            ..Self::default()
        }
    }

    /// Notes the id of the span at a node, unless an earlier node has it.
    pub(super) fn note(&mut self, node: NodeId, spans: &[Arc<Span>]) -> Noted {
        let id = id_of(node, spans);
        match self.first.entry(self.keys.hash_one(id)) {
            Entry::Vacant(place) => {
                place.insert(node);
                return Noted::New;
            }
            Entry::Occupied(place) if id_of(*place.get(), spans) == id => return Noted::Repeated,
            Entry::Occupied(_) => {}
        }
        if self.others.iter().any(|other| id_of(*other, spans) == id) {
            return Noted::Repeated;
        }
        self.others.push(node);
        Noted::New
    }

    pub(super) fn find(&self, id: &str, spans: &[Arc<Span>]) -> Option<NodeId> {
        let first = self.first.get(&self.keys.hash_one(id)).copied()?;
        if id_of(first, spans) == id {
            return Some(first);
        }
        let mut others = self.others.iter().copied();
        others.find(|other| id_of(*other, spans) == id)
    }
}

fn id_of(node: NodeId, spans: &[Arc<Span>]) -> &str {
    spans.get(node).map_or("", |span| span.span_id.as_str())
}

/// Takes a hash for what it is.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
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
