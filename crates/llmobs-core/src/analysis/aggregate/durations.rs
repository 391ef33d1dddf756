//! Percentiles of durations: exact, and of many lists as of one, without sorting them or putting
//! them into one.

use std::cell::OnceCell;
use std::ops::RangeInclusive;

/// Fewer than these are sorted out directly.
const FEW: usize = 4_096;

/// Durations between two powers of two are counted in this many sizes, as a power of two.
const SIZES_BITS: u32 = 7;

/// All sizes of durations.
const SIZES: usize = size_of_longest(u64::BITS - SIZES_BITS - 2) + 1;

/// Durations in nanoseconds, in several lists.
pub(super) struct Durations<'a> {
    lists: &'a [&'a [i64]],
    /// How many there are of each size; counted when many are asked for the first time.
    counts: OnceCell<Vec<u32>>,
}

impl<'a> Durations<'a> {
    pub(super) fn of(lists: &'a [&'a [i64]]) -> Self {
        Self {
            lists,
            counts: OnceCell::new(),
        }
    }

    /// By nearest rank; `None` of nothing.
    pub(super) fn percentile(&self, percent: u8) -> Option<i64> {
        let all: usize = self.lists.iter().map(|list| list.len()).sum();
        let rank = (all * usize::from(percent)).div_ceil(100);
        let mut at = rank.saturating_sub(1);
        let mut candidates = if all <= FEW {
            self.lists.concat()
        } else {
            let counts = self.counts.get_or_init(|| self.count());
            // Only those of one size can be it.
            let size = counts.iter().position(|count| {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                let is_it = at < count;
                at -= if is_it { 0 } else { count };
                is_it
            })?;
            let of_size = values_of(size);
            let all = self.lists.iter().flat_map(|list| list.iter().copied());
            all.filter(|value| of_size.contains(value)).collect()
        };
        (at < candidates.len()).then(|| *candidates.select_nth_unstable(at).1)
    }

    fn count(&self) -> Vec<u32> {
        let mut counts = vec![0; SIZES];
        for value in self.lists.iter().flat_map(|list| list.iter()) {
            if let Some(count) = counts.get_mut(size_of(*value)) {
                *count += 1;
            }
        }
        counts
    }
}

/// The size of a duration: it grows with the duration, and has 128 steps from one power of two to
/// the next.
fn size_of(ns: i64) -> usize {
    let ns = ns.max(0).unsigned_abs();
    let bits = u64::BITS - ns.leading_zeros();
    let shift = bits.saturating_sub(SIZES_BITS + 1);
    ((shift as usize) << SIZES_BITS) + (ns >> shift) as usize
}

/// The size of the longest durations that are counted with this many bits cut off.
const fn size_of_longest(shift: u32) -> usize {
    ((shift as usize) << SIZES_BITS) + (2 << SIZES_BITS) - 1
}

/// The durations of a size.
fn values_of(size: usize) -> RangeInclusive<i64> {
    let shift = (size >> SIZES_BITS).saturating_sub(1);
    let step = size - (shift << SIZES_BITS);
    let bound = |step: usize| i64::try_from((step as u128) << shift).unwrap_or(i64::MAX);
    // What was sent below zero counts as nothing.
    let first = if size == 0 { i64::MIN } else { bound(step) };
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
        fn a_size_holds_its_durations_and_no_others(a in duration(), b in duration()) {
            prop_assert!(size_of(a) < SIZES);
            let of_size = values_of(size_of(a));
            prop_assert!(of_size.contains(&a));
            prop_assert_eq!(of_size.contains(&b), size_of(a) == size_of(b));
            prop_assert_eq!(size_of(a) < size_of(b), a < b && !of_size.contains(&b));
        }

        #[test]
        fn percentiles_are_those_of_all_durations_sorted(
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
            let durations = Durations::of(&lists);
            for percent in [0, 1, 50, 95, 99, 100] {
                let rank = (sorted.len() * usize::from(percent)).div_ceil(100);
                let expected = sorted.get(rank.saturating_sub(1)).copied();
                prop_assert_eq!(durations.percentile(percent), expected);
            }
        }
    }

    #[test]
    fn the_longest_and_the_shortest_have_a_size() {
        assert_eq!(size_of(i64::MAX), SIZES - 1);
        assert_eq!((size_of(i64::MIN), size_of(0), size_of(1)), (0, 0, 1));
    }
}
