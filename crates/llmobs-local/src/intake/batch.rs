//! The spans, updates and evaluations of one request, after mapping.

use serde_json::Value;

use super::update::{self, SpanUpdate};
use crate::http::ApiError;
use crate::span_store::SpanStore;
use crate::store::TargetedEvaluation;
use llmobs_core::model::Span;

/// The items of a request, mapped but not stored.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) spans: Vec<Span>,
    /// Updates of stored spans.
    pub(super) updates: Vec<SpanUpdate>,
    pub(crate) evaluations: Vec<TargetedEvaluation>,
    /// The evaluations as they were sent, for the response.
    pub(super) echo: Vec<Value>,
    /// One reason per refused item.
    pub(crate) refused: Vec<String>,
}

impl Batch {
    /// Appends the items of another batch and returns the reasons for its refused items.
    pub(crate) fn append(
        &mut self,
        other: Batch,
        store: &SpanStore,
    ) -> Result<Vec<String>, ApiError> {
        let mut refused = other.refused;
        self.spans.extend(other.spans);
        update::apply(other.updates, store, &mut self.spans, &mut refused)?;
        self.evaluations.extend(other.evaluations);
        Ok(refused)
    }
}
