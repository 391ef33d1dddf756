//! The data of a span that a query reads.

use crate::model::{Span, TraceRollup};

/// A span and the data of its trace that a query may read. Evaluations and feedback are fields of
/// the span.
#[derive(Debug, Clone, Copy)]
pub struct SpanContext<'a> {
    /// The span.
    pub span: &'a Span,
    /// Totals of its trace, for `@trace.…`; see [`super::Query::needs_rollup`].
    pub rollup: Option<&'a TraceRollup>,
    /// Its descendants, for `@child.…`; see [`super::Query::needs_descendants`].
    pub descendants: &'a [&'a Span],
}

impl<'a> SpanContext<'a> {
    /// The context of a span alone, in which `@trace.…` and `@child.…` have no values.
    pub fn without_trace(span: &'a Span) -> Self {
        Self {
            span,
            rollup: None,
            descendants: &[],
        }
    }
}
