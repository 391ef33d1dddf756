//! Spans that were written a moment ago and are not in the index yet.
//!
//! The index reads each of them once, and every search judges them. Unpacking and parsing a row
//! costs more than either, so for that moment the span itself is kept: bounded, and only a copy of
//! what the rows have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Span;

/// Spans kept at most.
const MOST: usize = 16_384;

/// Packed bytes of their rows at most: several times as much unpacked.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The spans, by the keys of their rows.
#[derive(Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    spans: HashMap<i64, Fresh>,
    bytes: usize,
}

/// A span as it was written.
#[derive(Clone)]
pub(super) struct Fresh {
    /// The change that wrote it.
    pub(super) seq: i64,
    /// Without evaluations.
    pub(super) span: Arc<Span>,
    /// Packed bytes of its row.
    pub(super) bytes: usize,
}

impl Recent {
    /// Keeps spans that were committed, as long as there is room.
    pub(super) fn put(&self, spans: impl IntoIterator<Item = (i64, Fresh)>) {
        let mut kept = self.lock();
        for (id, fresh) in spans {
            if kept.spans.len() >= MOST || kept.bytes >= MOST_BYTES {
                return;
            }
            kept.bytes += fresh.bytes;
            if let Some(old) = kept.spans.insert(id, fresh) {
                kept.bytes -= old.bytes;
            }
        }
    }

    /// The span that a change wrote under a key, if it is kept.
    pub(super) fn get(&self, id: i64, seq: i64) -> Option<Arc<Span>> {
        let kept = self.lock();
        let fresh = kept.spans.get(&id).filter(|fresh| fresh.seq == seq);
        fresh.map(|fresh| fresh.span.clone())
    }

    /// Lets go of all that the index has: what was written up to a change.
    pub(super) fn forget(&self, seq: i64) {
        let mut kept = self.lock();
        let gone = kept.spans.extract_if(|_, fresh| fresh.seq <= seq);
        let gone: Vec<(i64, Fresh)> = gone.collect();
        kept.bytes -= gone.iter().map(|(_, fresh)| fresh.bytes).sum::<usize>();
        // Freeing them takes long, and searches wait for the lock.
        drop(kept);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(seq: i64, bytes: usize) -> Fresh {
        Fresh {
            seq,
            span: Arc::new(Span::default()),
            bytes,
        }
    }

    #[test]
    fn a_span_is_kept_for_its_change_until_the_index_has_it() {
        let recent = Recent::default();
        recent.put([(1, fresh(5, 10)), (2, fresh(6, 10)), (1, fresh(7, 20))]);
        assert!(recent.get(1, 5).is_none(), "another change wrote it since");
        assert!(recent.get(1, 7).is_some() && recent.get(2, 6).is_some());
        recent.forget(6);
        assert!(recent.get(2, 6).is_none() && recent.get(1, 7).is_some());
        assert_eq!(recent.lock().bytes, 20);
    }

    #[test]
    fn it_is_bounded() {
        let recent = Recent::default();
        recent.put((0..20_000).map(|id| (id, fresh(id, 1))));
        assert_eq!(recent.lock().spans.len(), MOST);
        recent.forget(i64::MAX);
        recent.put((0..100).map(|id| (id, fresh(id, MOST_BYTES / 4))));
        assert_eq!(recent.lock().spans.len(), 4);
        assert!(recent.get(50, 50).is_none());
    }
}
