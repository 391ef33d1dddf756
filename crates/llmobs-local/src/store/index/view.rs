//! A consistent view of the index.

use std::sync::Arc;

use tantivy::Searcher;

use super::schema::IndexFields;
use crate::store::outbox::OutboxState;

/// The state of the index after one of its commits.
#[derive(Clone)]
pub(in crate::store) struct IndexView {
    pub(super) searcher: Searcher,
    pub(super) fields: IndexFields,
    /// The last change that the view contains.
    pub(super) seq: i64,
    /// The later changes, as far as they are in memory.
    pub(super) outbox: Arc<OutboxState>,
}
