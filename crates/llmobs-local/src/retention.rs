//! Retention: removes data by age or size, once by `local purge`, or continuously while a process
//! with a [`Retention`] owns the data.
//!
//! A [`Purge`] runs in steps. Each step is a small write, so that ingest continues between them.
//! Rules:
//! - Spans are removed by start, the oldest first, each with its content and evaluations. A trace
//!   that starts before the limit keeps its later spans.
//! - By size, spans are removed until the used bytes are within the limit. The search index does not
//!   count: it follows later, so its size does not reflect the removal.
//! - Evaluations made before the limit are removed when their span, trace or session is missing.
//! - Runs of experiments are removed with their spans. The experiment and its summary stay.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span_store::SpanStore;
use super::store::{EvaluationPurgeStep, SpanPurgeStep, StoreError};

/// Limits of stored data. By default nothing is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Remove spans that started longer ago than this.
    pub max_age: Option<Duration>,
    /// Remove the oldest spans while the store uses more bytes than this.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Whether nothing is ever removed.
    pub fn keeps_all(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none()
    }

    /// The purge that removes what exceeds the limits now.
    pub(super) fn purge(&self, now_ms: i64) -> Purge {
        let before_ms = self
            .max_age
            .map(|age| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        Purge::new(before_ms, self.max_bytes, SpaceRelease::Surplus)
    }
}

/// How much free space the last phase of a purge returns to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SpaceRelease {
    /// All of it.
    All,
    /// All of it, if it is more than a quarter of the storage. Less is reused soon, and moving data
    /// for it would not pay off.
    Surplus,
}

/// A purge and its progress. `local purge` and the process that owns the data exchange it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purge {
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
    #[serde(rename = "give_back")]
    space_release: SpaceRelease,
    phase: PurgePhase,
    /// Evaluations without a target are removed if they were made before this.
    #[serde(rename = "cut_ms")]
    evaluations_before_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PurgePhase {
    Spans,
    Evaluations { after: Option<i64> },
    Space,
    Done,
}

/// Numbers of removed items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemovedCounts {
    pub(super) spans: u64,
    pub(super) evaluations: u64,
}

/// Spans removed, or evaluations looked at, in one step.
const ITEMS_PER_STEP: usize = 500;

/// Free space below this is not returned as surplus.
const MIN_SURPLUS_BYTES: u64 = 16 << 20;

impl Purge {
    /// A purge of spans that started before `before_ms`, in milliseconds since the Unix epoch, and of
    /// the oldest ones while the store uses more than `max_bytes`.
    pub(super) fn new(
        before_ms: Option<i64>,
        max_bytes: Option<u64>,
        space_release: SpaceRelease,
    ) -> Self {
        Self {
            before_ms,
            max_bytes,
            space_release,
            phase: PurgePhase::Spans,
            evaluations_before_ms: before_ms,
        }
    }

    /// Whether the purge is complete.
    pub(super) fn is_done(&self) -> bool {
        self.phase == PurgePhase::Done
    }

    /// Runs the next step.
    pub(super) fn step(&mut self, store: &SpanStore) -> Result<RemovedCounts, StoreError> {
        match self.phase {
            PurgePhase::Spans => self.remove_spans(store),
            PurgePhase::Evaluations { after } => self.remove_evaluations(store, after),
            PurgePhase::Space => self.release_space(store),
            PurgePhase::Done => Ok(RemovedCounts::default()),
        }
    }

    fn remove_spans(&mut self, store: &SpanStore) -> Result<RemovedCounts, StoreError> {
        let usage = store.maintenance().usage()?;
        let by_age = self.before_ms.map(|ms| ms.saturating_mul(1_000_000));
        let too_old = |before_ns: &i64| usage.oldest_start_ns.is_some_and(|at| at < *before_ns);
        let before_ns = match by_age.filter(too_old) {
            Some(before_ns) => before_ns,
            None if self.max_bytes.is_some_and(|max| usage.used_bytes > max)
                && usage.oldest_start_ns.is_some() =>
            {
                i64::MAX
            }
            None => {
                self.phase = PurgePhase::Evaluations { after: None };
                return Ok(RemovedCounts::default());
            }
        };
        let outcome = store.purge_spans(SpanPurgeStep {
            before_ns,
            limit: ITEMS_PER_STEP,
        })?;
        let newest_ms = outcome.newest_start_ns.map(|ns| ns.div_euclid(1_000_000));
        self.evaluations_before_ms = self.evaluations_before_ms.max(newest_ms);
        Ok(RemovedCounts {
            spans: outcome.spans.len() as u64,
            evaluations: outcome.evaluations,
        })
    }

    fn remove_evaluations(
        &mut self,
        store: &SpanStore,
        after: Option<i64>,
    ) -> Result<RemovedCounts, StoreError> {
        let Some(before_ms) = self.evaluations_before_ms else {
            self.phase = PurgePhase::Space;
            return Ok(RemovedCounts::default());
        };
        let outcome = store.maintenance().purge_evaluations(EvaluationPurgeStep {
            before_ms,
            after,
            limit: ITEMS_PER_STEP,
        })?;
        self.phase = match outcome.next {
            Some(next) => PurgePhase::Evaluations { after: Some(next) },
            None => PurgePhase::Space,
        };
        Ok(RemovedCounts {
            spans: 0,
            evaluations: outcome.evaluations,
        })
    }

    fn release_space(&mut self, store: &SpanStore) -> Result<RemovedCounts, StoreError> {
        let usage = store.maintenance().usage()?;
        let is_worthwhile = match self.space_release {
            SpaceRelease::All => usage.free_bytes > 0,
            SpaceRelease::Surplus => {
                usage.free_bytes > MIN_SURPLUS_BYTES && usage.free_bytes > usage.used_bytes / 3
            }
        };
        if !is_worthwhile || !store.maintenance().release_space()? {
            self.phase = PurgePhase::Done;
        }
        Ok(RemovedCounts::default())
    }
}

#[cfg(test)]
mod tests;
