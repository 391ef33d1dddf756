//! Tokens and cost of decisions.

use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::SpanKind;
use crate::model::cost::cost_usd;

/// Usage of a decision.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DecisionUsage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cache_read_input_tokens: u64,
    /// Cost in USD.
    pub(super) cost: Option<f64>,
}

impl DecisionUsage {
    /// The usage of a decision: from its metrics, or those of nested LLM spans if it has none.
    pub(super) fn from_decision(tree: &TraceTree, decision: NodeId) -> Self {
        let mut sum = Self::default();
        let mut stack = vec![decision];
        while let Some(node) = stack.pop() {
            let span = tree.span(node);
            let metric = |name| span.metric(name);
            if metric("input_tokens").is_none() && metric("output_tokens").is_none() {
                let nested = tree.children(node).iter();
                stack.extend(nested.filter(|child| *tree.kind(**child) == SpanKind::Llm));
            }
            let count = |name| metric(name).unwrap_or_default().max(0.0).round() as u64;
            sum.input_tokens = sum.input_tokens.saturating_add(count("input_tokens"));
            sum.output_tokens = sum.output_tokens.saturating_add(count("output_tokens"));
            sum.cache_read_input_tokens = sum
                .cache_read_input_tokens
                .saturating_add(count("cache_read_input_tokens"));
            let cost = cost_usd(metric("estimated_total_cost"), metric("total_cost"));
            sum.cost = add_costs(sum.cost, cost);
        }
        sum
    }
}

/// The sum of two costs; the known one if only one is known.
pub(super) fn add_costs(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (left, right) => left.or(right),
    }
}
