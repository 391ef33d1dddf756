//! The state that the indexer, the searches and the writes share.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::view::IndexView;
use crate::store::outbox::OutboxState;

/// Longest wait for a commit before the condition is checked again.
const MAX_WAIT: Duration = Duration::from_millis(150);

/// The progress of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexProgress {
    /// The index is being built.
    Building {
        /// Spans in the index.
        done: u64,
        /// Spans in the store.
        total: u64,
    },
    /// The index contains all changes up to this one.
    UpTo(i64),
    /// The index does not work, for this reason. It is retried.
    Failed(String),
}

/// The state that the indexer, the searches and the writes share.
pub(super) struct IndexState {
    view: RwLock<Option<Arc<IndexView>>>,
    outbox: Arc<OutboxState>,
    /// The last change in the index; -1 while it is being built.
    indexed: AtomicI64,
    /// The last change that was acknowledged.
    written: AtomicI64,
    progress: Mutex<IndexProgress>,
    committed: Condvar,
    rebuild_requested: AtomicBool,
}

impl IndexState {
    pub(super) fn new(outbox: Arc<OutboxState>) -> Self {
        Self {
            view: RwLock::default(),
            outbox,
            indexed: AtomicI64::new(-1),
            written: AtomicI64::new(-1),
            progress: Mutex::new(IndexProgress::Building { done: 0, total: 0 }),
            committed: Condvar::new(),
            rebuild_requested: AtomicBool::new(false),
        }
    }

    pub(super) fn outbox(&self) -> &Arc<OutboxState> {
        &self.outbox
    }

    pub(super) fn view(&self) -> Option<Arc<IndexView>> {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_view(&self, view: Option<IndexView>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.map(Arc::new);
    }

    /// Records the last change of an acknowledged write.
    pub(super) fn set_written(&self, seq: i64) {
        self.written.fetch_max(seq, Ordering::AcqRel);
    }

    /// The last change of all acknowledged writes.
    pub(super) fn written_seq(&self) -> i64 {
        self.written.load(Ordering::Acquire)
    }

    /// The last change in the index.
    pub(super) fn indexed_seq(&self) -> i64 {
        self.indexed.load(Ordering::Acquire)
    }

    pub(super) fn is_searchable(&self) -> bool {
        self.view().is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.lock(), IndexProgress::Failed(_))
    }

    pub(super) fn progress(&self) -> IndexProgress {
        self.lock().clone()
    }

    /// Hides the view and requests a rebuild.
    pub(super) fn request_rebuild(&self) {
        let mut progress = self.lock();
        self.rebuild_requested.store(true, Ordering::Release);
        self.set_view(None);
        *progress = IndexProgress::Building { done: 0, total: 0 };
        drop(progress);
        self.committed.notify_all();
    }

    /// Waits for a commit of the index, or a short time. The caller checks its condition in a loop.
    pub(super) fn wait_for_commit(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let progress = self.lock();
        drop(self.committed.wait_timeout(progress, left.min(MAX_WAIT)));
    }

    fn lock(&self) -> MutexGuard<'_, IndexProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the progress of a build, or a failure.
    pub(super) fn set_progress(&self, progress: IndexProgress) {
        *self.lock() = progress;
        self.committed.notify_all();
    }

    /// Removes the view. Searches read rows until there is another one.
    pub(super) fn hide(&self) {
        self.set_view(None);
    }

    /// Starts work on an index. Returns whether a rebuild was requested.
    pub(super) fn start_work(&self) -> bool {
        self.hide();
        let rebuild = self.rebuild_requested.swap(false, Ordering::AcqRel);
        self.indexed.store(-1, Ordering::Release);
        self.outbox.keep_all();
        rebuild
    }

    /// Records that the index does not work, and releases the changes that were kept for it.
    pub(super) fn fail(&self, reason: String) {
        self.set_progress(IndexProgress::Failed(reason));
        self.outbox.keep_none();
    }

    pub(super) fn is_rebuild_requested(&self) -> bool {
        self.rebuild_requested.load(Ordering::Acquire)
    }

    /// Makes a view available to searches.
    pub(super) fn publish(&self, view: IndexView) {
        let seq = view.seq;
        // Running searches may still read the changes since the previous view.
        let previous = self.indexed_seq();
        let mut progress = self.lock();
        if self.is_rebuild_requested() {
            // A search has found that the index is damaged.
            return;
        }
        self.set_view(Some(view));
        self.indexed.store(seq, Ordering::Release);
        self.outbox.set_indexed(seq);
        *progress = IndexProgress::UpTo(seq);
        drop(progress);
        self.committed.notify_all();
        drop(self.outbox.recent.remove_up_to(previous));
    }
}
