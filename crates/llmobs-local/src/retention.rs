//! Removing what is old or too much: once by `local purge`, or again and again while the data are
//! owned by a process with a [`Retention`].
//!
//! A [`Purge`] goes step by step, each one small transaction of the store's one writer, so that
//! ingest goes on between them. The rules:
//! - Spans go by their start, the oldest first, each with its content and what was said about it. A
//!   trace that began before the limit and ended after it keeps its later spans.
//! - By size, spans go until what the file holds is no more than the limit. The index follows by
//!   itself and is not counted: how large it is says nothing of what has just gone.
//! - Evaluations made before the limit whose span, trace or session is gone go too.
//! - Runs of experiments go with their spans; the experiment and its summary stay.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::store::{PurgeStep, SpanStore, StoreError, SweepStep};
use super::{LocalBackend, now_ms};

/// What is kept; by default everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Spans that began longer ago than this go.
    pub max_age: Option<Duration>,
    /// The oldest spans go while the store holds more bytes than this.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Whether nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none()
    }

    fn purge(&self, now_ms: i64) -> Purge {
        let before_ms = self
            .max_age
            .map(|age| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        Purge::new(before_ms, self.max_bytes, GiveBack::Surplus)
    }
}

/// Which free space goes back to the disk at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GiveBack {
    /// All of it.
    All,
    /// What is more than a quarter of the file: the rest is used again soon, and moving pages for
    /// it would be work for nothing.
    Surplus,
}

/// A purge and how far it is. Its JSON goes to and fro between `local purge` and the process that
/// owns the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purge {
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
    give_back: GiveBack,
    phase: Phase,
    /// The latest moment before which evaluations about nothing go.
    cut_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Spans,
    Evaluations { after: Option<i64> },
    Space,
    Done,
}

/// What a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) spans: u64,
    pub(super) evaluations: u64,
}

/// Spans removed in one transaction, and evaluations looked at.
const STEP: usize = 500;

/// Free bytes below which giving back is not worth it.
const SURPLUS_BYTES: u64 = 16 << 20;

impl Purge {
    /// Spans that began before, in milliseconds since the Unix epoch; and the oldest ones while
    /// the store holds more bytes.
    pub(super) fn new(before_ms: Option<i64>, max_bytes: Option<u64>, give_back: GiveBack) -> Self {
        Self {
            before_ms,
            max_bytes,
            give_back,
            phase: Phase::Spans,
            cut_ms: before_ms,
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Does the next small piece of the work.
    pub(super) fn step(&mut self, store: &dyn SpanStore) -> Result<Removed, StoreError> {
        match self.phase {
            Phase::Spans => self.remove_spans(store),
            Phase::Evaluations { after } => self.remove_evaluations(store, after),
            Phase::Space => self.free_space(store),
            Phase::Done => Ok(Removed::default()),
        }
    }

    fn remove_spans(&mut self, store: &dyn SpanStore) -> Result<Removed, StoreError> {
        let usage = store.usage()?;
        let by_age = self.before_ms.map(|ms| ms.saturating_mul(1_000_000));
        let too_old = |before_ns: &i64| usage.oldest_start_ns.is_some_and(|at| at < *before_ns);
        let before_ns = match by_age.filter(too_old) {
            Some(before_ns) => before_ns,
            None if self.max_bytes.is_some_and(|most| usage.used_bytes > most)
                && usage.oldest_start_ns.is_some() =>
            {
                i64::MAX
            }
            None => {
                self.phase = Phase::Evaluations { after: None };
                return Ok(Removed::default());
            }
        };
        let purged = store.purge(PurgeStep {
            before_ns,
            limit: STEP,
        })?;
        let newest_ms = purged.newest_start_ns.map(|ns| ns.div_euclid(1_000_000));
        self.cut_ms = self.cut_ms.max(newest_ms);
        Ok(Removed {
            spans: purged.spans.len() as u64,
            evaluations: purged.evaluations,
        })
    }

    fn remove_evaluations(
        &mut self,
        store: &dyn SpanStore,
        after: Option<i64>,
    ) -> Result<Removed, StoreError> {
        let Some(before_ms) = self.cut_ms else {
            self.phase = Phase::Space;
            return Ok(Removed::default());
        };
        let swept = store.sweep(SweepStep {
            before_ms,
            after,
            limit: STEP,
        })?;
        self.phase = match swept.next {
            Some(next) => Phase::Evaluations { after: Some(next) },
            None => Phase::Space,
        };
        Ok(Removed {
            spans: 0,
            evaluations: swept.evaluations,
        })
    }

    fn free_space(&mut self, store: &dyn SpanStore) -> Result<Removed, StoreError> {
        let usage = store.usage()?;
        let worth = match self.give_back {
            GiveBack::All => usage.free_bytes > 0,
            GiveBack::Surplus => {
                usage.free_bytes > SURPLUS_BYTES && usage.free_bytes > usage.used_bytes / 3
            }
        };
        if !worth || !store.give_back()? {
            self.phase = Phase::Done;
        }
        Ok(Removed::default())
    }
}

/// How often the retention is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Holds to the retention until `stop`, beginning at once.
pub async fn retain(backend: LocalBackend, stop: CancellationToken) {
    if backend.inner.options.retention.keeps_all() {
        return;
    }
    loop {
        let (working, told) = (backend.clone(), stop.clone());
        let done = tokio::task::spawn_blocking(move || working.enforce_retention(now_ms(), &told));
        match done.await {
            Ok(Err(error)) => tracing::warn!("old data could not be removed: {error}"),
            // Its words may quote data.
            Err(_) => tracing::warn!("removing old data ended early"),
            Ok(Ok(())) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl LocalBackend {
    /// Removes once what the retention of this backend does not keep. Blocks.
    fn enforce_retention(&self, now_ms: i64, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut purge = self.inner.options.retention.purge(now_ms);
        let mut removed = Removed::default();
        while !purge.is_done() && !stop.is_cancelled() {
            let step = purge.step(self.inner.store.as_ref())?;
            removed.spans += step.spans;
            removed.evaluations += step.evaluations;
        }
        let Removed { spans, evaluations } = removed;
        if spans + evaluations > 0 {
            tracing::info!(
                spans,
                evaluations,
                "removed what the retention does not keep"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
