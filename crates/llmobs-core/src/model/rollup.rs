//! Sums over a whole trace: what the query language calls `@trace.*`.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use super::cost::estimated_total_cost;
use super::{Assessment, Span, SpanKind};

/// Sums over the spans of one trace.
///
/// An `llm` span below another `llm` span is the same call seen twice (an agent framework around a
/// provider's client), so only the outer one counts. Metrics of other kinds are never added: an
/// agent's metrics repeat those of its own LLM spans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceRollup {
    /// Input and output tokens of all LLM and embedding calls.
    pub total_tokens: f64,
    /// Input tokens of all LLM and embedding calls.
    pub input_tokens: f64,
    /// Output tokens of all LLM calls.
    pub output_tokens: f64,
    /// Cost where it was sent, in billionths of a dollar as Datadog's estimates are.
    pub estimated_total_cost: f64,
    /// Number of LLM calls.
    pub llm_calls: usize,
    /// Number of tool calls.
    pub tool_calls: usize,
    /// Number of different tools called.
    pub number_of_tools: usize,
    /// Number of spans with status `error`.
    pub number_of_errors: usize,
    /// Number of evaluations with assessment `fail`.
    pub num_evaluations_failed: usize,
}

impl TraceRollup {
    /// Sums up the spans of one trace, in any order.
    pub fn from_spans<S: Borrow<Span>>(spans: &[S]) -> Self {
        let kinds: HashMap<&str, &SpanKind> = spans
            .iter()
            .map(|span| {
                let span: &Span = span.borrow();
                (span.span_id.as_str(), &span.kind)
            })
            .collect();
        let mut sums = Self::default();
        let mut tools = HashSet::new();
        for span in spans {
            let span: &Span = span.borrow();
            sums.number_of_errors += usize::from(span.is_error());
            sums.num_evaluations_failed += span
                .evaluations
                .values()
                .filter(|evaluation| evaluation.assessment == Some(Assessment::Fail))
                .count();
            match span.kind {
                SpanKind::Tool => {
                    sums.tool_calls += 1;
                    tools.insert(span.name.as_str());
                }
                SpanKind::Llm if below_llm(span, &kinds) => {}
                SpanKind::Llm => {
                    sums.llm_calls += 1;
                    sums.add_usage(span);
                }
                SpanKind::Embedding => sums.add_usage(span),
                _ => {}
            }
        }
        sums.number_of_tools = tools.len();
        sums
    }

    fn add_usage(&mut self, span: &Span) {
        let metric = |name| span.metric(name).unwrap_or_default();
        let (input, output) = (metric("input_tokens"), metric("output_tokens"));
        self.input_tokens += input;
        self.output_tokens += output;
        self.total_tokens += span.metric("total_tokens").unwrap_or(input + output);
        self.estimated_total_cost += estimated_total_cost(span.cost_usd().unwrap_or_default());
    }
}

/// Whether the direct parent is an LLM span.
fn below_llm(span: &Span, kinds: &HashMap<&str, &SpanKind>) -> bool {
    span.parent_id
        .as_ref()
        .and_then(|parent| kinds.get(parent.as_str()))
        .is_some_and(|kind| **kind == SpanKind::Llm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanId;

    fn span(id: &str, parent: Option<&str>, kind: SpanKind, tokens: f64) -> Span {
        Span {
            span_id: SpanId::from(id),
            parent_id: parent.map(SpanId::from),
            kind,
            name: id.to_owned(),
            metrics: [("input_tokens".to_owned(), tokens)].into(),
            ..Span::default()
        }
    }

    #[test]
    fn a_call_seen_twice_counts_once_and_agents_never_count() {
        let spans = [
            span("a", None, SpanKind::Agent, 100.0),
            span("outer", Some("a"), SpanKind::Llm, 40.0),
            span("inner", Some("outer"), SpanKind::Llm, 40.0),
            span("search", Some("a"), SpanKind::Tool, 0.0),
        ];
        let sums = TraceRollup::from_spans(&spans);
        assert_eq!((sums.llm_calls, sums.tool_calls), (1, 1));
        assert!((sums.total_tokens - 40.0).abs() < 1e-9);
    }
}
