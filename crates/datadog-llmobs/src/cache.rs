//! What is kept of traces and experiments between calls, and how calls that want the same thing
//! share its load.
//!
//! An entry belongs to one trace, one credential and one upstream (both in the fingerprint). Each
//! of its parts stands behind an asynchronous mutex: who comes while a load runs waits for it and
//! takes its result, a failure as well, so that forty parallel calls knock once. Dropping a caller
//! releases the mutex and leaves what was stored before; a waiter then loads for itself. A failure
//! is never kept for those who come later.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::credential::Fingerprint;
use super::deadline::Deadline;
use super::error::ClientError;
use super::experiments::LoadedExperiment;
use super::settings::HubSettings;
use super::spans::{ErrorDetails, Gap, LoadedTrace};
use llmobs_core::model::{Span, SpanId, TraceId};

/// Bytes that an entry counts for beside its spans.
const ENTRY_BYTES: usize = 1_024;

/// Entries nobody asked for in this time are dropped; contents live no longer.
const IDLE: Duration = Duration::from_secs(900);

/// How long the answer of a side question is given again.
const ANSWERED_LIFE: Duration = Duration::from_secs(60);

type TraceKey = (Fingerprint, TraceId);
type ExperimentKey = (Fingerprint, String);
type ApmKey = (Fingerprint, String, i64, i64);

/// All that a hub keeps.
pub(crate) struct Caches {
    traces: Cache<TraceKey, Arc<TraceEntry>>,
    experiments: Cache<ExperimentKey, Arc<ExperimentEntry>>,
    /// Private endpoints that refused a credential lately, with the reason.
    pub(crate) refusals: Cache<(Fingerprint, &'static str), String>,
    /// APM trace ids that were resolved lately.
    pub(crate) apm: Cache<ApmKey, Arc<Vec<TraceId>>>,
    /// Costly side questions that were answered lately.
    pub(crate) answered: Cache<(Fingerprint, String), Value>,
}

impl Caches {
    pub(crate) fn new(settings: &HubSettings) -> Self {
        Self {
            traces: Cache::builder()
                .max_capacity(settings.cache_bytes)
                .weigher(|_, entry: &Arc<TraceEntry>| entry.bytes().try_into().unwrap_or(u32::MAX))
                .time_to_idle(IDLE)
                .build(),
            // The one just read is the one that is asked about next, however large it is.
            experiments: Cache::builder()
                .max_capacity(settings.experiment_cache_bytes)
                .weigher(|_, entry: &Arc<ExperimentEntry>| {
                    entry.bytes().try_into().unwrap_or(u32::MAX)
                })
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(settings.experiment_life * 2)
                .build(),
            refusals: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(settings.refusal_life)
                .build(),
            apm: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(settings.refusal_life)
                .build(),
            answered: Cache::builder()
                .max_capacity(1_000)
                .time_to_live(ANSWERED_LIFE)
                .build(),
        }
    }

    /// The entry of a trace, empty at first.
    pub(crate) async fn entry(&self, who: Fingerprint, id: &TraceId) -> Arc<TraceEntry> {
        self.traces
            .get_with((who, id.clone()), async { Arc::default() })
            .await
    }

    /// The entry of an experiment, empty at first.
    pub(crate) async fn experiment(&self, who: Fingerprint, id: &str) -> Arc<ExperimentEntry> {
        self.experiments
            .get_with((who, id.to_owned()), async { Arc::default() })
            .await
    }

    /// Tells the cache how large an experiment is, once it is read.
    pub(crate) async fn weigh_experiment(
        &self,
        who: Fingerprint,
        id: &str,
        entry: &Arc<ExperimentEntry>,
        bytes: usize,
    ) {
        if entry.bytes.swap(bytes, Ordering::Relaxed) == bytes {
            return;
        }
        let key = (who, id.to_owned());
        // What was forgotten while it was read must not come back.
        let held = self.experiments.get(&key).await;
        if held.is_some_and(|held| Arc::ptr_eq(&held, entry)) {
            self.experiments.insert(key, Arc::clone(entry)).await;
        }
    }

