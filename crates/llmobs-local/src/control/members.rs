//! Notes which spans belong to which experiment, as they are stored.
//!
//! Spans of an experiment arrive like any others and say by a tag what they belong to. Reading an
//! experiment must not look through all spans ever kept, so their memberships are kept apart.

use std::sync::Arc;

use super::{Change, ControlStore, MEMBERS_AT_ONCE, Member};
use crate::store::{
    Ack, ArrivedEvaluation, CheckStep, Checked, IndexProgress, Outcome, PurgeStep, Purged, Search,
    SpanStore, StoreError, StoreStats, SweepStep, Swept, TargetedEvaluation, Usage, Visit,
};
use llmobs_core::analysis::aggregate::RowAggregator;
use llmobs_core::model::{Span, SpanId, SpanKind, TraceId};
use llmobs_core::query::Query;

/// A span store whose experiment spans are noted in the control plane.
pub(crate) struct Membered {
    spans: Arc<dyn SpanStore>,
    control: Arc<dyn ControlStore>,
}

impl Membered {
    pub(crate) fn new(spans: Arc<dyn SpanStore>, control: Arc<dyn ControlStore>) -> Self {
        Self { spans, control }
    }
}

impl SpanStore for Membered {
    fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let members: Vec<Change> = spans
            .iter()
            .filter_map(member_of)
            .map(Change::Member)
            .collect();
        let ack = self.spans.append(spans)?;
        // Acknowledged only with both: a sender that hears of a failure sends the spans again.
        if !members.is_empty() {
            self.control.apply(members)?;
        }
        Ok(ack)
    }

    fn attach_evaluations(&self, evaluations: Vec<TargetedEvaluation>) -> Result<Ack, StoreError> {
        self.spans.attach_evaluations(evaluations)
    }

    fn search(&self, search: &Search, each: Visit<'_>) -> Result<Outcome, StoreError> {
        self.spans.search(search, each)
    }

    fn gather(
        &self,
        search: &Search,
        buckets: &[Query],
        rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, StoreError> {
        self.spans.gather(search, buckets, rows)
    }

    fn trace(&self, id: &TraceId) -> Result<Vec<Span>, StoreError> {
        self.spans.trace(id)
    }

    fn span(&self, trace: &TraceId, span: &SpanId) -> Result<Option<Span>, StoreError> {
        self.spans.span(trace, span)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.spans.stats()
    }

    fn purge(&self, step: PurgeStep) -> Result<Purged, StoreError> {
        let purged = self.spans.purge(step)?;
        let mut changes: Vec<Change> = purged
            .spans
            .iter()
            .map(|(trace, span)| Change::ForgetMember {
                trace: trace.to_string(),
                span: span.to_string(),
            })
            .collect();
        if !purged.more {
            // Also those whose spans went just before a process died.
            let oldest = self.spans.usage()?.oldest_start_ns;
            let start_ns = oldest.map_or(step.before_ns, |oldest| oldest.min(step.before_ns));
            changes.push(Change::ForgetMembersBefore { start_ns });
        }
        self.control.apply(changes)?;
        Ok(purged)
    }

    fn sweep(&self, step: SweepStep) -> Result<Swept, StoreError> {
        self.spans.sweep(step)
    }

    fn give_back(&self) -> Result<bool, StoreError> {
        self.spans.give_back()
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.spans.usage()
    }

    fn evaluations(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ArrivedEvaluation>, StoreError> {
        self.spans.evaluations(after, limit)
    }

    fn check(&self, step: CheckStep) -> Result<Checked, StoreError> {
        let mut checked = self.spans.check(step)?;
        match step {
            CheckStep::File => {
                let faults = self.control.check()?;
                let told = faults
                    .into_iter()
                    .map(|fault| format!("control.db: {fault}"));
                checked.faults.extend(told);
            }
            CheckStep::Changes => self.check_members(&mut checked)?,
            _ => {}
        }
        Ok(checked)
    }

    fn reindex(&self) {
        self.spans.reindex();
    }

    fn index(&self) -> Option<IndexProgress> {
        self.spans.index()
    }
}

impl Membered {
    /// Every member of an experiment is a span that is kept.
    fn check_members(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let mut after: Option<(String, String)> = None;
        loop {
            let place = after.as_ref();
            let place = place.map(|(trace, span)| (trace.as_str(), span.as_str()));
            let members = self.control.members(place)?;
            for (trace, span) in &members {
                let (trace, span) = (TraceId::from(trace.as_str()), SpanId::from(span.as_str()));
                checked.looked_at += 1;
                if self.spans.span(&trace, &span)?.is_none() {
                    checked.faults.push(format!(
                        "an experiment counts span {span} of trace {trace}, which is not kept"
                    ));
                }
            }
            if members.len() < MEMBERS_AT_ONCE {
                return Ok(());
            }
            after = members.into_iter().next_back();
        }
    }
}

/// What a span says of its experiment; `None` when it belongs to none.
fn member_of(span: &Span) -> Option<Member> {
    if span.scope.as_deref() != Some("experiments") {
        return None;
    }
    let metric = |name: &str| span.metrics.get(name).copied().unwrap_or(0.0);
    let (input, output) = (metric("input_tokens"), metric("output_tokens"));
    // Agents' metrics repeat those of the model calls below them.
    let counts = matches!(span.kind, SpanKind::Llm | SpanKind::Embedding);
    let only = |number: f64| if counts { number } else { 0.0 };
    let total = span.metrics.get("total_tokens").copied();
    Some(Member {
        experiment: span.tag("experiment_id")?.to_owned(),
        trace: span.trace_id.as_str().to_owned(),
        span: span.span_id.as_str().to_owned(),
        run: span.kind == SpanKind::Experiment,
        start_ns: span.start_ns,
        duration_ns: span.duration_ns,
        failed: span.is_error(),
        input_tokens: only(input),
        output_tokens: only(output),
        total_tokens: only(total.unwrap_or(input + output)),
        cost_usd: only(span.cost_usd().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spans_of_experiments_are_members_and_only_model_calls_cost() {
        let mut span = Span {
            kind: SpanKind::Agent,
            tags: vec!["experiment_id:e1".into()],
            metrics: [("input_tokens".to_owned(), 5.0)].into(),
            ..Span::default()
        };
        assert_eq!(member_of(&span), None);
        span.scope = Some("experiments".into());
        assert_eq!(member_of(&span).unwrap().total_tokens, 0.0);
        span.kind = SpanKind::Llm;
        let member = member_of(&span).unwrap();
        assert_eq!((member.total_tokens, member.run), (5.0, false));
    }
}
