//! Finds the first documents in the order of a search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tantivy::Searcher;
use tantivy::columnar::ColumnValues;
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query, Weight};

use super::schema::{ID, START};
use crate::store::Position;

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

    /// The places, in order.
    pub(super) fn of(
        &self,
        searcher: &Searcher,
        query: &dyn Query,
    ) -> tantivy::Result<Vec<Position>> {
        let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
        let segments = searcher.segment_readers().iter();
        let mut segments: Vec<Segment<'_>> = segments
            .map(|reader| Segment::open(self, reader))
            .collect::<tantivy::Result<_>>()?;
        // Those in which the first places can be come first, so that most others need not be read:
        // spans arrive in about the order of their starts.
        segments.sort_by_key(|segment| Reverse(segment.first));
        let mut heap = BinaryHeap::new();
        for segment in segments {
            let full = heap.len() >= self.limit;
            let least = heap.peek().map(|Reverse(least): &Reverse<Rank>| least.0);
            if full && least.is_some_and(|least| segment.first < least) {
                break;
            }
            if segment.may_have(self) {
                segment.read(self, &*weight, &mut heap)?;
            }
        }
        let ranks = heap.into_sorted_vec().into_iter();
        Ok(ranks.map(|Reverse(rank)| self.position(rank)).collect())
    }

    fn below(&self) -> Rank {
        match self.after {
            Some(after) => self.rank(after.start_ns, after.id),
            None => (i64::MAX, i64::MAX),
        }
    }
}

/// One segment with the columns that order its documents.
struct Segment<'a> {
    reader: &'a SegmentReader,
    start: Arc<dyn ColumnValues<i64>>,
    id: Arc<dyn ColumnValues<i64>>,
    /// No document is before this in the order, by the first part of its rank.
    first: i64,
    /// Nor behind this.
    last: i64,
}

impl<'a> Segment<'a> {
    fn open(top: &Top, reader: &'a SegmentReader) -> tantivy::Result<Self> {
        let columns = reader.fast_fields();
        let start = columns.column_first_or_default::<i64>(START)?;
        let id = columns.column_first_or_default(ID)?;
        let ends = [start.min_value(), start.max_value()].map(|start| top.rank(start, 0).0);
        Ok(Self {
            reader,
            start,
            id,
            first: ends[0].max(ends[1]),
            last: ends[0].min(ends[1]),
        })
    }

    /// Whether a document of it may be in the window, and behind the place.
    fn may_have(&self, top: &Top) -> bool {
        let window = [top.from_ns, top.to_ns].map(|start| top.rank(start, 0).0);
        self.last <= top.below().0
            && self.first >= window[0].min(window[1])
            && self.last <= window[0].max(window[1])
    }

    /// Adds its documents to those kept so far, and keeps the first.
    fn read(
        &self,
        top: &Top,
        weight: &dyn Weight,
        heap: &mut BinaryHeap<Reverse<Rank>>,
    ) -> tantivy::Result<()> {
        let below = top.below();
        let alive = self.reader.alive_bitset();
        weight.for_each_no_score(self.reader, &mut |docs| {
            for doc in docs {
                let start = self.start.get_val(*doc);
                if start < top.from_ns || start > top.to_ns {
                    continue;
                }
                let full = heap.len() >= top.limit;
                let least = heap.peek().map(|Reverse(least)| *least);
                // Most documents lose by their start alone.
                let first = if top.newest_first { start } else { !start };
                if full && least.is_some_and(|least| first < least.0)
                    || alive.is_some_and(|alive| !alive.is_alive(*doc))
                {
                    continue;
                }
                let rank = top.rank(start, self.id.get_val(*doc));
                if rank >= below || full && least.is_some_and(|least| rank <= least) {
                    continue;
                }
                if full {
                    heap.pop();
                }
                heap.push(Reverse(rank));
            }
        })
    }
}
