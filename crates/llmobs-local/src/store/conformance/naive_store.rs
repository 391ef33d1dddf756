//! The oracle: a naive store that keeps lists and looks at all spans for every request.

use std::ops::ControlFlow;
use std::sync::Mutex;

use crate::store::evaluations::{add_to_span, keys_of_span};
use crate::store::{
    Ack, CheckOutcome, CheckStep, EvaluationPurgeOutcome, EvaluationPurgeStep, EvaluationTarget,
    Maintenance, Search, SearchOutcome, SpanPosition, SpanPurgeOutcome, SpanPurgeStep, SpanReader,
    SpanVisitor, SpanWriter, StorageUsage, StoreError, StoreStats, StoredEvaluation,
    TargetedEvaluation,
};
use llmobs_core::model::{EventKind, Span, SpanId, TraceId, TraceRollup};
use llmobs_core::query::SpanContext;

/// The oracle.
#[derive(Default)]
pub(super) struct NaiveStore(Mutex<Lists>);

#[derive(Default, Clone)]
struct Lists {
    spans: Vec<Span>,
    evaluations: Vec<TargetedEvaluation>,
}

impl Lists {
    /// All spans with their evaluations, in order.
    fn joined(&self) -> Vec<(SpanPosition, Span)> {
        let tag_keys: Vec<&str> = self
            .evaluations
            .iter()
            .filter_map(TargetedEvaluation::tag_key)
            .collect();
        let mut joined: Vec<_> = self
            .spans
            .iter()
            .enumerate()
            .map(|(index, span)| {
                let mut span = span.clone();
                let keys = keys_of_span(&span, tag_keys.iter().copied());
                for targeted in &self.evaluations {
                    if keys.contains(&targeted.key()) {
                        add_to_span(&mut span, targeted.evaluation.clone());
                    }
                }
                let position = SpanPosition {
                    start_ns: span.start_ns,
                    id: index as i64,
                };
                (position, span)
            })
            .collect();
        joined.sort_by_key(|(position, _)| *position);
        joined
    }
}

impl SpanWriter for NaiveStore {
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let mut lists = self.0.lock().unwrap();
        for span in spans {
            let same = lists
                .spans
                .iter()
                .position(|old| old.trace_id == span.trace_id && old.span_id == span.span_id);
            match same {
                // Of equal starts, the span that arrived first in its millisecond comes first.
                Some(index) if lists.spans[index].start_ms() == span.start_ms() => {
                    lists.spans[index] = span;
                }
                Some(index) => {
                    lists.spans.remove(index);
                    lists.spans.push(span);
                }
                None => lists.spans.push(span),
            }
        }
        Ok(Ack { seq: 0 })
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        self.0.lock().unwrap().evaluations.extend(evaluations);
        Ok(Ack { seq: 0 })
    }
}

impl SpanReader for NaiveStore {
    fn search(&self, search: &Search, visit: SpanVisitor<'_>) -> Result<SearchOutcome, StoreError> {
        let all = self.0.lock().unwrap().joined();
        let mut matching: Vec<_> = all
            .iter()
            .filter(|(_, span)| matches(search, span, &all))
            .cloned()
            .collect();
        if search.newest_first {
            matching.reverse();
        }
        let mut last = None;
        for (count, (position, span)) in matching
            .into_iter()
            .filter(|(position, _)| match search.after {
                None => true,
                Some(after) if search.newest_first => *position < after,
                Some(after) => *position > after,
            })
            .enumerate()
        {
            if count >= search.limit || visit(span) == ControlFlow::Break(()) {
                return Ok(SearchOutcome {
                    next: last.or(search.after),
                    partial: false,
                });
            }
            last = Some(position);
        }
        Ok(SearchOutcome::FINISHED)
    }

    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError> {
        let all = self.0.lock().unwrap().joined();
        let spans = all.into_iter().map(|(_, span)| span);
        Ok(spans.filter(|span| span.trace_id == *id).collect())
    }

    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError> {
        let spans = self.trace(trace)?;
        Ok(spans.into_iter().find(|other| other.span_id == *span))
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        let lists = self.0.lock().unwrap();
        let mut traces: Vec<_> = lists.spans.iter().map(|span| &span.trace_id).collect();
        traces.sort();
        traces.dedup();
        let mut keys: Vec<_> = lists.evaluations.iter().map(evaluation_key).collect();
        keys.sort_by_key(|key| format!("{key:?}"));
        keys.dedup();
        Ok(StoreStats {
            spans: lists.spans.len() as u64,
            traces: traces.len() as u64,
            evaluations: keys.len() as u64,
            newest_start_ns: lists.spans.iter().map(|span| span.start_ns).max(),
        })
    }

    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredEvaluation>, StoreError> {
        let lists = self.0.lock().unwrap();
        let mut newest: Vec<StoredEvaluation> = Vec::new();
        for (arrival, targeted) in (0..).zip(&lists.evaluations) {
            let index = newest
                .iter()
                .position(|stored| evaluation_key(&stored.evaluation) == evaluation_key(targeted));
            let stored_ms = index.map(|index| newest[index].evaluation.evaluation.timestamp_ms);
            if stored_ms.is_some_and(|stored| stored > targeted.evaluation.timestamp_ms) {
                continue;
            }
            if let Some(index) = index {
                newest.remove(index);
            }
            newest.push(StoredEvaluation {
                arrival,
                evaluation: targeted.clone(),
            });
        }
        newest.retain(|stored| after.is_none_or(|after| stored.arrival > after));
        newest.truncate(limit);
        Ok(newest)
    }
}

