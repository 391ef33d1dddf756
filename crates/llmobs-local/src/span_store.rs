//! The span store of a backend: an engine, with the members of experiments kept up to date.

use std::ops::Deref;
use std::sync::Arc;

use crate::control::{ControlStore, ExperimentMembers, NewMembers};
use crate::store::{
    Ack, CheckOutcome, CheckStep, Maintenance, SpanEngine, SpanPurgeOutcome, SpanPurgeStep,
    SpanReader, StoreError, TargetedEvaluation,
};
use llmobs_core::model::Span;

/// The span store of a backend. Dereferences to its [`SpanReader`].
#[derive(Clone)]
pub(crate) struct SpanStore {
    engine: Arc<dyn SpanEngine>,
    members: Arc<ExperimentMembers>,
}

impl SpanStore {
    pub(crate) fn new(engine: Arc<dyn SpanEngine>, control: Arc<dyn ControlStore>) -> Self {
        Self {
            engine,
            members: Arc::new(ExperimentMembers::new(control)),
        }
    }

    /// See [`SpanWriter::append`](crate::store::SpanWriter::append).
    pub(crate) fn append(&self, spans: Vec<Span>) -> Result<Ack, StoreError> {
        let members = NewMembers::from_spans(&spans);
        let ack = self.engine.append(spans)?;
        self.members.on_append(members)?;
        Ok(ack)
    }

    /// See [`SpanWriter::attach_evaluations`](crate::store::SpanWriter::attach_evaluations).
    pub(crate) fn attach_evaluations(
        &self,
        evaluations: Vec<TargetedEvaluation>,
    ) -> Result<Ack, StoreError> {
        self.engine.attach_evaluations(evaluations)
    }

    /// See [`Maintenance::purge_spans`].
    pub(crate) fn purge_spans(&self, step: SpanPurgeStep) -> Result<SpanPurgeOutcome, StoreError> {
        let outcome = self.engine.purge_spans(step)?;
        let first_start_ns = if outcome.more {
            None
        } else {
            let oldest = self.engine.usage()?.oldest_start_ns;
            Some(oldest.map_or(step.before_ns, |oldest| oldest.min(step.before_ns)))
        };
        self.members.on_purge(&outcome, first_start_ns)?;
        Ok(outcome)
    }

    /// See [`Maintenance::check`]. Includes the control store and the members of experiments.
    pub(crate) fn check(&self, step: CheckStep) -> Result<CheckOutcome, StoreError> {
        let mut outcome = self.engine.check(step)?;
        match step {
            CheckStep::Storage => self.members.check_storage(&mut outcome)?,
            CheckStep::Changes => {
                self.members
                    .check_members(self.engine.as_ref(), &mut outcome)?;
            }
            CheckStep::Spans { .. } | CheckStep::Evaluations { .. } | CheckStep::Index => {}
        }
        Ok(outcome)
    }

    /// The other maintenance work.
    pub(crate) fn maintenance(&self) -> &dyn Maintenance {
        self.engine.as_ref()
    }
}

impl Deref for SpanStore {
    type Target = dyn SpanReader;

    fn deref(&self) -> &Self::Target {
        self.engine.as_ref()
    }
}