    /// Forgets an experiment: it was written to.
    pub(crate) async fn forget_experiment(&self, who: Fingerprint, id: &str) {
        self.experiments.invalidate(&(who, id.to_owned())).await;
    }

    /// Tells the cache how large an entry has become.
    pub(crate) async fn weigh(
        &self,
        who: Fingerprint,
        id: &TraceId,
        entry: &Arc<TraceEntry>,
        structure_bytes: usize,
    ) {
        if entry
            .structure_bytes
            .swap(structure_bytes, Ordering::Relaxed)
            != structure_bytes
        {
            self.reinsert(who, id, entry).await;
        }
    }

    /// Tells the cache that contents were added to an entry.
    pub(crate) async fn reinsert(&self, who: Fingerprint, id: &TraceId, entry: &Arc<TraceEntry>) {
        self.traces
            .insert((who, id.clone()), Arc::clone(entry))
            .await;
    }
}

/// What is kept of one trace.
#[derive(Default)]
pub(crate) struct TraceEntry {
    pub(crate) structure: Joined<Arc<LoadedTrace>>,
    pub(crate) contents: ContentShelf,
    pub(crate) errors: Joined<Arc<ErrorDetails>>,
    pub(crate) fields: Mutex<FieldShelf>,
    structure_bytes: AtomicUsize,
}

/// What is kept of one experiment.
#[derive(Default)]
pub(crate) struct ExperimentEntry {
    pub(crate) loaded: Joined<Arc<LoadedExperiment>>,
    bytes: AtomicUsize,
}

impl ExperimentEntry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES.saturating_add(self.bytes.load(Ordering::Relaxed))
    }
}

/// Single fields that gaps were filled with.
pub(crate) type FieldShelf = HashMap<(SpanId, String), (Instant, Option<Value>, Vec<Gap>)>;

impl TraceEntry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            .saturating_add(self.structure_bytes.load(Ordering::Relaxed))
            .saturating_add(self.contents.bytes.load(Ordering::Relaxed))
    }
}

/// A value that many want and one loads.
pub(crate) struct Joined<T> {
    finished: AtomicU64,
    state: Mutex<JoinedState<T>>,
}

/// The last result, numbered: who came before it was there shares it, whatever its life.
struct JoinedState<T> {
    number: u64,
    result: Option<Result<T, ClientError>>,
    fresh_until: Option<Instant>,
}

impl<T> Default for Joined<T> {
    fn default() -> Self {
        Self {
            finished: AtomicU64::new(0),
            state: Mutex::new(JoinedState {
                number: 0,
                result: None,
                fresh_until: None,
            }),
        }
    }
}

impl<T: Clone> Joined<T> {
    /// The value, if it is fresh; else what `load` gives, with its life. The life counts from the
    /// start of the load, because that is how old the value is; after a long load a quarter of it
    /// is granted all the same.
    pub(crate) async fn get<F, Fut>(
        &self,
        deadline: &Deadline,
        out_of_time: impl FnOnce() -> ClientError,
        load: F,
    ) -> Result<T, ClientError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(T, Duration), ClientError>>,
    {
        let arrived = self.finished.load(Ordering::Acquire);
        let Some(mut state) = deadline.limit(self.state.lock()).await else {
            return Err(out_of_time());
        };
        let fresh = state
            .fresh_until
            .is_some_and(|until| Instant::now() < until);
        match &state.result {
            Some(Ok(value)) if fresh || state.number > arrived => return Ok(value.clone()),
            // That another caller ran out of time says nothing about this one.
            Some(Err(error)) if state.number > arrived && !error.is_out_of_time() => {
                return Err(error.clone());
            }
            _ => {}
        }
        let start = Instant::now();
        let loaded = load().await;
        state.number = self.finished.fetch_add(1, Ordering::AcqRel) + 1;
        match loaded {
            Ok((value, life)) => {
                state.fresh_until = Some((start + life).max(Instant::now() + life / 4));
                state.result = Some(Ok(value.clone()));
                Ok(value)
            }
            Err(error) => {
                state.fresh_until = None;
                state.result = Some(Err(error.clone()));
                Err(error)
            }
        }
    }
}

