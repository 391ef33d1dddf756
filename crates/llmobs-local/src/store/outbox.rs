//! The outbox: the changes that the writer made and that the search index reads.
//!
//! The table `outbox` holds the latest changes in order. Until the index contains a change, every
//! search has to look at the changed span. Reading, decompressing and parsing a row costs far more
//! than looking at the span that the row was made from. So [`RecentChanges`] keeps the latest
//! changes in memory, with the spans that they wrote: bounded, and only a copy of what the tables
//! hold.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::rows::SpanColumns;
use llmobs_core::model::Span;

/// A span was changed or removed. A span that is missing has moved to another key or was purged.
pub(super) const CHANGED_SPAN: i64 = 0;
/// An evaluation was added or changed.
pub(super) const CHANGED_EVALUATION: i64 = 1;
/// A span was added under a key that was free before.
pub(super) const NEW_SPAN: i64 = 2;

/// The sequence number of the last change; 0 before the first.
pub(super) fn last_change(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM outbox")?
        .query_row([], |row| row.get(0))
}

/// No entry of the outbox may be deleted.
const KEEP_ALL: i64 = -1;

/// All entries may be deleted: the index will be built from the rows.
const KEEP_NONE: i64 = i64::MAX;

/// What the writer and the index share.
pub(super) struct OutboxState {
    /// The changes since the index view before the current one. Some may not be committed yet.
    pub(super) recent: RecentChanges,
    /// Entries up to this sequence number may be deleted. While the index works, it is the last
    /// change in the index.
    trim_seq: AtomicI64,
}

impl Default for OutboxState {
    fn default() -> Self {
        Self {
            recent: RecentChanges::default(),
            trim_seq: AtomicI64::new(KEEP_ALL),
        }
    }
}

impl OutboxState {
    /// The sequence number up to which entries may be deleted.
    pub(super) fn trim_seq(&self) -> i64 {
        self.trim_seq.load(Ordering::Acquire)
    }

    /// The index contains all changes up to `seq`.
    pub(super) fn set_indexed(&self, seq: i64) {
        self.trim_seq.store(seq, Ordering::Release);
    }

    /// The index reads changes that are not known yet.
    pub(super) fn keep_all(&self) {
        self.trim_seq.store(KEEP_ALL, Ordering::Release);
    }

    /// No index reads the changes.
    pub(super) fn keep_none(&self) {
        self.trim_seq.store(KEEP_NONE, Ordering::Release);
        drop(self.recent.remove_up_to(i64::MAX));
    }
}

/// Maximum number of changes in memory.
const MAX_CHANGES: usize = 65_536;

/// Maximum size of the spans in memory, in bytes of JSON. In memory they take several times as much.
const MAX_SPAN_BYTES: usize = 40 * 1024 * 1024;

/// The changes of the last commits, in order and without gaps.
#[derive(Default)]
pub(super) struct RecentChanges(Mutex<CommitQueue>);

#[derive(Default)]
struct CommitQueue {
    commits: VecDeque<Commit>,
    changes: usize,
    bytes: usize,
}

/// The changes of one commit. Never empty.
type Commit = Arc<[OutboxEntry]>;

/// An entry of the outbox, and the span that it wrote.
pub(super) struct OutboxEntry {
    /// Its sequence number.
    pub(super) seq: i64,
    /// [`CHANGED_SPAN`], [`CHANGED_EVALUATION`] or [`NEW_SPAN`].
    pub(super) kind: i64,
    /// The key of the changed row.
    pub(super) id: i64,
    /// The written span, if it is a span and the memory limit allows it.
    pub(super) write: Option<Arc<RecentWrite>>,
}

/// A span as it was written.
pub(super) struct RecentWrite {
    /// The span without evaluations.
    pub(super) span: Arc<Span>,
    /// The columns of its row.
    pub(super) columns: SpanColumns,
    /// Size of its JSON.
    pub(super) bytes: usize,
}

/// Changes that were removed. Freeing them takes long: drop them where no request waits.
#[must_use]
#[derive(Default)]
pub(super) struct RemovedChanges {
    commits: Vec<Commit>,
    writes: Vec<Arc<RecentWrite>>,
}

impl RecentChanges {
    /// Adds the changes of a commit. They may be added before the commit: readers ask only for
    /// changes that are in the tables.
    pub(super) fn push(&self, mut changes: Vec<OutboxEntry>) -> RemovedChanges {
        let mut removed = RemovedChanges::default();
        let Some(first) = changes.first().map(|change| change.seq) else {
            return removed;
        };
        let mut queue = self.lock();
        let is_next = queue.last().is_none_or(|last| last + 1 == first);
        while queue.changes > 0 && (!is_next || queue.changes + changes.len() > MAX_CHANGES) {
            removed.commits.extend(queue.pop_oldest());
        }
        for change in &mut changes {
            let bytes = change.write.as_ref().map_or(0, |write| write.bytes);
            if queue.bytes + bytes > MAX_SPAN_BYTES {
                removed.writes.extend(change.write.take());
            } else {
                queue.bytes += bytes;
            }
        }
        queue.changes += changes.len();
        queue.commits.push_back(changes.into());
        removed
    }

