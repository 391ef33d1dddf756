//! Keeping a store in order: what is removed, how much room is used, what a check finds.
//!
//! Everything here is done in steps that are small enough to stand between other writes: whoever
//! drives a purge or a check asks for one step after the other, and ingest goes on between them.

use serde::{Deserialize, Serialize};

use super::TargetedEvaluation;
use llmobs_core::model::{SpanId, TraceId};

/// One step of a purge: the oldest spans that began before a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeStep {
    /// Spans that began before this go, in nanoseconds since the Unix epoch.
    pub before_ns: i64,
    /// At most so many in this step.
    pub limit: usize,
}

/// What a step removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// The spans that went, the oldest first.
    pub spans: Vec<(TraceId, SpanId)>,
    /// Start of the newest of them, in nanoseconds since the Unix epoch.
    pub newest_start_ns: Option<i64>,
    /// How many evaluations and feedback entries went with them.
    pub evaluations: u64,
    /// Whether more may be left to remove.
    pub more: bool,
}

/// One step through the evaluations in the order of their keys: those made before a moment go, if
/// what they are about is gone.
///
/// Those joined by a tag or by a `feedback_join_key` stay: whether a span still carries it would
/// take the reading of every span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepStep {
    /// Evaluations made before this may go, in milliseconds since the Unix epoch.
    pub before_ms: i64,
    /// Go on behind this key; `None` to begin.
    pub after: Option<i64>,
    /// Look at no more than so many in this step.
    pub limit: usize,
}

/// What a step through the evaluations did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many went.
    pub evaluations: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<i64>,
}

/// How much room a store takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of the file that hold something.
    pub used_bytes: u64,
    /// Bytes of the file that hold nothing and are used again first.
    pub free_bytes: u64,
    /// Bytes of the log of latest writes beside the file.
    pub log_bytes: u64,
    /// Bytes of the index that is derived from the store.
    pub index_bytes: u64,
    /// Start of the oldest span, in nanoseconds since the Unix epoch.
    pub oldest_start_ns: Option<i64>,
    /// Number of the latest change.
    pub last_change: i64,
}

/// An evaluation with its place in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrivedEvaluation {
    /// Its place.
    pub arrival: i64,
    /// What was judged, and how.
    pub evaluation: TargetedEvaluation,
}

/// One step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStep {
    /// The engine's own check of its file. The one step that can take long.
    File,
    /// Some spans behind a key: there, readable, and as their rows say.
    Spans {
        /// Go on behind this key; `None` to begin.
        after: Option<i64>,
    },
    /// Some evaluations behind a key.
    Evaluations {
        /// Go on behind this key; `None` to begin.
        after: Option<i64>,
    },
    /// The list of changes that an index follows.
    Changes,
    /// The index against the store.
    Index,
}

/// What a step of a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How many things were looked at.
    pub looked_at: u64,
    /// Where to go on; `None` at the end of this kind.
    pub next: Option<i64>,
    /// What is wrong, in words that hold nothing of the spans but ids.
    pub faults: Vec<String>,
}