/// The contents of a trace's spans, as far as they were read.
#[derive(Default)]
pub(crate) struct ContentShelf {
    pub(crate) finished: AtomicU64,
    pub(crate) state: Mutex<ContentState>,
    pub(crate) bytes: AtomicUsize,
}

/// What the shelf holds.
#[derive(Default)]
pub(crate) struct ContentState {
    pub(crate) spans: HashMap<SpanId, CachedContent>,
    /// The number of the last load that failed, and how.
    pub(crate) failure: Option<(u64, ClientError)>,
}

/// One span's content.
pub(crate) struct CachedContent {
    pub(crate) span: Arc<Span>,
    pub(crate) fresh_until: Instant,
    /// Whether the upstream gave it; else it is the structure's span, standing in.
    pub(crate) found: bool,
    pub(crate) bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(50))
    }

    fn late() -> ClientError {
        ClientError::Deadline {
            operation: "test",
            seconds: 50,
        }
    }

    const LIFE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_value_is_loaded_once_per_life() {
        let joined = Joined::default();
        let loads = AtomicUsize::new(0);
        let d = deadline();
        let get = || {
            joined.get(&d, late, || async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok((loads.fetch_add(1, Ordering::Relaxed), LIFE))
            })
        };
        let (a, b) = tokio::join!(get(), get());
        assert_eq!((a.unwrap(), b.unwrap()), (0, 0));
        tokio::time::advance(Duration::from_secs(18)).await;
        assert_eq!(get().await.unwrap(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(get().await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_with_those_who_waited_and_not_kept() {
        let joined: Joined<u8> = Joined::default();
        let loads = AtomicUsize::new(0);
        let d = deadline();
        let get = |fail: bool| {
            let (joined, loads, d) = (&joined, &loads, &d);
            async move {
                joined
                    .get(d, late, || async {
                        loads.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        if fail {
                            Err(ClientError::TraceNotFound("t".into()))
                        } else {
                            Ok((7, LIFE))
                        }
                    })
                    .await
            }
        };
        let (a, b, c) = tokio::join!(get(true), get(true), get(true));
        assert!(a.is_err() && b.is_err() && c.is_err());
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(get(false).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn another_callers_lack_of_time_is_not_shared() {
        let joined: Joined<u8> = Joined::default();
        let d = deadline();
        let first = joined.get(&d, late, || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(late())
        });
        let second = joined.get(&d, late, || async { Ok((7, LIFE)) });
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(second.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_dropped_leaves_the_load_to_the_next() {
        let joined: Joined<u8> = Joined::default();
        let d = deadline();
        let dropped = joined.get(&d, late, std::future::pending);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), dropped)
                .await
                .is_err()
        );
        assert_eq!(
            joined
                .get(&d, late, || async { Ok((7, LIFE)) })
                .await
                .unwrap(),
            7
        );
        let stuck = joined.get(&d, late, || async {
            std::future::pending::<()>().await;
            Ok((8, LIFE))
        });
        tokio::time::advance(LIFE).await;
        let short = Deadline::after(Duration::from_secs(1));
        let waiter = joined.get(&short, late, || async { Ok((9, LIFE)) });
        tokio::select! {
            _ = stuck => panic!("it never ends"),
            waited = async { tokio::time::sleep(Duration::from_millis(1)).await; waiter.await } => {
                assert!(matches!(waited, Err(ClientError::Deadline { .. })));
            }
        }
    }
}
