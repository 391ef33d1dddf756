//! The latest changes, as the writer made them.
//!
//! Until the index has a change every search has to look at it. The tables have it, too, but
//! reading, unpacking and parsing a row costs far more than looking at the span that it was made
//! of. So for that moment the changes are kept here, with the spans that they wrote: bounded, and
//! only a copy of what the tables have.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::Row;
use crate::model::Span;

/// Changes kept at most.
const MOST: usize = 65_536;

/// Packed bytes of the rows whose spans are kept: several times as much unpacked.
const MOST_BYTES: usize = 24 * 1024 * 1024;

/// The changes of the last commits, in their order and without a gap.
#[derive(Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    commits: VecDeque<Commit>,
    changes: usize,
    bytes: usize,
}

/// The changes of one commit; there is at least one.
type Commit = Arc<[Recorded]>;

/// A change as the outbox has it, and what it wrote.
pub(super) struct Recorded {
    /// Its number.
    pub(super) seq: i64,
    /// One of the kinds of changes of the outbox.
    pub(super) kind: i64,
    /// The key of the row that changed.
    pub(super) id: i64,
    /// What it wrote, if that is a span and there was room for it.
    pub(super) fresh: Option<Arc<Fresh>>,
}

/// A span as it was written.
pub(super) struct Fresh {
    /// Without evaluations.
    pub(super) span: Arc<Span>,
    /// The columns of its row.
    pub(super) row: Row,
    /// Packed bytes of its row.
    pub(super) bytes: usize,
}

impl Recent {
    /// Keeps the changes of a commit. They may be put before they are committed: nobody asks for
    /// changes that are not in the tables.
    pub(super) fn put(&self, mut changes: Vec<Recorded>) {
        let Some(first) = changes.first().map(|change| change.seq) else {
            return;
        };
        let mut kept = self.lock();
        let mut gone = Vec::new();
        if kept.last().is_some_and(|last| last + 1 != first) {
            gone.extend(std::mem::take(&mut *kept).commits);
        }
        for change in &mut changes {
            let bytes = change.fresh.as_ref().map_or(0, |fresh| fresh.bytes);
            if kept.bytes + bytes > MOST_BYTES {
                change.fresh = None;
            } else {
                kept.bytes += bytes;
            }
        }
        kept.changes += changes.len();
        kept.commits.push_back(changes.into());
        while kept.changes > MOST && kept.commits.len() > 1 {
            gone.extend(kept.pop());
        }
        // Freeing takes long, and searches wait for the lock.
        drop(kept);
        drop(gone);
    }

    /// The commits that hold all changes after `seq` up to `upto`, and perhaps others. `None`: some
    /// of those are not kept.
    pub(super) fn between(&self, seq: i64, upto: i64) -> Option<Vec<Commit>> {
        let kept = self.lock();
        let first = kept.commits.front().and_then(|commit| commit.first())?;
        if first.seq > seq + 1 || kept.last()? < upto {
            return None;
        }
        let wanted = |commit: &&Commit| {
            let last = commit.last().is_some_and(|change| change.seq > seq);
            last && commit.first().is_some_and(|change| change.seq <= upto)
        };
        Some(kept.commits.iter().filter(wanted).cloned().collect())
    }

    /// Lets go of the commits that hold nothing after a change.
    pub(super) fn forget(&self, seq: i64) {
        let mut kept = self.lock();
        let mut gone = Vec::new();
        let is_past = |commit: &Commit| commit.last().is_none_or(|change| change.seq <= seq);
        while kept.commits.front().is_some_and(is_past) {
            gone.extend(kept.pop());
        }
        drop(kept);
        drop(gone);
    }

    /// Takes back what was put and then not committed: all after a change.
    pub(super) fn take_back(&self, seq: i64) {
        let mut kept = self.lock();
        if kept.last().is_some_and(|last| last > seq) {
            *kept = Kept::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn last(&self) -> Option<i64> {
        let last = self.commits.back()?.last()?;
        Some(last.seq)
    }

    fn pop(&mut self) -> Option<Commit> {
        let commit = self.commits.pop_front()?;
        self.changes -= commit.len();
        let bytes = |change: &Recorded| change.fresh.as_ref().map_or(0, |fresh| fresh.bytes);
        self.bytes -= commit.iter().map(bytes).sum::<usize>();
        Some(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seq: i64, bytes: usize) -> Recorded {
        let fresh = Fresh {
            span: Arc::new(Span::default()),
            row: Row::of(&Span::default()),
            bytes,
        };
        Recorded {
            seq,
            kind: 0,
            id: seq,
            fresh: Some(Arc::new(fresh)),
        }
    }

    fn changes(seqs: std::ops::RangeInclusive<i64>) -> Vec<Recorded> {
        seqs.map(|seq| change(seq, 10)).collect()
    }

    /// The numbers of the changes that are handed out.
    fn handed(recent: &Recent, seq: i64, upto: i64) -> Option<Vec<i64>> {
        let commits = recent.between(seq, upto)?;
        let seqs = commits.iter().flat_map(|commit| commit.iter());
        Some(seqs.map(|change| change.seq).collect())
    }

    #[test]
    fn all_changes_of_a_range_are_handed_out_or_none() {
        let recent = Recent::default();
        assert_eq!(handed(&recent, 4, 5), None);
        recent.put(changes(5..=6));
        recent.put(Vec::new());
        recent.put(changes(7..=9));
        assert_eq!(handed(&recent, 4, 6), Some(vec![5, 6]));
        assert_eq!(handed(&recent, 5, 8), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(handed(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(handed(&recent, 3, 9), None, "4 is not kept");
        assert_eq!(handed(&recent, 6, 10), None, "10 is not kept yet");
        recent.forget(6);
        assert_eq!(handed(&recent, 5, 9), None);
        assert_eq!(handed(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(recent.lock().bytes, 30);
    }

    #[test]
    fn what_was_not_committed_is_taken_back() {
        let recent = Recent::default();
        recent.put(changes(1..=3));
        recent.take_back(3);
        assert_eq!(handed(&recent, 0, 3), Some(vec![1, 2, 3]));
        recent.take_back(2);
        assert_eq!(handed(&recent, 0, 2), None);
        recent.put(changes(3..=4));
        assert_eq!(handed(&recent, 2, 4), Some(vec![3, 4]));
        recent.put(changes(9..=9));
        assert_eq!(handed(&recent, 2, 9), None, "5 to 8 are missing");
        assert_eq!(handed(&recent, 8, 9), Some(vec![9]));
    }

    #[test]
    fn it_is_bounded() {
        let recent = Recent::default();
        for seq in 0..3 {
            let first = seq * 30_000;
            recent.put(changes(first..=first + 29_999));
        }
        assert_eq!(handed(&recent, 0, 89_999), None);
        assert_eq!(handed(&recent, 29_999, 89_999).unwrap().len(), 60_000);
        recent.forget(i64::MAX);
        assert_eq!(recent.lock().bytes, 0);
        recent.put((0..100).map(|seq| change(seq, MOST_BYTES / 4)).collect());
        let commits = recent.between(-1, 99).unwrap();
        let kept = commits.iter().flat_map(|commit| commit.iter());
        assert_eq!(kept.filter(|change| change.fresh.is_some()).count(), 4);
    }
}
