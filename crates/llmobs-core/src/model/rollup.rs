//! Totals of a trace: the `@trace.*` facets of the query language.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use super::cost::estimated_total_cost;
use super::{Assessment, Span, SpanKind};

/// Totals over the spans of one trace.
///
/// An `llm` span whose parent is an `llm` span is the same call recorded twice (by an agent
/// framework and by the provider's client), so only the parent counts. Metrics of other span kinds
/// are not added: an agent's metrics repeat those of its LLM spans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceRollup {
    /// Input and output tokens of all LLM and embedding calls.
    pub total_tokens: f64,
    /// Input tokens of all LLM and embedding calls.
    pub input_tokens: f64,
    /// Output tokens of all LLM calls.
    pub output_tokens: f64,
    /// Reported cost in billionths of a dollar, the unit of Datadog's estimates.
    pub estimated_total_cost: f64,
    /// Number of LLM calls.
    pub llm_calls: usize,
    /// Number of tool calls.
    pub tool_calls: usize,
    /// Number of distinct tools called.
    pub number_of_tools: usize,
    /// Number of spans with status `error`.
    pub number_of_errors: usize,
    /// Number of evaluations with assessment `fail`.
    pub num_evaluations_failed: usize,
}

impl TraceRollup {
    /// Computes the totals of one trace's spans, in any order.
    pub fn from_spans<S: Borrow<Span>>(spans: &[S]) -> Self {
        let kinds: HashMap<&str, &SpanKind> = spans
            .iter()
            .map(|span| {
                let span: &Span = span.borrow();
                (span.span_id.as_str(), &span.kind)
            })
            .collect();
        let mut totals = Self::default();
        let mut tools = HashSet::new();
        for span in spans {
            let span: &Span = span.borrow();
            totals.number_of_errors += usize::from(span.is_error());
            totals.num_evaluations_failed += span
                .evaluations
                .values()
                .filter(|evaluation| evaluation.assessment == Some(Assessment::Fail))
                .count();
            match span.kind {
                SpanKind::Tool => {
                    totals.tool_calls += 1;
                    tools.insert(span.name.as_str());
                }
                SpanKind::Llm if has_llm_parent(span, &kinds) => {}
                SpanKind::Llm => {
                    totals.llm_calls += 1;
                    totals.add_usage(span);
                }
                SpanKind::Embedding => totals.add_usage(span),
                _ => {}
            }
        }
        totals.number_of_tools = tools.len();
        totals
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

/// Whether the parent is an LLM span.
fn has_llm_parent(span: &Span, kinds: &HashMap<&str, &SpanKind>) -> bool {
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
    fn nested_llm_call_counts_once_and_agents_do_not_count() {
        let spans = [
            span("a", None, SpanKind::Agent, 100.0),
            span("outer", Some("a"), SpanKind::Llm, 40.0),
            span("inner", Some("outer"), SpanKind::Llm, 40.0),
            span("search", Some("a"), SpanKind::Tool, 0.0),
        ];
        let totals = TraceRollup::from_spans(&spans);
        assert_eq!((totals.llm_calls, totals.tool_calls), (1, 1));
        assert!((totals.total_tokens - 40.0).abs() < 1e-9);
    }
}
