//! What a model call cost.
//!
//! Two metrics tell it, in different units. `total_cost` is what an application says, in USD.
//! `estimated_total_cost` is Datadog's own estimate, and that of the test agent, in billionths of a
//! dollar: the documentation says of costs that they are stored so, and the sums of experiments are
//! whole numbers in that unit. Datadog fills its estimate from what the application said, so where
//! both are there the estimate counts.

/// Billionths of a dollar in one.
const NANO: f64 = 1e9;

/// The cost in USD, from the metrics `estimated_total_cost` and `total_cost`.
pub fn cost_usd(estimated_total_cost: Option<f64>, total_cost: Option<f64>) -> Option<f64> {
    estimated_total_cost.map(|nano| nano / NANO).or(total_cost)
}

/// A cost in USD as the metric `estimated_total_cost` says it.
pub fn estimated_total_cost(usd: f64) -> f64 {
    usd * NANO
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some(2_500_000.0), None, Some(0.0025))]
    #[case(None, Some(0.0025), Some(0.0025))]
    #[case(Some(2_500_000.0), Some(7.0), Some(0.0025))]
    #[case(Some(0.0), Some(7.0), Some(0.0))]
    #[case(None, None, None)]
    fn a_cost_is_in_usd_whoever_said_it(
        #[case] estimated: Option<f64>,
        #[case] said: Option<f64>,
        #[case] usd: Option<f64>,
    ) {
        assert_eq!(cost_usd(estimated, said), usd);
    }

    #[test]
    fn an_estimate_is_in_billionths() {
        assert_eq!(estimated_total_cost(0.0025), 2_500_000.0);
    }
}
