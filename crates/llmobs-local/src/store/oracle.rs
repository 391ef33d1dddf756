//! The naive store: a list, and every question answered by looking at all of it.

use std::ops::ControlFlow;
use std::sync::Mutex;

use super::evaluations::{keys_of_span, put};
use super::{
    Ack, ArrivedEvaluation, CheckStep, Checked, EvaluationTarget, Outcome, Position, PurgeStep,
    Purged, Search, SpanStore, StoreError, StoreStats, SweepStep, Swept, TargetedEvaluation, Usage,
    Visit,
};
use llmobs_core::model::{Span, SpanId, TraceId, TraceRollup};
use llmobs_core::query::SpanContext;

#[derive(Default)]
pub(super) struct NaiveStore(Mutex<Kept>);

#[derive(Default, Clone)]
struct Kept {
    spans: Vec<Span>,
    evaluations: Vec<TargetedEvaluation>,
}

impl Kept {
    fn joined(&self) -> Vec<(Position, Span)> {
        let tag_keys: Vec<&str> = self
            .evaluations
            .iter()
            .filter_map(TargetedEvaluation::tag_key)
            .collect();
        let mut joined: Vec<_> = self
            .spans
            .iter()
            .enumerate()
            .map(|(at, span)| {
                let mut span = span.clone();
                let keys = keys_of_span(&span, tag_keys.iter().copied());
                for targeted in &self.evaluations {
                    if keys.contains(&targeted.key()) {
                        put(&mut span, targeted.evaluation.clone());
                    }
                }
                let position = Position {
                    start_ns: span.start_ns,
                    id: at as i64,
                };
                (position, span)
            })
            .collect();
        joined.sort_by_key(|(position, _)| *position);
        joined
    }
}

impl SpanStore for NaiveStore {
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let mut kept = self.0.lock().unwrap();
        for span in spans {
            let same = kept
                .spans
                .iter()
                .position(|old| old.trace_id == span.trace_id && old.span_id == span.span_id);
            match same {
                // Of equal starts the one that came first to its millisecond stands first.
                Some(at) if kept.spans[at].start_ms() == span.start_ms() => kept.spans[at] = span,
                Some(at) => {
                    kept.spans.remove(at);
                    kept.spans.push(span);
                }
                None => kept.spans.push(span),
            }
        }
        Ok(Ack { seq: 0 })
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        self.0.lock().unwrap().evaluations.extend(evaluations);
        Ok(Ack { seq: 0 })
    }

    fn search(&self, search: &Search, each: Visit<'_>) -> Result<Outcome, StoreError> {
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
            if count >= search.limit || each(span) == ControlFlow::Break(()) {
                return Ok(Outcome {
                    next: last.or(search.after),
                    partial: false,
                });
            }
            last = Some(position);
        }
        Ok(Outcome {
            next: None,
            partial: false,
        })
    }

    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError> {
        let all = self.0.lock().unwrap().joined();
        let spans = all.into_iter().map(|(_, span)| span);
        Ok(spans.filter(|span| span.trace_id == *id).collect())
    }

    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError> {
        let spans = self.trace(trace)?;
        Ok(spans.into_iter().find(|kept| kept.span_id == *span))
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut traces: Vec<_> = kept.spans.iter().map(|span| &span.trace_id).collect();
        traces.sort();
        traces.dedup();
        let mut targets: Vec<_> = kept
            .evaluations
            .iter()
            .map(|kept| {
                let evaluation = &kept.evaluation;
                (kept.key(), evaluation.event_kind, evaluation.label.clone())
            })
            .collect();
        targets.sort_by_key(|target| format!("{target:?}"));
        targets.dedup();
        Ok(StoreStats {
            spans: kept.spans.len() as u64,
            traces: traces.len() as u64,
            evaluations: targets.len() as u64,
            newest_start_ns: kept.spans.iter().map(|span| span.start_ns).max(),
        })
    }

    fn purge(&self, step: PurgeStep) -> Result<Purged, StoreError> {
        let mut kept = self.0.lock().unwrap();
        let joined = kept.joined();
        let mut purged = Purged::default();
        for (_, span) in joined {
            if span.start_ns >= step.before_ns {
                break;
            }
            if purged.spans.len() == step.limit {
                purged.more = true;
                break;
            }
            purged.newest_start_ns = Some(span.start_ns);
            purged.spans.push((span.trace_id, span.span_id));
        }
        let gone = purged.spans.clone();
        let is_gone = |trace: &TraceId, span: &SpanId| {
            gone.iter()
                .any(|(gone_trace, gone_span)| (gone_trace, gone_span) == (trace, span))
        };
        kept.spans
            .retain(|span| !is_gone(&span.trace_id, &span.span_id));
        kept.evaluations.retain(|targeted| match &targeted.target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => !is_gone(trace, span_id),
            _ => true,
        });
        Ok(purged)
    }

    fn sweep(&self, step: SweepStep) -> Result<Swept, StoreError> {
        let mut kept = self.0.lock().unwrap();
        let spans = kept.spans.clone();
        kept.evaluations.retain(|targeted| {
            let there = match &targeted.target {
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
            there || targeted.evaluation.timestamp_ms >= step.before_ms
        });
        Ok(Swept::default())
    }

    fn give_back(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        let kept = self.0.lock().unwrap();
        Ok(Usage {
            oldest_start_ns: kept.spans.iter().map(|span| span.start_ns).min(),
            ..Usage::default()
        })
    }

    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ArrivedEvaluation>, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut newest: Vec<ArrivedEvaluation> = Vec::new();
        for (arrival, targeted) in (0..).zip(&kept.evaluations) {
            let judged = |other: &TargetedEvaluation| {
                let evaluation = &other.evaluation;
                (other.key(), evaluation.event_kind, evaluation.label.clone())
            };
            let at = newest
                .iter()
                .position(|known| judged(&known.evaluation) == judged(targeted));
            let known_ms = at.map(|at| newest[at].evaluation.evaluation.timestamp_ms);
            if known_ms.is_some_and(|known| known > targeted.evaluation.timestamp_ms) {
                continue;
            }
            if let Some(at) = at {
                newest.remove(at);
            }
            newest.push(ArrivedEvaluation {
                arrival,
                evaluation: targeted.clone(),
            });
        }
        newest.retain(|evaluation| after.is_none_or(|after| evaluation.arrival > after));
        newest.truncate(limit);
        Ok(newest)
    }

    fn check(&self, _step: CheckStep) -> Result<Checked, StoreError> {
        Ok(Checked::default())
    }
}

fn matches(search: &Search, span: &Span, all: &[(Position, Span)]) -> bool {
    let filters = &search.filters;
    let is = |filter: &Option<String>, found: Option<&str>| {
        filter.as_deref().is_none_or(|wanted| found == Some(wanted))
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
        .filter(|other| is_below(other, span, &trace))
        .collect();
    structured
        && query.matches(&SpanContext {
            span,
            rollup: rollup.as_ref(),
            descendants: &descendants,
        })
}

fn is_below(span: &Span, top: &Span, trace: &[&Span]) -> bool {
    let mut at = span;
    for _ in 0..trace.len() {
        let Some(parent) = &at.parent_id else {
            return false;
        };
        if *parent == top.span_id {
            return at.span_id != top.span_id && span.span_id != top.span_id;
        }
        let Some(next) = trace.iter().find(|other| other.span_id == *parent) else {
            return false;
        };
        at = next;
    }
    false
}
