//! Records which spans belong to which experiment, as they are stored.
//!
//! Spans of an experiment arrive like any others and name the experiment in a tag. Reading an
//! experiment must not scan all spans of a store, so its members are listed in the control store.

use std::sync::Arc;

use super::{Change, ControlStore, MAX_MEMBERS_PER_PAGE, Member};
use crate::store::{CheckOutcome, SpanPurgeOutcome, SpanReader, StoreError};
use llmobs_core::model::{Span, SpanId, SpanKind, TraceId};

/// Follows the writes of a span store and keeps the members of experiments up to date.
pub(crate) struct ExperimentMembers {
    control: Arc<dyn ControlStore>,
}

/// The members among spans that are about to be appended.
pub(crate) struct NewMembers(Vec<Change>);

impl NewMembers {
    pub(crate) fn from_spans(spans: &[Span]) -> Self {
        let members = spans.iter().filter_map(member_of);
        Self(members.map(Change::PutMember).collect())
    }
}

impl ExperimentMembers {
    pub(crate) fn new(control: Arc<dyn ControlStore>) -> Self {
        Self { control }
    }

    /// Records the members of an append, after the spans are stored and before the sender is
    /// acknowledged: a sender that receives an error sends the spans again.
    pub(crate) fn on_append(&self, members: NewMembers) -> Result<(), StoreError> {
        if members.0.is_empty() {
            return Ok(());
        }
        self.control.apply(members.0)
    }

    /// Removes the members of purged spans. After the last step of a purge, `first_start_ns` is the
    /// earliest start that a stored span can have: it also covers spans that were removed just
    /// before a process died.
    pub(crate) fn on_purge(
        &self,
        outcome: &SpanPurgeOutcome,
        first_start_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        let removed = outcome.spans.iter();
        let mut changes: Vec<Change> = removed
            .map(|(trace, span)| Change::RemoveMember {
                trace: trace.to_string(),
                span: span.to_string(),
            })
            .collect();
        changes.extend(first_start_ns.map(|start_ns| Change::RemoveMembersBefore { start_ns }));
        self.control.apply(changes)
    }

    /// Adds the faults of the storage of the control store.
    pub(crate) fn check_storage(&self, outcome: &mut CheckOutcome) -> Result<(), StoreError> {
        outcome.faults.extend(self.control.check()?);
        Ok(())
    }

    /// Checks that the span of every member is stored.
    pub(crate) fn check_members(
        &self,
        spans: &dyn SpanReader,
        outcome: &mut CheckOutcome,
    ) -> Result<(), StoreError> {
        let mut after: Option<(String, String)> = None;
        loop {
            let position = after.as_ref();
            let position = position.map(|(trace, span)| (trace.as_str(), span.as_str()));
            let members = self.control.members(position)?;
            for (trace, span) in &members {
                let (trace, span) = (TraceId::from(trace.as_str()), SpanId::from(span.as_str()));
                outcome.checked += 1;
                if spans.span(&trace, &span)?.is_none() {
                    outcome.faults.push(format!(
                        "an experiment counts span {span} of trace {trace}, which is not stored"
                    ));
                }
            }
            if members.len() < MAX_MEMBERS_PER_PAGE {
                return Ok(());
            }
            after = members.into_iter().next_back();
        }
    }
}

/// The member that a span is; `None` if it belongs to no experiment.
fn member_of(span: &Span) -> Option<Member> {
    if span.scope.as_deref() != Some("experiments") {
        return None;
    }
    let metric = |name: &str| span.metrics.get(name).copied().unwrap_or(0.0);
    let (input, output) = (metric("input_tokens"), metric("output_tokens"));
    // The metrics of an agent repeat those of its model calls.
    let is_model_call = matches!(span.kind, SpanKind::Llm | SpanKind::Embedding);
    let of_model_call = |number: f64| if is_model_call { number } else { 0.0 };
    let total = span.metrics.get("total_tokens").copied();
    Some(Member {
        experiment: span.tag("experiment_id")?.to_owned(),
        trace: span.trace_id.as_str().to_owned(),
        span: span.span_id.as_str().to_owned(),
        run: span.kind == SpanKind::Experiment,
        start_ns: span.start_ns,
        duration_ns: span.duration_ns,
        failed: span.is_error(),
        input_tokens: of_model_call(input),
        output_tokens: of_model_call(output),
        total_tokens: of_model_call(total.unwrap_or(input + output)),
        cost_usd: of_model_call(span.cost_usd().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_only_on_model_calls_of_experiments() {
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
