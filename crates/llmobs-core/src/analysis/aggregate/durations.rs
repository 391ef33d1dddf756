//! Exact percentiles of durations in several lists, without sorting or concatenating the lists.
//!
//! Durations are counted in buckets of a log-linear histogram. Only the durations of the bucket
//! that holds the percentile are then selected from.

use std::cell::OnceCell;
use std::ops::RangeInclusive;

/// Up to this many durations, the histogram is skipped.
const MAX_WITHOUT_HISTOGRAM: usize = 4_096;

/// Number of buckets between two powers of two, as a power of two.
const BUCKET_BITS: u32 = 7;

/// Number of buckets.
const BUCKETS: usize = last_bucket(u64::BITS - BUCKET_BITS - 2) + 1;

/// Durations in nanoseconds, in several lists.
pub(super) struct Durations<'a> {
    lists: &'a [&'a [i64]],
    /// Number of durations in each bucket; counted for the first percentile.
    counts: OnceCell<Vec<u32>>,
}

impl<'a> Durations<'a> {
    pub(super) fn new(lists: &'a [&'a [i64]]) -> Self {
        Self {
            lists,
            counts: OnceCell::new(),
        }
    }

    /// The percentile by nearest rank; `None` without durations.
    pub(super) fn percentile(&self, percent: u8) -> Option<i64> {
        let all: usize = self.lists.iter().map(|list| list.len()).sum();
        let rank = (all * usize::from(percent)).div_ceil(100);
        let mut at = rank.saturating_sub(1);
        let mut candidates = if all <= MAX_WITHOUT_HISTOGRAM {
            self.lists.concat()
        } else {
            let counts = self.counts.get_or_init(|| self.count_buckets());
            let bucket = counts.iter().position(|count| {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                let is_it = at < count;
                at -= if is_it { 0 } else { count };
                is_it
            })?;
            let range = bucket_range(bucket);
            let all = self.lists.iter().flat_map(|list| list.iter().copied());
            all.filter(|value| range.contains(value)).collect()
        };
        (at < candidates.len()).then(|| *candidates.select_nth_unstable(at).1)
    }

    fn count_buckets(&self) -> Vec<u32> {
        let mut counts = vec![0; BUCKETS];
        for value in self.lists.iter().flat_map(|list| list.iter()) {
            if let Some(count) = counts.get_mut(bucket_of(*value)) {
                *count += 1;
            }
        }
        counts
    }
}

/// The bucket of a duration. Longer durations have the same or a higher bucket; there are 128
/// buckets between two powers of two.
fn bucket_of(ns: i64) -> usize {
    let ns = ns.max(0).unsigned_abs();
    let bits = u64::BITS - ns.leading_zeros();
    let shift = bits.saturating_sub(BUCKET_BITS + 1);
    ((shift as usize) << BUCKET_BITS) + (ns >> shift) as usize
}

/// The last bucket whose durations are shifted by this many bits.
const fn last_bucket(shift: u32) -> usize {
    ((shift as usize) << BUCKET_BITS) + (2 << BUCKET_BITS) - 1
}

/// The durations in a bucket.
fn bucket_range(bucket: usize) -> RangeInclusive<i64> {
    let shift = (bucket >> BUCKET_BITS).saturating_sub(1);
    let step = bucket - (shift << BUCKET_BITS);
    let bound = |step: usize| i64::try_from((step as u128) << shift).unwrap_or(i64::MAX);
    // Negative durations count as zero.
    let first = if bucket == 0 { i64::MIN } else { bound(step) };
    let last = match bound(step + 1) {
        i64::MAX => i64::MAX,
        next => next - 1,
    };
    first..=last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn duration() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn bucket_range_contains_exactly_the_durations_of_the_bucket(a in duration(), b in duration()) {
            prop_assert!(bucket_of(a) < BUCKETS);
            let range = bucket_range(bucket_of(a));
            prop_assert!(range.contains(&a));
            prop_assert_eq!(range.contains(&b), bucket_of(a) == bucket_of(b));
            prop_assert_eq!(bucket_of(a) < bucket_of(b), a < b && !range.contains(&b));
        }

        #[test]
        fn percentiles_equal_those_of_sorted_durations(
            few in proptest::collection::vec(duration(), 0..40),
            spread in 1_i64..1_000,
            many in any::<bool>(),
        ) {
            let mut more: Vec<i64> = few.clone();
            if many {
                more.extend((0..10_000).map(|n| 1_000_000 + n * n % (spread * 1_000)));
            }
            let mut sorted = [few.as_slice(), more.as_slice()].concat();
            sorted.sort_unstable();
            let lists = [more.as_slice(), &[], few.as_slice()];
            let durations = Durations::new(&lists);
            for percent in [0, 1, 50, 95, 99, 100] {
                let rank = (sorted.len() * usize::from(percent)).div_ceil(100);
                let expected = sorted.get(rank.saturating_sub(1)).copied();
                prop_assert_eq!(durations.percentile(percent), expected);
            }
        }
    }

    #[test]
    fn extreme_durations_have_a_bucket() {
        assert_eq!(bucket_of(i64::MAX), BUCKETS - 1);
        assert_eq!((bucket_of(i64::MIN), bucket_of(0), bucket_of(1)), (0, 0, 1));
    }
}
