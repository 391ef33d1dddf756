//! The cost of a model call.
//!
//! Two metrics report it, in different units. `total_cost` is the application's figure in USD.
//! `estimated_total_cost` is Datadog's estimate, and the test agent's, in billionths of a dollar:
//! Datadog documents that costs are stored in this unit, and the totals of experiments are integers
//! in it. Datadog derives its estimate from the application's figure, so the estimate takes
//! precedence where both are present.

/// Billionths of a dollar per dollar.
const NANODOLLARS_PER_USD: f64 = 1e9;

/// The cost in USD, from the metrics `estimated_total_cost` and `total_cost`.
pub fn cost_usd(estimated_total_cost: Option<f64>, total_cost: Option<f64>) -> Option<f64> {
    estimated_total_cost
        .map(|estimate| estimate / NANODOLLARS_PER_USD)
        .or(total_cost)
}

/// A cost in USD in the unit of the metric `estimated_total_cost`.
pub fn estimated_total_cost(usd: f64) -> f64 {
    usd * NANODOLLARS_PER_USD
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
    fn estimate_takes_precedence_and_is_converted_to_usd(
        #[case] estimated: Option<f64>,
        #[case] total: Option<f64>,
        #[case] usd: Option<f64>,
    ) {
        assert_eq!(cost_usd(estimated, total), usd);
    }

    #[test]
    fn converts_usd_to_billionths() {
        assert_eq!(estimated_total_cost(0.0025), 2_500_000.0);
    }
}
