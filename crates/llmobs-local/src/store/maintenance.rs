//! Maintenance of a span store: removal of data, storage usage, checks.
//!
//! All work is done in steps that are small enough to run between other writes. The caller of a
//! purge or a check asks for one step after the other, and ingest continues between them.

use serde::{Deserialize, Serialize};

use super::{IndexProgress, StoreError};
use llmobs_core::model::{SpanId, TraceId};

/// Maintains a span store. Methods block.
pub trait Maintenance: Send + Sync {
    /// Removes some of the oldest spans, with their content and the evaluations of each of them.
    fn purge_spans(&self, step: SpanPurgeStep) -> Result<SpanPurgeOutcome, StoreError>;

    /// Looks at the next evaluations in key order and removes those whose target is missing.
    fn purge_evaluations(
        &self,
        step: EvaluationPurgeStep,
    ) -> Result<EvaluationPurgeOutcome, StoreError>;

    /// Returns some unused space to the storage. `true` means that more can be returned.
    fn release_space(&self) -> Result<bool, StoreError>;

    /// The space that the store occupies.
    fn usage(&self) -> Result<StorageUsage, StoreError>;

    /// Runs one step of a check.
    fn check(&self, step: CheckStep) -> Result<CheckOutcome, StoreError>;

    /// Starts to rebuild the derived index, if there is one. [`Maintenance::index_progress`]
    /// reports the progress.
    fn reindex(&self) {}

    /// The progress of the derived index; `None` when there is none.
    fn index_progress(&self) -> Option<IndexProgress> {
        None
    }
}

/// One step of a span purge: the oldest spans that started before a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanPurgeStep {
    /// Remove spans that started before this, in nanoseconds since the Unix epoch.
    pub before_ns: i64,
    /// Maximum number of spans in this step.
    pub limit: usize,
}

/// What a step of a span purge removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanPurgeOutcome {
    /// The removed spans, the oldest first.
    pub spans: Vec<(TraceId, SpanId)>,
    /// Start of the newest removed span, in nanoseconds since the Unix epoch.
    pub newest_start_ns: Option<i64>,
    /// Number of evaluations and feedback entries removed with the spans.
    pub evaluations: u64,
    /// Whether more spans may be left to remove.
    pub more: bool,
}

/// One step through the evaluations in key order. It removes evaluations that were made before a
/// moment and whose span, trace or session is missing.
///
/// Evaluations that join by a tag or by a `feedback_join_key` are never removed: to find out
/// whether a span still has the tag, every span would have to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationPurgeStep {
    /// Remove only evaluations made before this, in milliseconds since the Unix epoch.
    pub before_ms: i64,
    /// Continue after this key; `None` starts from the first.
    pub after: Option<i64>,
    /// Maximum number of evaluations to look at in this step.
    pub limit: usize,
}

/// What a step of an evaluation purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvaluationPurgeOutcome {
    /// Number of removed evaluations.
    pub evaluations: u64,
    /// The key to continue after; `None` at the end.
    pub next: Option<i64>,
}

/// The space that a store occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageUsage {
    /// Bytes that hold data.
    pub used_bytes: u64,
    /// Allocated bytes that hold no data. The store reuses them first.
    pub free_bytes: u64,
    /// Bytes of the log of recent writes.
    pub log_bytes: u64,
    /// Bytes of the derived index.
    pub index_bytes: u64,
    /// Start of the oldest span, in nanoseconds since the Unix epoch.
    pub oldest_start_ns: Option<i64>,
    /// Sequence number of the latest change.
    pub last_change: i64,
}

/// One step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStep {
    /// The engine's own check of its storage. The only step that can take long.
    #[serde(rename = "file")]
    Storage,
    /// Some spans: present, readable, and consistent with the columns derived from them.
    Spans {
        /// Continue after this key; `None` starts from the first.
        after: Option<i64>,
    },
    /// Some evaluations.
    Evaluations {
        /// Continue after this key; `None` starts from the first.
        after: Option<i64>,
    },
    /// The list of changes that a derived index reads.
    Changes,
    /// The derived index compared with the store.
    Index,
}

/// What a step of a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Number of checked items.
    #[serde(rename = "looked_at")]
    pub checked: u64,
    /// The key to continue after; `None` at the end of this kind of step.
    pub next: Option<i64>,
    /// The faults, as sentences that contain nothing of the spans but ids.
    pub faults: Vec<String>,
}
