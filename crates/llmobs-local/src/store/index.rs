//! The search index: a tantivy index derived from the store.
//!
//! The store is the source of truth; the index only tells where to look. One thread follows the
//! writer ([`indexer`]). A search takes one consistent view of the index, reads from the outbox
//! which spans changed since that view ([`changes`]), and looks at these spans as well
//! ([`mod@search`]). Every candidate is compared with its row or span, so an index that finds too
//! much costs time and nothing else. `query::index` guarantees, and its tests verify, that the
//! index never finds too little.
//!
//! The index may be deleted at any time. It is rebuilt when it is missing, damaged, or belongs to
//! another version or store. Until then searches read rows, which is slower and equally correct.

mod aggregate;
mod changes;
mod compile;
mod document;
mod error;
mod files;
mod indexer;
mod schema;
mod search;
mod state;
mod top;
mod verify;
mod view;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use aggregate::ParallelScan;
pub(super) use aggregate::aggregate;
pub(super) use search::{search, should_use_index};
pub use state::IndexProgress;
pub use verify::IndexCheck;
pub(super) use verify::verify;
pub(super) use view::IndexView;

use super::StoreError;
use super::outbox::OutboxState;
use super::schema::{SCHEMA, from_sqlite};
use indexer::Indexer;
use state::IndexState;

/// The directory of the index in the data directory.
pub(super) const DIRECTORY_NAME: &str = "index";

/// Writers wait when more changes than this are missing from the index: every search looks at each
/// of them.
const MAX_CHANGES_BEHIND: i64 = 8_000;

/// Longest time that one write waits for the index.
const MAX_WRITE_DELAY: Duration = Duration::from_secs(2);

/// The index of a store. A thread keeps it up to date until it is dropped.
pub(super) struct Index {
    state: Arc<IndexState>,
    indexer: Indexer,
}

impl Index {
    /// Starts the index of the store in `file`. Returns at once; the thread builds what is missing.
    pub(super) fn start(
        file: &Path,
        store_id: &str,
        outbox: Arc<OutboxState>,
    ) -> Result<Self, StoreError> {
        let directory = index_directory(file);
        let connection = SCHEMA.open_reader(file).map_err(from_sqlite)?;
        let state = Arc::new(IndexState::new(outbox));
        let indexer = Indexer::start(directory, store_id.to_owned(), connection, state.clone())?;
        Ok(Self { state, indexer })
    }

    /// The current view; `None` while the index is being built or does not work.
    pub(super) fn view(&self) -> Option<Arc<IndexView>> {
        self.state.view()
    }

    /// Wakes the indexer after a write was acknowledged, and waits if the index is too far behind.
    pub(super) fn on_write(&self, seq: i64) {
        self.state.set_written(seq);
        self.indexer.wake();
        let deadline = Instant::now() + MAX_WRITE_DELAY;
        while self.state.is_searchable()
            && seq - self.state.indexed_seq() > MAX_CHANGES_BEHIND
            && Instant::now() < deadline
        {
            self.state.wait_for_commit(deadline);
        }
    }

    /// Waits until the index contains all changes up to `seq`. `false` after the timeout, or when
    /// the index does not work.
    pub(super) fn wait_for(&self, seq: i64, timeout: Duration) -> bool {
        self.indexer.wake();
        let deadline = Instant::now() + timeout;
        while self.state.view().is_none_or(|view| view.seq < seq) {
            if Instant::now() >= deadline || self.state.has_failed() {
                return false;
            }
            self.state.wait_for_commit(deadline);
        }
        true
    }

    /// Starts to rebuild the index. Searches read rows until it is done.
    pub(super) fn rebuild(&self) {
        self.state.request_rebuild();
        self.indexer.wake();
    }

    /// The progress of the index.
    pub(super) fn progress(&self) -> IndexProgress {
        self.state.progress()
    }
}

/// The directory of the index of a store's file.
pub(super) fn index_directory(file: &Path) -> PathBuf {
    file.with_file_name(DIRECTORY_NAME)
}
