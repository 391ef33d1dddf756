//! The latest changes, as the writer made them.
//!
//! Until the index has a change every search has to look at it. The tables have it, too, but
//! reading, unpacking and parsing a row costs far more than looking at the span that it was made
//! of. So for that moment the changes are kept here, with the spans that they wrote: bounded, and
//! only a copy of what the tables have.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::Row;
use llmobs_core::model::Span;

/// Changes kept at most.
const MOST: usize = 65_536;

/// Bytes of the spans that are kept, as JSON: in memory they take some times as much.
const MOST_BYTES: usize = 40 * 1024 * 1024;

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
    /// How long it is as JSON.
    pub(super) bytes: usize,
}

/// What was let go of. Freeing it takes long: drop it where nobody waits.
#[must_use]
#[derive(Default)]
pub(super) struct Gone {
    commits: Vec<Commit>,
    spans: Vec<Arc<Fresh>>,
}

impl Recent {
    /// Keeps the changes of a commit. They may be put before they are committed: nobody asks for
    /// changes that are not in the tables.
    pub(super) fn put(&self, mut changes: Vec<Recorded>) -> Gone {
        let mut gone = Gone::default();
        let Some(first) = changes.first().map(|change| change.seq) else {
            return gone;
        };
        let mut kept = self.lock();
        let is_next = kept.last().is_none_or(|last| last + 1 == first);
        while kept.changes > 0 && (!is_next || kept.changes + changes.len() > MOST) {
            gone.commits.extend(kept.pop_oldest());
        }
        for change in &mut changes {
            let bytes = change.fresh.as_ref().map_or(0, |fresh| fresh.bytes);
            if kept.bytes + bytes > MOST_BYTES {
                gone.spans.extend(change.fresh.take());
            } else {
                kept.bytes += bytes;
            }
        }
        kept.changes += changes.len();
        kept.commits.push_back(changes.into());
        gone
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
    pub(super) fn forget(&self, seq: i64) -> Gone {
        let mut kept = self.lock();
        let mut gone = Gone::default();
        let is_past = |commit: &Commit| commit.last().is_none_or(|change| change.seq <= seq);
        while kept.commits.front().is_some_and(is_past) {
            gone.commits.extend(kept.pop_oldest());
        }
        gone
    }

    /// Takes back what was put and then not committed: all after a change, with the rest of its
    /// commit.
    pub(super) fn take_back(&self, seq: i64) -> Gone {
        let mut kept = self.lock();
        let mut gone = Gone::default();
        while kept.last().is_some_and(|last| last > seq) {
            gone.commits.extend(kept.pop_newest());
        }
        gone
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

    fn pop_oldest(&mut self) -> Option<Commit> {
        let commit = self.commits.pop_front();
        commit.inspect(|commit| self.discount(commit))
    }

    fn pop_newest(&mut self) -> Option<Commit> {
        let commit = self.commits.pop_back();
        commit.inspect(|commit| self.discount(commit))
    }

    fn discount(&mut self, commit: &Commit) {
        self.changes -= commit.len();
        let bytes = |change: &Recorded| change.fresh.as_ref().map_or(0, |fresh| fresh.bytes);
        self.bytes -= commit.iter().map(bytes).sum::<usize>();
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
        let _ = recent.put(changes(5..=6));
        let _ = recent.put(Vec::new());
        let _ = recent.put(changes(7..=9));
        assert_eq!(handed(&recent, 4, 6), Some(vec![5, 6]));
        assert_eq!(handed(&recent, 5, 8), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(handed(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(handed(&recent, 3, 9), None, "4 is not kept");
        assert_eq!(handed(&recent, 6, 10), None, "10 is not kept yet");
        let _ = recent.forget(6);
        assert_eq!(handed(&recent, 5, 9), None);
        assert_eq!(handed(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(recent.lock().bytes, 30);
    }

    #[test]
    fn what_was_not_committed_is_taken_back() {
        let recent = Recent::default();
        let _ = recent.put(changes(1..=3));
        let _ = recent.take_back(3);
        assert_eq!(handed(&recent, 0, 3), Some(vec![1, 2, 3]));
        let _ = recent.take_back(2);
        assert_eq!(handed(&recent, 0, 2), None);
        let _ = recent.put(changes(3..=4));
        assert_eq!(handed(&recent, 2, 4), Some(vec![3, 4]));
        let _ = recent.put(changes(5..=6));
        let _ = recent.take_back(4);
        assert_eq!(handed(&recent, 2, 4), Some(vec![3, 4]));
        let _ = recent.put(changes(9..=9));
        assert_eq!(handed(&recent, 2, 9), None, "5 to 8 are missing");
        assert_eq!(handed(&recent, 8, 9), Some(vec![9]));
    }

    #[test]
    fn it_is_bounded() {
        let recent = Recent::default();
        for seq in 0..3 {
            let first = seq * 30_000;
            let _ = recent.put(changes(first..=first + 29_999));
        }
        assert_eq!(handed(&recent, 0, 89_999), None);
        assert_eq!(handed(&recent, 29_999, 89_999).unwrap().len(), 60_000);
        let _ = recent.forget(i64::MAX);
        assert_eq!(recent.lock().bytes, 0);
        let _ = recent.put((0..100).map(|seq| change(seq, MOST_BYTES / 4)).collect());
        let commits = recent.between(-1, 99).unwrap();
        let kept = commits.iter().flat_map(|commit| commit.iter());
        assert_eq!(kept.filter(|change| change.fresh.is_some()).count(), 4);
    }
}
