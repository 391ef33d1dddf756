//! Means and percentiles that are always finite.

/// The mean, with compensated summation.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    finite(sum(values) / values.len() as f64)
}

/// The sample standard deviation (with `n - 1`); `None` for fewer than two values.
pub(super) fn std_dev(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: Vec<f64> = values.iter().map(|value| (value - mean).powi(2)).collect();
    finite((sum(&squares) / (values.len() - 1) as f64).sqrt())
}

/// The percentile `q` (0 to 1) of sorted values, with linear interpolation between the two nearest
/// values: the default of NumPy and pandas.
pub fn percentile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = truncate_to_usize(position.floor());
    let (low, high) = (sorted.get(below)?, sorted.get((below + 1).min(last))?);
    let fraction = position - position.floor();
    finite(low * (1.0 - fraction) + high * fraction)
}

/// The value if it is finite.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers pass small numbers that are not negative"
)]
pub(super) fn truncate_to_usize(value: f64) -> usize {
    value as usize
}

/// The sum by Neumaier's algorithm, which compensates for rounding.
fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        compensation += if sum.abs() >= value.abs() {
            (sum - next) + value
        } else {
            (value - next) + sum
        };
        sum = next;
    }
    sum + compensation
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_and_infinite_results_are_none() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), None);
        assert_eq!(mean(&[1e100, 1.0, -1e100]), Some(1.0 / 3.0));
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(std_dev(&[1.0]), None);
    }

    #[test]
    fn percentile_interpolates_linearly() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&sorted, 0.5), Some(2.5));
        assert_eq!(percentile(&sorted, 0.0), Some(1.0));
        assert_eq!(percentile(&sorted, 1.0), Some(4.0));
        assert!((percentile(&sorted, 0.9).unwrap() - 3.7).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn percentile_is_monotonic_and_within_range(
            mut values in prop::collection::vec(-1e6_f64..1e6, 1..60), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
        ) {
            values.sort_by(f64::total_cmp);
            let (low, high) = (percentile(&values, a.min(b)).unwrap(), percentile(&values, a.max(b)).unwrap());
            prop_assert!(low <= high + 1e-6);
            prop_assert!(low >= values[0] - 1e-6 && high <= values[values.len() - 1] + 1e-6);
        }
    }
}
