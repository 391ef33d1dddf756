//! Tokens and cost of model calls, each call counted once.
//!
//! An agent framework around a provider's client records two `llm` spans for one call. Which of
//! them carries a value depends on the framework, so each kind of usage is resolved separately: the
//! outermost span with a value counts.

use std::collections::{HashMap, HashSet};

use super::measure::Usage;
use super::rows::ModelCallRow;
use crate::model::cost::cost_usd;

/// Most `llm` ancestors that are followed. Real nesting is shallower, and parents may form cycles.
const MAX_NESTED_CALLS: usize = 64;

/// A recorded model call.
#[derive(Debug)]
pub(super) struct ModelCall {
    /// Index of its span in the aggregator.
    pub(super) span_index: usize,
    trace: u32,
    span_id: Box<str>,
    parent_id: Option<Box<str>>,
    is_llm: bool,
    /// Values in the order of [`Usage::ALL`].
    values: [Option<f64>; 4],
}

/// What a call contributes to a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Contribution {
    /// Nothing: calls of its kind have no such value, or another span of the same call counts.
    #[default]
    Nothing,
    /// A value.
    Value(f64),
    /// A value is expected but absent.
    Unknown,
}

impl ModelCall {
    pub(super) fn new(row: ModelCallRow<'_>, span_index: usize, trace: u32) -> Self {
        let finite = row
            .metrics
            .map(|value| value.filter(|value| value.is_finite()));
        let [input, output, total, estimated_cost, cost] = finite;
        let sum = match (input, output) {
            (None, None) => None,
            _ => Some(input.unwrap_or_default() + output.unwrap_or_default()),
        };
        Self {
            span_index,
            trace,
            span_id: row.span_id.into(),
            parent_id: row.parent_id.map(Into::into),
            is_llm: row.is_llm,
            values: Usage::ALL.map(|usage| match usage {
                Usage::InputTokens => input,
                Usage::OutputTokens => output,
                Usage::TotalTokens => total.or(sum),
                Usage::Cost => cost_usd(estimated_cost, cost),
            }),
        }
    }
}

/// The contributions of each call, in the order of the calls and of [`Usage::ALL`].
pub(super) fn contributions(calls: &[ModelCall]) -> Vec<[Contribution; 4]> {
    let mut llm_calls: HashMap<(u32, &str), usize> = HashMap::new();
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.is_llm) {
        llm_calls
            .entry((call.trace, &call.span_id))
            .or_insert(index);
    }
    let enclosing: Vec<Vec<usize>> = calls
        .iter()
        .map(|call| enclosing_calls(calls, &llm_calls, call))
        .collect();
    let mut result = vec![[Contribution::Nothing; 4]; calls.len()];
    for (column, usage) in Usage::ALL.into_iter().enumerate() {
        let value = |index: usize| calls.get(index)?.values.get(column).copied().flatten();
        // Calls that have a value themselves or in a nested span.
        let mut known: HashSet<usize> = HashSet::new();
        for (index, enclosing) in enclosing.iter().enumerate() {
            if value(index).is_some() {
                known.insert(index);
                known.extend(enclosing);
            }
        }
        let calls = calls.iter().zip(&enclosing).zip(&mut result).enumerate();
        for (index, ((call, enclosing), contributions)) in calls {
            // Embeddings have no output tokens.
            let is_expected = call.is_llm || usage != Usage::OutputTokens;
            let contribution = match value(index) {
                Some(value_here) if enclosing.iter().all(|outer| value(*outer).is_none()) => {
                    Contribution::Value(value_here)
                }
                None if is_expected && enclosing.is_empty() && !known.contains(&index) => {
                    Contribution::Unknown
                }
                _ => Contribution::Nothing,
            };
            if let Some(entry) = contributions.get_mut(column) {
                *entry = contribution;
            }
        }
    }
    result
}

/// The chain of `llm` spans directly around an `llm` span, innermost first.
fn enclosing_calls(
    calls: &[ModelCall],
    llm_calls: &HashMap<(u32, &str), usize>,
    call: &ModelCall,
) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    if !call.is_llm {
        return found;
    }
    let mut inner = call;
    while let Some(parent_id) = &inner.parent_id
        && let Some(index) = llm_calls.get(&(call.trace, parent_id))
        && found.len() < MAX_NESTED_CALLS
        && !found.contains(index)
        && let Some(outer) = calls.get(*index)
    {
        if outer.span_id == call.span_id {
            // The span of a cycle with the smallest id counts as the outermost.
            let is_smaller = |other: &usize| {
                calls
                    .get(*other)
                    .is_some_and(|other| call.span_id < other.span_id)
            };
            if found.iter().all(is_smaller) {
                found.clear();
            }
            break;
        }
        found.push(*index);
        inner = outer;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Span, SpanId, SpanKind};

    fn llm(id: &str, parent: &str, tokens: Option<f64>) -> ModelCall {
        let span = Span {
            span_id: SpanId::from(id),
            parent_id: Some(SpanId::from(parent)),
            kind: SpanKind::Llm,
            metrics: tokens
                .map(|tokens| ("input_tokens".to_owned(), tokens))
                .into_iter()
                .collect(),
            ..Span::default()
        };
        ModelCall::new(ModelCallRow::from_span(&span).unwrap(), 0, 0)
    }

    fn input_tokens(calls: &[ModelCall]) -> Vec<Contribution> {
        contributions(calls).into_iter().map(|row| row[0]).collect()
    }

    #[test]
    fn counts_outermost_value_of_nested_calls() {
        let both = [llm("o", "agent", Some(7.0)), llm("i", "o", Some(7.0))];
        assert_eq!(
            input_tokens(&both),
            [Contribution::Value(7.0), Contribution::Nothing]
        );
        let inner_only = [llm("o", "agent", None), llm("i", "o", Some(7.0))];
        assert_eq!(
            input_tokens(&inner_only),
            [Contribution::Nothing, Contribution::Value(7.0)]
        );
        let none = [llm("o", "agent", None), llm("i", "o", None)];
        assert_eq!(
            input_tokens(&none),
            [Contribution::Unknown, Contribution::Nothing]
        );
        let gap = [
            llm("i", "m", Some(7.0)),
            llm("m", "o", None),
            llm("o", "x", Some(8.0)),
        ];
        assert_eq!(
            input_tokens(&gap),
            [
                Contribution::Nothing,
                Contribution::Nothing,
                Contribution::Value(8.0)
            ]
        );
    }

    #[test]
    fn counts_cycle_of_parents_once() {
        let cycle = [
            llm("a", "b", Some(5.0)),
            llm("b", "a", Some(5.0)),
            llm("c", "c", None),
        ];
        assert_eq!(
            input_tokens(&cycle),
            [
                Contribution::Value(5.0),
                Contribution::Nothing,
                Contribution::Unknown
            ]
        );
    }
}