    /// The commits that hold all changes after `after` up to `last`, and perhaps others. `None` when
    /// some of these changes are not in memory.
    pub(super) fn between(&self, after: i64, last: i64) -> Option<Vec<Commit>> {
        let queue = self.lock();
        let first = queue.commits.front().and_then(|commit| commit.first())?;
        if first.seq > after + 1 || queue.last()? < last {
            return None;
        }
        let overlaps = |commit: &&Commit| {
            commit.last().is_some_and(|change| change.seq > after)
                && commit.first().is_some_and(|change| change.seq <= last)
        };
        Some(queue.commits.iter().filter(overlaps).cloned().collect())
    }

    /// Removes the commits that hold no change after `seq`.
    pub(super) fn remove_up_to(&self, seq: i64) -> RemovedChanges {
        let mut queue = self.lock();
        let mut removed = RemovedChanges::default();
        let is_obsolete = |commit: &Commit| commit.last().is_none_or(|change| change.seq <= seq);
        while queue.commits.front().is_some_and(is_obsolete) {
            removed.commits.extend(queue.pop_oldest());
        }
        removed
    }

    /// Removes changes that were not committed: all after `seq`, with the rest of their commits.
    pub(super) fn roll_back(&self, seq: i64) -> RemovedChanges {
        let mut queue = self.lock();
        let mut removed = RemovedChanges::default();
        while queue.last().is_some_and(|last| last > seq) {
            removed.commits.extend(queue.pop_newest());
        }
        removed
    }

    fn lock(&self) -> MutexGuard<'_, CommitQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitQueue {
    fn last(&self) -> Option<i64> {
        let last = self.commits.back()?.last()?;
        Some(last.seq)
    }

    fn pop_oldest(&mut self) -> Option<Commit> {
        let commit = self.commits.pop_front();
        commit.inspect(|commit| self.subtract(commit))
    }

    fn pop_newest(&mut self) -> Option<Commit> {
        let commit = self.commits.pop_back();
        commit.inspect(|commit| self.subtract(commit))
    }

    fn subtract(&mut self, commit: &Commit) {
        self.changes -= commit.len();
        let bytes = |change: &OutboxEntry| change.write.as_ref().map_or(0, |write| write.bytes);
        self.bytes -= commit.iter().map(bytes).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seq: i64, bytes: usize) -> OutboxEntry {
        let write = RecentWrite {
            span: Arc::new(Span::default()),
            columns: SpanColumns::from_span(&Span::default()),
            bytes,
        };
        OutboxEntry {
            seq,
            kind: 0,
            id: seq,
            write: Some(Arc::new(write)),
        }
    }

    fn changes(seqs: std::ops::RangeInclusive<i64>) -> Vec<OutboxEntry> {
        seqs.map(|seq| change(seq, 10)).collect()
    }

    /// The sequence numbers of the returned changes.
    fn between(recent: &RecentChanges, after: i64, last: i64) -> Option<Vec<i64>> {
        let commits = recent.between(after, last)?;
        let seqs = commits.iter().flat_map(|commit| commit.iter());
        Some(seqs.map(|change| change.seq).collect())
    }

    #[test]
    fn returns_all_changes_of_a_range_or_none() {
        let recent = RecentChanges::default();
        assert_eq!(between(&recent, 4, 5), None);
        let _ = recent.push(changes(5..=6));
        let _ = recent.push(Vec::new());
        let _ = recent.push(changes(7..=9));
        assert_eq!(between(&recent, 4, 6), Some(vec![5, 6]));
        assert_eq!(between(&recent, 5, 8), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(between(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(between(&recent, 3, 9), None, "4 is missing");
        assert_eq!(between(&recent, 6, 10), None, "10 is missing");
        let _ = recent.remove_up_to(6);
        assert_eq!(between(&recent, 5, 9), None);
        assert_eq!(between(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(recent.lock().bytes, 30);
    }

    #[test]
    fn removes_changes_that_were_not_committed() {
        let recent = RecentChanges::default();
        let _ = recent.push(changes(1..=3));
        let _ = recent.roll_back(3);
        assert_eq!(between(&recent, 0, 3), Some(vec![1, 2, 3]));
        let _ = recent.roll_back(2);
        assert_eq!(between(&recent, 0, 2), None);
        let _ = recent.push(changes(3..=4));
        assert_eq!(between(&recent, 2, 4), Some(vec![3, 4]));
        let _ = recent.push(changes(5..=6));
        let _ = recent.roll_back(4);
        assert_eq!(between(&recent, 2, 4), Some(vec![3, 4]));
        let _ = recent.push(changes(9..=9));
        assert_eq!(between(&recent, 2, 9), None, "5 to 8 are missing");
        assert_eq!(between(&recent, 8, 9), Some(vec![9]));
    }

    #[test]
    fn number_and_size_of_changes_are_bounded() {
        let recent = RecentChanges::default();
        for seq in 0..3 {
            let first = seq * 30_000;
            let _ = recent.push(changes(first..=first + 29_999));
        }
        assert_eq!(between(&recent, 0, 89_999), None);
        assert_eq!(between(&recent, 29_999, 89_999).unwrap().len(), 60_000);
        let _ = recent.remove_up_to(i64::MAX);
        assert_eq!(recent.lock().bytes, 0);
        let _ = recent.push(
            (0..100)
                .map(|seq| change(seq, MAX_SPAN_BYTES / 4))
                .collect(),
        );
        let commits = recent.between(-1, 99).unwrap();
        let changes = commits.iter().flat_map(|commit| commit.iter());
        assert_eq!(changes.filter(|change| change.write.is_some()).count(), 4);
    }
}