/// Target, kind and label: one evaluation is stored for each.
fn evaluation_key(targeted: &TargetedEvaluation) -> (String, EventKind, String) {
    let evaluation = &targeted.evaluation;
    (
        targeted.key(),
        evaluation.event_kind,
        evaluation.label.clone(),
    )
}

impl Maintenance for NaiveStore {
    fn purge_spans(&self, step: SpanPurgeStep) -> Result<SpanPurgeOutcome, StoreError> {
        let mut lists = self.0.lock().unwrap();
        let mut outcome = SpanPurgeOutcome::default();
        for (_, span) in lists.joined() {
            if span.start_ns >= step.before_ns {
                break;
            }
            if outcome.spans.len() == step.limit {
                outcome.more = true;
                break;
            }
            outcome.newest_start_ns = Some(span.start_ns);
            outcome.spans.push((span.trace_id, span.span_id));
        }
        let is_removed = |trace: &TraceId, span: &SpanId| {
            let mut removed = outcome.spans.iter();
            removed
                .any(|(removed_trace, removed_span)| (removed_trace, removed_span) == (trace, span))
        };
        lists
            .spans
            .retain(|span| !is_removed(&span.trace_id, &span.span_id));
        lists.evaluations.retain(|targeted| match &targeted.target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => !is_removed(trace, span_id),
            _ => true,
        });
        Ok(outcome)
    }

    fn purge_evaluations(
        &self,
        step: EvaluationPurgeStep,
    ) -> Result<EvaluationPurgeOutcome, StoreError> {
        let mut lists = self.0.lock().unwrap();
        let spans = lists.spans.clone();
        lists.evaluations.retain(|targeted| {
            let has_target = match &targeted.target {
                EvaluationTarget::Span { trace_id, span_id } => spans.iter().any(|span| {
                    span.span_id == *span_id
                        && trace_id
                            .as_ref()
                            .is_none_or(|trace| *trace == span.trace_id)
                }),
                EvaluationTarget::Trace(trace) => spans.iter().any(|span| span.trace_id == *trace),
                EvaluationTarget::Session(session) => spans
                    .iter()
                    .any(|span| span.session_id.as_deref() == Some(session)),
                EvaluationTarget::Tag { .. } | EvaluationTarget::JoinKey(_) => true,
            };
            has_target || targeted.evaluation.timestamp_ms >= step.before_ms
        });
        Ok(EvaluationPurgeOutcome::default())
    }

    fn release_space(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn usage(&self) -> Result<StorageUsage, StoreError> {
        let lists = self.0.lock().unwrap();
        Ok(StorageUsage {
            oldest_start_ns: lists.spans.iter().map(|span| span.start_ns).min(),
            ..StorageUsage::default()
        })
    }

    fn check(&self, _step: CheckStep) -> Result<CheckOutcome, StoreError> {
        Ok(CheckOutcome::default())
    }
}

fn matches(search: &Search, span: &Span, all: &[(SpanPosition, Span)]) -> bool {
    let filters = &search.filters;
    let is = |filter: &Option<String>, value: Option<&str>| {
        filter
            .as_deref()
            .is_none_or(|expected| value == Some(expected))
    };
    let structured = search.window.contains_ms(span.start_ms())
        && is(&filters.ml_app, Some(&span.ml_app))
        && is(&filters.span_kind, Some(span.kind.as_str()))
        && is(&filters.span_name, Some(&span.name))
        && is(&filters.trace_id, Some(span.trace_id.as_str()))
        && is(&filters.span_id, Some(span.span_id.as_str()))
        && is(&filters.session_id, span.session_id.as_deref())
        && is(&search.apm_trace_id, span.apm_trace_id.as_deref())
        && (!filters.root_spans_only || span.is_root())
        && filters
            .tags
            .iter()
            .all(|(key, value)| span.tags.contains(&format!("{key}:{value}")));
    let Some(query) = &search.query else {
        return structured;
    };
    let trace: Vec<&Span> = all
        .iter()
        .map(|(_, other)| other)
        .filter(|other| other.trace_id == span.trace_id)
        .collect();
    let rollup = span.is_root().then(|| TraceRollup::from_spans(&trace));
    let descendants: Vec<&Span> = trace
        .iter()
        .copied()
        .filter(|other| is_descendant(other, span, &trace))
        .collect();
    structured
        && query.matches(&SpanContext {
            span,
            rollup: rollup.as_ref(),
            descendants: &descendants,
        })
}

fn is_descendant(span: &Span, ancestor: &Span, trace: &[&Span]) -> bool {
    let mut current = span;
    for _ in 0..trace.len() {
        let Some(parent) = &current.parent_id else {
            return false;
        };
        if *parent == ancestor.span_id {
            return current.span_id != ancestor.span_id && span.span_id != ancestor.span_id;
        }
        let Some(next) = trace.iter().find(|other| other.span_id == *parent) else {
            return false;
        };
        current = next;
    }
    false
}
