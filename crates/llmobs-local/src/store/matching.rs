//! Decides whether a span matches the parts of a search that columns cannot answer: tags and the
//! query.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::Search;
use llmobs_core::model::{Span, SpanId, TraceId, TraceRollup};
use llmobs_core::query::SpanContext;

/// Maximum number of traces that a search keeps in memory.
const MAX_TRACES: usize = 32;

/// Rollups and descendants of the traces that a query needs, for the duration of one search.
#[derive(Default)]
pub(super) struct TraceContexts {
    traces: HashMap<TraceId, Rc<TraceContext>>,
}

/// One trace as a query sees it.
struct TraceContext {
    rollup: TraceRollup,
    spans: Vec<Span>,
    children: HashMap<SpanId, Vec<usize>>,
}

impl TraceContexts {
    /// The trace with an id, loaded on first use.
    fn get_or_load<E>(
        &mut self,
        id: &TraceId,
        load: impl FnOnce(&TraceId) -> Result<Vec<Span>, E>,
    ) -> Result<Rc<TraceContext>, E> {
        if let Some(context) = self.traces.get(id) {
            return Ok(context.clone());
        }
        if self.traces.len() >= MAX_TRACES {
            self.traces.clear();
        }
        let context = Rc::new(TraceContext::new(load(id)?));
        self.traces.insert(id.clone(), context.clone());
        Ok(context)
    }
}

impl TraceContext {
    fn new(spans: Vec<Span>) -> Self {
        let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
        for (index, span) in spans.iter().enumerate() {
            if let Some(parent) = &span.parent_id {
                children.entry(parent.clone()).or_default().push(index);
            }
        }
        Self {
            rollup: TraceRollup::from_spans(&spans),
            spans,
            children,
        }
    }

    /// All descendants of a span, each once, even when the parents form a loop.
    fn descendants(&self, id: &SpanId) -> Vec<&Span> {
        let mut descendants = Vec::new();
        let mut visited: HashSet<&str> = HashSet::from([id.as_str()]);
        let mut pending = vec![id];
        while let Some(parent) = pending.pop() {
            for index in self.children.get(parent.as_str()).into_iter().flatten() {
                if let Some(span) = self.spans.get(*index)
                    && visited.insert(span.span_id.as_str())
                {
                    descendants.push(span);
                    pending.push(&span.span_id);
                }
            }
        }
        descendants
    }
}

/// Whether a span matches the tags and the query of a search. `load` reads a trace.
pub(super) fn matches<E>(
    search: &Search,
    span: &Span,
    contexts: &mut TraceContexts,
    load: impl FnOnce(&TraceId) -> Result<Vec<Span>, E>,
) -> Result<bool, E> {
    if !has_tags(search, span) {
        return Ok(false);
    }
    let Some(query) = &search.query else {
        return Ok(true);
    };
    // Rollups of a trace are facets of its root spans.
    let needs_rollup = query.needs_rollup() && span.is_root();
    if !needs_rollup && !query.needs_descendants() {
        return Ok(query.matches(&SpanContext {
            span,
            rollup: None,
            descendants: &[],
        }));
    }
    let context = contexts.get_or_load(&span.trace_id, load)?;
    let descendants = context.descendants(&span.span_id);
    Ok(query.matches(&SpanContext {
        span,
        rollup: needs_rollup.then_some(&context.rollup),
        descendants: &descendants,
    }))
}

fn has_tags(search: &Search, span: &Span) -> bool {
    search.filters.tags.iter().all(|(key, value)| {
        let is_tag = |tag: &String| {
            tag.strip_prefix(key.as_str())
                .and_then(|rest| rest.strip_prefix(':'))
                == Some(value.as_str())
        };
        span.tags.iter().any(is_tag)
    })
}
