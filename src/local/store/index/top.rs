//! Collects the first documents in the order of a search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::ColumnValues;
use tantivy::index::SegmentReader;
use tantivy::{DocId, Score, SegmentOrdinal};

use super::schema::{ID, START};
use crate::local::store::Position;

/// The first `limit` places of a window, behind a place.
pub(super) struct Top {
    /// First start that counts, in nanoseconds since the Unix epoch.
    pub(super) from_ns: i64,
    /// Last start that counts.
    pub(super) to_ns: i64,
    /// Newest first, else oldest first.
    pub(super) newest_first: bool,
    /// Only what comes behind.
    pub(super) after: Option<Position>,
    /// At most so many.
    pub(super) limit: usize,
}

/// A place as a number pair of which the larger comes first.
type Rank = (i64, i64);

impl Top {
    fn rank(&self, start: i64, id: i64) -> Rank {
        // The complement turns the order round, without overflow.
        if self.newest_first {
            (start, id)
        } else {
            (!start, !id)
        }
    }

    fn position(&self, (start, id): Rank) -> Position {
        let (start_ns, id) = if self.newest_first {
            (start, id)
        } else {
            (!start, !id)
        };
        Position { start_ns, id }
    }
}

pub(super) struct TopOfSegment {
    from_ns: i64,
    to_ns: i64,
    newest_first: bool,
    below: Rank,
    limit: usize,
    start: Arc<dyn ColumnValues<i64>>,
    id: Arc<dyn ColumnValues<i64>>,
    heap: BinaryHeap<Reverse<Rank>>,
}

impl Collector for Top {
    type Fruit = Vec<Position>;
    type Child = TopOfSegment;

    fn for_segment(
        &self,
        _: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<TopOfSegment> {
        let columns = segment.fast_fields();
        Ok(TopOfSegment {
            from_ns: self.from_ns,
            to_ns: self.to_ns,
            newest_first: self.newest_first,
            below: match self.after {
                Some(after) => self.rank(after.start_ns, after.id),
                None => (i64::MAX, i64::MAX),
            },
            limit: self.limit,
            start: columns.column_first_or_default(START)?,
            id: columns.column_first_or_default(ID)?,
            heap: BinaryHeap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<Rank>>) -> tantivy::Result<Vec<Position>> {
        let mut all: Vec<Rank> = fruits.into_iter().flatten().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(self.limit);
        Ok(all.into_iter().map(|rank| self.position(rank)).collect())
    }
}

impl SegmentCollector for TopOfSegment {
    type Fruit = Vec<Rank>;

    fn collect(&mut self, doc: DocId, _: Score) {
        let start = self.start.get_val(doc);
        if start < self.from_ns || start > self.to_ns {
            return;
        }
        let first = if self.newest_first { start } else { !start };
        let full = self.heap.len() >= self.limit;
        // Most documents lose by their start alone.
        if full
            && self
                .heap
                .peek()
                .is_some_and(|Reverse(least)| first < least.0)
        {
            return;
        }
        let id = self.id.get_val(doc);
        let rank = (first, if self.newest_first { id } else { !id });
        if rank >= self.below {
            return;
        }
        if full {
            if self
                .heap
                .peek()
                .is_some_and(|Reverse(least)| rank <= *least)
            {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse(rank));
    }

    fn harvest(self) -> Vec<Rank> {
        self.heap.into_iter().map(|Reverse(rank)| rank).collect()
    }
}
