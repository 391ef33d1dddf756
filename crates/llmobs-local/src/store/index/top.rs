//! Finds the first documents of a query in the order of a search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tantivy::Searcher;
use tantivy::columnar::ColumnValues;
use tantivy::index::SegmentReader;
use tantivy::query::{EnableScoring, Query, Weight};

use super::schema::{ID, START};
use crate::store::SpanPosition;

/// Collects the first `limit` positions of a window after a position.
pub(super) struct TopK {
    /// Start of the window, inclusive, in nanoseconds since the Unix epoch.
    pub(super) from_ns: i64,
    /// End of the window, inclusive.
    pub(super) to_ns: i64,
    /// Newest first, else oldest first.
    pub(super) newest_first: bool,
    /// Positions after this one only.
    pub(super) after: Option<SpanPosition>,
    /// Maximum number of positions.
    pub(super) limit: usize,
}

/// A position as a pair of numbers. The larger pair comes first.
type Rank = (i64, i64);

impl TopK {
    fn rank(&self, start: i64, id: i64) -> Rank {
        // The complement reverses the order without overflow.
        if self.newest_first {
            (start, id)
        } else {
            (!start, !id)
        }
    }

    fn position(&self, (start, id): Rank) -> SpanPosition {
        let (start_ns, id) = if self.newest_first {
            (start, id)
        } else {
            (!start, !id)
        };
        SpanPosition { start_ns, id }
    }

    /// The positions in order.
    pub(super) fn find(
        &self,
        searcher: &Searcher,
        query: &dyn Query,
    ) -> tantivy::Result<Vec<SpanPosition>> {
        let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
        let segments = searcher.segment_readers().iter();
        let mut segments: Vec<SegmentColumns<'_>> = segments
            .map(|reader| SegmentColumns::open(self, reader))
            .collect::<tantivy::Result<_>>()?;
        // Read the segments that can contain the first positions first. Spans arrive roughly in the
        // order of their starts, so most other segments need not be read.
        segments.sort_by_key(|segment| Reverse(segment.first));
        let mut heap = BinaryHeap::new();
        for segment in segments {
            let full = heap.len() >= self.limit;
            let least = heap.peek().map(|Reverse(least): &Reverse<Rank>| least.0);
            if full && least.is_some_and(|least| segment.first < least) {
                break;
            }
            if segment.may_contain_matches(self) {
                segment.read(self, &*weight, &mut heap)?;
            }
        }
        let ranks = heap.into_sorted_vec().into_iter();
        Ok(ranks.map(|Reverse(rank)| self.position(rank)).collect())
    }

    /// Only lower ranks match.
    fn upper_bound(&self) -> Rank {
        match self.after {
            Some(after) => self.rank(after.start_ns, after.id),
            None => (i64::MAX, i64::MAX),
        }
    }
}

/// The columns of a segment that order its documents.
struct SegmentColumns<'a> {
    reader: &'a SegmentReader,
    start: Arc<dyn ColumnValues<i64>>,
    id: Arc<dyn ColumnValues<i64>>,
    /// Upper bound of the first part of all ranks.
    first: i64,
    /// Lower bound of the first part of all ranks.
    last: i64,
}

impl<'a> SegmentColumns<'a> {
    fn open(top: &TopK, reader: &'a SegmentReader) -> tantivy::Result<Self> {
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

    /// Whether the segment may contain documents of the window after the position.
    fn may_contain_matches(&self, top: &TopK) -> bool {
        let window = [top.from_ns, top.to_ns].map(|start| top.rank(start, 0).0);
        self.last <= top.upper_bound().0
            && self.first >= window[0].min(window[1])
            && self.last <= window[0].max(window[1])
    }

    /// Adds the matching documents to the heap, and keeps the first ones.
    fn read(
        &self,
        top: &TopK,
        weight: &dyn Weight,
        heap: &mut BinaryHeap<Reverse<Rank>>,
    ) -> tantivy::Result<()> {
        let upper_bound = top.upper_bound();
        let alive = self.reader.alive_bitset();
        weight.for_each_no_score(self.reader, &mut |docs| {
            for doc in docs {
                let start = self.start.get_val(*doc);
                if start < top.from_ns || start > top.to_ns {
                    continue;
                }
                let full = heap.len() >= top.limit;
                let least = heap.peek().map(|Reverse(least)| *least);
                // The start alone excludes most documents.
                let first = if top.newest_first { start } else { !start };
                if full && least.is_some_and(|least| first < least.0)
                    || alive.is_some_and(|alive| !alive.is_alive(*doc))
                {
                    continue;
                }
                let rank = top.rank(start, self.id.get_val(*doc));
                if rank >= upper_bound || full && least.is_some_and(|least| rank <= least) {
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
