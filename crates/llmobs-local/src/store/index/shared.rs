//! What the thread of the index, the searches and the writer share.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::View;
use crate::store::recent::Recent;

/// Longest wait for a commit before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(150);

/// Nothing of the outbox may be forgotten.
const NOTHING: i64 = -1;

/// Nobody needs the outbox: the index will be built from the rows.
const EVERYTHING: i64 = i64::MAX;

/// How far the index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexProgress {
    /// It is being built: spans in it, and spans to be in it.
    Building {
        /// Spans in it.
        done: u64,
        /// Spans that the store has.
        total: u64,
    },
    /// It has all changes up to this one.
    UpTo(i64),
    /// It does not work, for this reason, and is tried again.
    Failed(String),
}

/// What the thread, the store and its writer share.
pub(in crate::store) struct Shared {
    slot: Slot,
    /// The changes since the view before the last one, some perhaps not committed yet.
    pub(in crate::store) recent: Arc<Recent>,
    /// The last change in the index, or how much of the outbox may be forgotten.
    seq: AtomicI64,
    /// The last change that was acknowledged.
    written: AtomicI64,
    progress: Mutex<IndexProgress>,
    committed: Condvar,
    rebuild: AtomicBool,
}

impl Shared {
    pub(in crate::store) fn new() -> Self {
        Self {
            slot: Slot::default(),
            recent: Arc::default(),
            seq: AtomicI64::new(NOTHING),
            written: AtomicI64::new(NOTHING),
            progress: Mutex::new(IndexProgress::Building { done: 0, total: 0 }),
            committed: Condvar::new(),
            rebuild: AtomicBool::new(false),
        }
    }

    /// Of a store that has no index.
    #[cfg(test)]
    pub(in crate::store) fn without_index() -> Self {
        let shared = Self::new();
        shared.seq.store(EVERYTHING, Ordering::Release);
        shared
    }

    /// The number up to which the outbox may be forgotten.
    pub(in crate::store) fn forgettable(&self) -> i64 {
        self.seq.load(Ordering::Acquire)
    }

    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.slot.get()
    }

    /// Tells of a change that was acknowledged.
    pub(super) fn written(&self, seq: i64) {
        self.written.fetch_max(seq, Ordering::AcqRel);
    }

    pub(super) fn seq(&self) -> i64 {
        self.seq.load(Ordering::Acquire)
    }

    pub(super) fn is_searchable(&self) -> bool {
        self.slot.get().is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.lock(), IndexProgress::Failed(_))
    }

    pub(super) fn progress(&self) -> IndexProgress {
        self.lock().clone()
    }

    pub(super) fn ask_for_rebuild(&self) {
        let mut progress = self.lock();
        self.rebuild.store(true, Ordering::Release);
        self.slot.set(None);
        *progress = IndexProgress::Building { done: 0, total: 0 };
        drop(progress);
        self.committed.notify_all();
    }

    pub(super) fn wait_for_commit(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let progress = self.lock();
        // Spurious wake-ups are the caller's loop's.
        drop(self.committed.wait_timeout(progress, left.min(LOOK_AGAIN)));
    }

    fn lock(&self) -> MutexGuard<'_, IndexProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far a build is.
    pub(super) fn tell(&self, progress: IndexProgress) {
        *self.lock() = progress;
        self.committed.notify_all();
    }

    /// Takes the view away: searches read rows until there is another.
    pub(super) fn hide(&self) {
        self.slot.set(None);
    }

    /// Begins to work on an index; whether somebody asked for one that is built anew.
    pub(super) fn begin(&self) -> bool {
        self.hide();
        let anew = self.rebuild.swap(false, Ordering::AcqRel);
        self.seq.store(NOTHING, Ordering::Release);
        anew
    }

    /// Gives an index up for a while, and with it what was kept for it.
    pub(super) fn fail(&self, reason: String) {
        self.tell(IndexProgress::Failed(reason));
        self.seq.store(EVERYTHING, Ordering::Release);
        drop(self.recent.forget(i64::MAX));
    }

    pub(super) fn rebuild_is_asked_for(&self) -> bool {
        self.rebuild.load(Ordering::Acquire)
    }

    /// The last change that was acknowledged.
    pub(super) fn last_written(&self) -> i64 {
        self.written.load(Ordering::Acquire)
    }

    pub(super) fn publish(&self, view: View) {
        let seq = view.seq;
        // Searches that have begun with the last view still ask for the changes since.
        let last = self.seq();
        let mut progress = self.lock();
        if self.rebuild_is_asked_for() {
            // An index that somebody found wrong is not shown once more.
            return;
        }
        self.slot.set(Some(view));
        self.seq.store(seq, Ordering::Release);
        *progress = IndexProgress::UpTo(seq);
        drop(progress);
        self.committed.notify_all();
        drop(self.recent.forget(last));
    }
}

/// A slot for the newest view.
#[derive(Default)]
struct Slot(RwLock<Option<Arc<View>>>);

impl Slot {
    fn get(&self) -> Option<Arc<View>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, view: Option<View>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = view.map(Arc::new);
    }
}
