//! Parent links across spans that are not stored.
//!
//! An OpenTelemetry trace contains spans of web servers and databases between LLM spans. They are
//! not stored, so a descendant links to its nearest stored ancestor. A skipped span may arrive
//! before, with or after its descendants: children end first, and a trace crosses services. A
//! bounded record of skipped spans and of missing parents covers all three cases. It is lost when
//! the process ends.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::span_store::SpanStore;
use crate::store::StoreError;
use llmobs_core::model::{Span, SpanId, TraceId};

/// Most skipped spans remembered, and most missing parents.
const MAX_REMEMBERED: usize = 65_536;

/// Most ancestors followed; a longer chain is treated as a cycle.
const MAX_ANCESTORS: usize = 1_000;

type SpanKey = (TraceId, SpanId);

/// A span that is not stored, and its parent.
pub(super) struct SkippedSpan {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Option<SpanId>,
}

/// Skipped spans and missing parents, remembered between requests.
#[derive(Default)]
pub(crate) struct Ancestry {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Parents of skipped spans.
    skipped: BoundedMap<SpanKey, Option<SpanId>>,
    /// Stored children of spans that have not arrived.
    awaited: BoundedMap<SpanKey, Vec<SpanId>>,
}

impl Ancestry {
    /// Links `spans` to their nearest stored ancestors. Adds spans of earlier requests whose parent
    /// turns out to be skipped.
    pub(super) fn link(
        &self,
        spans: &mut Vec<Span>,
        skipped: Vec<SkippedSpan>,
        store: &SpanStore,
    ) -> Result<(), StoreError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut orphaned = Vec::new();
        for span in skipped {
            let key = (span.trace_id, span.span_id);
            let children = memory.awaited.remove(&key).unwrap_or_default();
            orphaned.extend(children.into_iter().map(|child| (key.0.clone(), child)));
            memory.skipped.insert(key, span.parent);
        }
        for (trace, child) in orphaned {
            // A child that this request sends again is linked below.
            let is_child = |span: &Span| span.trace_id == trace && span.span_id == child;
            if spans.iter().any(is_child) {
                continue;
            }
            if let Some(span) = store.span(&trace, &child)? {
                spans.push(span);
            }
        }
        for span in spans.iter_mut() {
            memory.link(span);
        }
        for span in spans.iter() {
            memory
                .awaited
                .remove(&(span.trace_id.clone(), span.span_id.clone()));
        }
        Ok(())
    }
}

impl Memory {
    /// Follows skipped ancestors up to one that is stored or has not arrived.
    fn link(&mut self, span: &mut Span) {
        for _ in 0..MAX_ANCESTORS {
            let Some(parent) = span.parent_id.clone() else {
                return;
            };
            let key = (span.trace_id.clone(), parent);
            match self.skipped.get(&key) {
                Some(grandparent) => span.parent_id.clone_from(grandparent),
                None => {
                    let children = self.awaited.entry(key);
                    if !children.contains(&span.span_id) {
                        children.push(span.span_id.clone());
                    }
                    return;
                }
            }
        }
        span.parent_id = None;
    }
}

/// A map that drops its oldest entries.
struct BoundedMap<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for BoundedMap<K, V> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V: Default> BoundedMap<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.map.remove(key)
    }

    fn insert(&mut self, key: K, value: V) {
        *self.entry(key) = value;
    }

    fn entry(&mut self, key: K) -> &mut V {
        if !self.map.contains_key(&key) {
            self.order.push_back(key.clone());
            // `order` still contains removed keys; they are dropped as they become the oldest.
            while self.order.len() > MAX_REMEMBERED {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
        }
        self.map.entry(key).or_default()
    }
}
