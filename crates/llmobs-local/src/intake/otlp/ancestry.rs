//! Parents across spans that are not kept.
//!
//! An OpenTelemetry trace holds spans of web servers and databases between those of models. These
//! are not kept, so a span below one is linked to its nearest ancestor that is. What is not kept
//! may arrive before the spans below it, with them, or after them: children end first, and a trace
//! crosses services. A bounded memory of what was not kept, and of the parents that nobody has seen
//! yet, covers all three; it does not outlive the process.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::store::{SpanStore, StoreError};
use llmobs_core::model::{Span, SpanId, TraceId};

/// Most spans remembered of each sort.
const REMEMBERED: usize = 65_536;

/// Most ancestors followed; a longer chain is a circle or as good as one.
const MAX_CHAIN: usize = 1_000;

type Key = (TraceId, SpanId);

/// A span that is not kept, and its parent.
pub(super) struct Skipped {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Option<SpanId>,
}

/// What is remembered between requests.
#[derive(Default)]
pub(crate) struct Ancestry {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Parents of spans that were not kept.
    skipped: Bounded<Key, Option<SpanId>>,
    /// Children, kept already, of spans that nobody has sent yet.
    awaited: Bounded<Key, Vec<SpanId>>,
}

impl Ancestry {
    /// Links `kept` to their nearest kept ancestors, and adds spans of earlier requests whose link
    /// changes by what is known now.
    pub(super) fn link(
        &self,
        kept: &mut Vec<Span>,
        skipped: Vec<Skipped>,
        store: &dyn SpanStore,
    ) -> Result<(), StoreError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut orphaned = Vec::new();
        for span in skipped {
            let key = (span.trace_id, span.span_id);
            let children = memory.awaited.take(&key).unwrap_or_default();
            orphaned.extend(children.into_iter().map(|child| (key.0.clone(), child)));
            memory.skipped.put(key, span.parent);
        }
        for (trace, child) in orphaned {
            // One that is sent again right now is linked below.
            let here = |span: &Span| span.trace_id == trace && span.span_id == child;
            if kept.iter().any(here) {
                continue;
            }
            if let Some(span) = store.span(&trace, &child)? {
                kept.push(span);
            }
        }
        for span in kept.iter_mut() {
            memory.link(span);
        }
        for span in kept.iter() {
            memory
                .awaited
                .take(&(span.trace_id.clone(), span.span_id.clone()));
        }
        Ok(())
    }
}

impl Memory {
    fn link(&mut self, span: &mut Span) {
        for _ in 0..MAX_CHAIN {
            let Some(parent) = span.parent_id.clone() else {
                return;
            };
            let key = (span.trace_id.clone(), parent);
            match self.skipped.get(&key) {
                Some(above) => span.parent_id.clone_from(above),
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

/// A map that forgets the oldest entries.
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Bounded<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn take(&mut self, key: &K) -> Option<V> {
        self.map.remove(key)
    }

    fn put(&mut self, key: K, value: V) {
        *self.entry(key) = value;
    }

    fn entry(&mut self, key: K) -> &mut V {
        if !self.map.contains_key(&key) {
            self.order.push_back(key.clone());
            // Keys that were taken stand in the order still; they go with the oldest.
            while self.order.len() > REMEMBERED {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
        }
        self.map.entry(key).or_default()
    }
}
