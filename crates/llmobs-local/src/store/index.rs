//! The derived index over the spans: tantivy, built from the outbox, never the only copy.
//!
//! The store decides what is true; the index only says where to look. It is one thread behind the
//! writer ([`indexer`]), so a search takes one consistent view of it, reads from the outbox which
//! spans changed since ([`changes`]), and judges those by their rows ([`mod@search`]). What the index
//! finds is judged by its row, too, so an index that finds too much costs time and nothing else;
//! that it never finds too little is what `query::index` promises and its tests hold.
//!
//! It may be deleted at any time and is rebuilt when it is missing, damaged, of another version or
//! of another store. Until that is done searches read rows: slower, and right.

mod changes;
mod compile;
mod document;
mod files;
mod gather;
mod indexer;
mod schema;
mod search;
mod shared;
mod top;
mod verify;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tantivy::Searcher;

pub(super) use changes::last_change;
pub(super) use gather::gather;
pub(super) use search::{is_worth_it, search};
pub use shared::IndexProgress;
pub(super) use shared::Shared;
pub use verify::IndexCheck;
pub(super) use verify::verify;

use super::recent::Recent;
use super::schema::open_reader;
use super::{Ack, StoreError};
use indexer::Indexer;
use schema::Fields;

/// The folder of the index within the data folder.
pub(super) const FOLDER: &str = "index";

/// Writers wait when this many changes are not in the index yet: a search judges each of them.
const MAX_BEHIND: i64 = 8_000;

/// Longest wait of one write for the index.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// One consistent moment of the index.
#[derive(Clone)]
pub(super) struct View {
    searcher: Searcher,
    fields: Fields,
    /// The last change that is in it.
    seq: i64,
    /// The changes since, as far as they are at hand.
    recent: Arc<Recent>,
}

/// The index of a store, kept up to date by a thread of its own until it is dropped.
pub(super) struct Index {
    shared: Arc<Shared>,
    indexer: Indexer,
}

impl Index {
    /// Starts the index of the store in `file`. Returns at once; what is missing is built behind.
    pub(super) fn start(
        file: &Path,
        store_id: &str,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let folder = folder_beside(file);
        let connection = open_reader(file).map_err(|e| super::schema::from_sqlite(&e))?;
        let indexer = Indexer::start(folder, store_id.to_owned(), connection, shared.clone())?;
        Ok(Self { shared, indexer })
    }

    /// What may be searched now; `None` while it is being built or does not work.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.shared.view()
    }

    /// Tells of a write that was acknowledged, and waits if the index is too far behind.
    pub(super) fn written(&self, ack: Ack) {
        self.shared.written(ack.seq);
        self.indexer.wake();
        let until = Instant::now() + MAX_WAIT;
        while self.shared.is_searchable()
            && ack.seq - self.shared.seq() > MAX_BEHIND
            && Instant::now() < until
        {
            self.shared.wait_for_commit(until);
        }
    }

    /// Waits until the index has everything up to `seq`; whether it has.
    pub(super) fn wait_for(&self, seq: i64, timeout: Duration) -> bool {
        self.indexer.wake();
        let until = Instant::now() + timeout;
        while self.shared.view().is_none_or(|view| view.seq < seq) {
            if Instant::now() >= until || self.shared.has_failed() {
                return false;
            }
            self.shared.wait_for_commit(until);
        }
        true
    }

    /// Builds it again from nothing; searches read rows until that is done.
    pub(super) fn rebuild(&self) {
        self.shared.ask_for_rebuild();
        self.indexer.wake();
    }

    /// How far it is.
    pub(super) fn progress(&self) -> IndexProgress {
        self.shared.progress()
    }
}

/// The folder of the index of a store's file.
pub(super) fn folder_beside(file: &Path) -> PathBuf {
    file.with_file_name(FOLDER)
}
