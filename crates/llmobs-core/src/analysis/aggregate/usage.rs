//! Tokens and costs of model calls, each call once.
//!
//! An agent framework around a provider's client makes two `llm` spans of one call. Which of the
//! two carries the numbers differs by framework, so it is decided number by number: the outermost
//! that has it. Nothing is lost and nothing counts twice.

use std::collections::{HashMap, HashSet};

use super::measure::Usage;
use crate::model::cost::cost_usd;
use crate::model::{Span, SpanKind};

/// Spans walked up at most: nobody wraps a call deeper, and parents may go in circles.
const MAX_WRAPS: usize = 64;

/// A model call as it was seen.
#[derive(Debug)]
pub(super) struct Call {
    /// Which fact it is part of.
    pub(super) fact: usize,
    trace: u32,
    span: Box<str>,
    parent: Option<Box<str>>,
    is_llm: bool,
    values: [Option<f64>; 4],
}

/// What a call adds to a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Adds {
    /// Nothing: it has no such value, or another span of the same call has brought it.
    #[default]
    Nothing,
    /// A value.
    Value(f64),
    /// It should have a value and has none.
    Unknown,
}

/// A model call as a row of an index.
#[derive(Debug, Clone, Copy)]
pub struct ModelCallRow<'a> {
    /// The span's id.
    pub span_id: &'a str,
    /// Its parent's id.
    pub parent_id: Option<&'a str>,
    /// Whether its kind is `llm`; `embedding` is the other kind that calls a model.
    pub is_llm: bool,
    /// Its metrics, in the order of [`CALL_METRICS`].
    pub metrics: [Option<f64>; 5],
}

/// The metrics that tokens and cost are read from.
pub const CALL_METRICS: [&str; 5] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "estimated_total_cost",
    "total_cost",
];

impl<'a> ModelCallRow<'a> {
    /// The call that a span is, if it is one.
    pub(super) fn of(span: &'a Span) -> Option<Self> {
        let is_llm = match span.kind {
            SpanKind::Llm => true,
            SpanKind::Embedding => false,
            _ => return None,
        };
        Some(Self {
            span_id: span.span_id.as_str(),
            parent_id: span.parent_id.as_ref().map(|id| id.as_str()),
            is_llm,
            metrics: CALL_METRICS.map(|name| span.metric(name)),
        })
    }
}

impl Call {
    pub(super) fn new(row: ModelCallRow<'_>, fact: usize, trace: u32) -> Self {
        let finite = row
            .metrics
            .map(|value| value.filter(|value| value.is_finite()));
        let [input, output, total, estimated_cost, cost] = finite;
        let both = match (input, output) {
            (None, None) => None,
            _ => Some(input.unwrap_or_default() + output.unwrap_or_default()),
        };
        Self {
            fact,
            trace,
            span: row.span_id.into(),
            parent: row.parent_id.map(Into::into),
            is_llm: row.is_llm,
            values: Usage::ALL.map(|usage| match usage {
                Usage::InputTokens => input,
                Usage::OutputTokens => output,
                Usage::TotalTokens => total.or(both),
                Usage::Cost => cost_usd(estimated_cost, cost),
            }),
        }
    }

    fn value(&self, usage: Usage) -> Option<f64> {
        self.values.get(usage as usize).copied().flatten()
    }
}

/// What each call adds, in the order of the calls, for [`Usage::ALL`].
pub(super) fn resolve(calls: &[Call]) -> Vec<[Adds; 4]> {
    let mut llms: HashMap<(u32, &str), usize> = HashMap::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.is_llm) {
        llms.entry((call.trace, &call.span)).or_insert(at);
    }
    let above: Vec<Vec<usize>> = calls.iter().map(|call| wraps(calls, &llms, call)).collect();
    let mut adds = vec![[Adds::Nothing; 4]; calls.len()];
    for usage in Usage::ALL {
        let has = |at: &usize| calls.get(*at).is_some_and(|c| c.value(usage).is_some());
        let mut known: HashSet<usize> = HashSet::new();
        for (at, (call, above)) in calls.iter().zip(&above).enumerate() {
            let Some(value) = call.value(usage) else {
                continue;
            };
            known.insert(at);
            known.extend(above);
            if !above.iter().any(has) {
                put(&mut adds, at, usage, Adds::Value(value));
            }
        }
        for (at, (call, above)) in calls.iter().zip(&above).enumerate() {
            // An embedding gives no tokens out.
            let expected = call.is_llm || usage != Usage::OutputTokens;
            if expected && above.is_empty() && !known.contains(&at) {
                put(&mut adds, at, usage, Adds::Unknown);
            }
        }
    }
    adds
}

fn put(adds: &mut [[Adds; 4]], at: usize, usage: Usage, what: Adds) {
    if let Some(slot) = adds.get_mut(at).and_then(|row| row.get_mut(usage as usize)) {
        *slot = what;
    }
}

/// The `llm` spans right above an `llm` span, from the inside out.
fn wraps(calls: &[Call], llms: &HashMap<(u32, &str), usize>, call: &Call) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    if !call.is_llm {
        return found;
    }
    let mut at = call;
    while let Some(parent) = &at.parent
        && let Some(up) = llms.get(&(call.trace, parent))
        && found.len() < MAX_WRAPS
        && !found.contains(up)
        && let Some(next) = calls.get(*up)
    {
        if next.span == call.span {
            // A circle is cut above the span whose id is the first of its texts.
            let is_first = |other: &usize| calls.get(*other).is_some_and(|o| call.span < o.span);
            if found.iter().all(is_first) {
                found.clear();
            }
            break;
        }
        found.push(*up);
        at = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanId;

    fn llm(id: &str, parent: &str, tokens: Option<f64>) -> Call {
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
        Call::new(ModelCallRow::of(&span).unwrap(), 0, 0)
    }

    fn input(calls: &[Call]) -> Vec<Adds> {
        resolve(calls).into_iter().map(|row| row[0]).collect()
    }

    #[test]
    fn the_outermost_value_of_a_call_counts_once() {
        let both = [llm("o", "agent", Some(7.0)), llm("i", "o", Some(7.0))];
        assert_eq!(input(&both), [Adds::Value(7.0), Adds::Nothing]);
        let inner_only = [llm("o", "agent", None), llm("i", "o", Some(7.0))];
        assert_eq!(input(&inner_only), [Adds::Nothing, Adds::Value(7.0)]);
        let none = [llm("o", "agent", None), llm("i", "o", None)];
        assert_eq!(input(&none), [Adds::Unknown, Adds::Nothing]);
        let gap = [
            llm("i", "m", Some(7.0)),
            llm("m", "o", None),
            llm("o", "x", Some(8.0)),
        ];
        assert_eq!(
            input(&gap),
            [Adds::Nothing, Adds::Nothing, Adds::Value(8.0)]
        );
    }

    #[test]
    fn a_circle_of_parents_counts_once() {
        let circle = [
            llm("a", "b", Some(5.0)),
            llm("b", "a", Some(5.0)),
            llm("c", "c", None),
        ];
        assert_eq!(
            input(&circle),
            [Adds::Value(5.0), Adds::Nothing, Adds::Unknown]
        );
    }
}
