//! Caches of traces and experiments, and the sharing of loads between parallel calls.
//!
//! An entry belongs to one trace or experiment and one fingerprint (credential and upstream). Each
//! value of it is behind an asynchronous mutex: a call that arrives while a load runs waits and shares
//! its result, even a failure, so that forty parallel calls send one request. If the loading call is
//! cancelled, the mutex is released, the cached value stays, and a waiting call loads the value. Calls
//! that arrive after a failure load again.

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
use super::loaded::{ErrorDetails, Gap, LoadedExperiment, LoadedTrace};
use super::settings::HubSettings;
use llmobs_core::model::{Span, SpanId, TraceId};

/// The size of an entry without its spans.
const ENTRY_OVERHEAD_BYTES: usize = 1_024;

/// Unused entries are removed after this time. Contents are never fresh for longer.
const MAX_IDLE: Duration = Duration::from_secs(900);

/// The lifetime of computed values.
const COMPUTED_LIFETIME: Duration = Duration::from_secs(60);

type TraceKey = (Fingerprint, TraceId);
type ExperimentKey = (Fingerprint, String);
type ApmKey = (Fingerprint, String, i64, i64);

/// The caches of a hub.
pub(crate) struct Caches {
    traces: Cache<TraceKey, Arc<TraceEntry>>,
    experiments: Cache<ExperimentKey, Arc<ExperimentEntry>>,
    /// Private endpoints that recently rejected a credential, with the reason.
    pub(crate) rejections: Cache<(Fingerprint, &'static str), String>,
    /// Recently resolved APM trace ids.
    pub(crate) apm: Cache<ApmKey, Arc<Vec<TraceId>>>,
    /// Recently computed values that cost requests.
    pub(crate) computed: Cache<(Fingerprint, String), Value>,
}

impl Caches {
    pub(crate) fn new(settings: &HubSettings) -> Self {
        Self {
            traces: Cache::builder()
                .max_capacity(settings.cache_bytes)
                .weigher(|_, entry: &Arc<TraceEntry>| entry.bytes().try_into().unwrap_or(u32::MAX))
                .time_to_idle(MAX_IDLE)
                .build(),
            // LRU keeps the experiment that was just read, which the next call reads too, even if it is large.
            experiments: Cache::builder()
                .max_capacity(settings.experiment_cache_bytes)
                .weigher(|_, entry: &Arc<ExperimentEntry>| {
                    entry.bytes().try_into().unwrap_or(u32::MAX)
                })
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(settings.experiment_life * 2)
                .build(),
            rejections: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(settings.refusal_life)
                .build(),
            apm: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(settings.refusal_life)
                .build(),
            computed: Cache::builder()
                .max_capacity(1_000)
                .time_to_live(COMPUTED_LIFETIME)
                .build(),
        }
    }

    /// The entry of a trace; a new one is empty.
    pub(crate) async fn trace(&self, fingerprint: Fingerprint, id: &TraceId) -> Arc<TraceEntry> {
        self.traces
            .get_with((fingerprint, id.clone()), async { Arc::default() })
            .await
    }

    /// The entry of an experiment; a new one is empty.
    pub(crate) async fn experiment(
        &self,
        fingerprint: Fingerprint,
        id: &str,
    ) -> Arc<ExperimentEntry> {
        self.experiments
            .get_with((fingerprint, id.to_owned()), async { Arc::default() })
            .await
    }

    /// Sets the size of an experiment that was read.
    pub(crate) async fn set_experiment_bytes(
        &self,
        fingerprint: Fingerprint,
        id: &str,
        entry: &Arc<ExperimentEntry>,
        bytes: usize,
    ) {
        if entry.bytes.swap(bytes, Ordering::Relaxed) == bytes {
            return;
        }
        let key = (fingerprint, id.to_owned());
        // An entry that was removed in the meantime stays removed.
        let current = self.experiments.get(&key).await;
        if current.is_some_and(|current| Arc::ptr_eq(&current, entry)) {
            self.experiments.insert(key, Arc::clone(entry)).await;
        }
    }

    /// Removes an experiment that was changed.
    pub(crate) async fn invalidate_experiment(&self, fingerprint: Fingerprint, id: &str) {
        self.experiments
            .invalidate(&(fingerprint, id.to_owned()))
            .await;
    }

    /// Sets the size of the structure of a trace.
    pub(crate) async fn set_structure_bytes(
        &self,
        fingerprint: Fingerprint,
        id: &TraceId,
        entry: &Arc<TraceEntry>,
        structure_bytes: usize,
    ) {
        if entry
            .structure_bytes
            .swap(structure_bytes, Ordering::Relaxed)
            != structure_bytes
        {
            self.reinsert(fingerprint, id, entry).await;
        }
    }

    /// Inserts an entry again, so that the cache reads its new size.
    pub(crate) async fn reinsert(
        &self,
        fingerprint: Fingerprint,
        id: &TraceId,
        entry: &Arc<TraceEntry>,
    ) {
        self.traces
            .insert((fingerprint, id.clone()), Arc::clone(entry))
            .await;
    }
}

/// The cached values of one trace.
#[derive(Default)]
pub(crate) struct TraceEntry {
    pub(crate) structure: SharedLoad<Arc<LoadedTrace>>,
    pub(crate) contents: ContentCache,
    pub(crate) errors: SharedLoad<Arc<ErrorDetails>>,
    pub(crate) fields: Mutex<FieldCache>,
    structure_bytes: AtomicUsize,
}

/// The cached value of one experiment.
#[derive(Default)]
pub(crate) struct ExperimentEntry {
    pub(crate) loaded: SharedLoad<Arc<LoadedExperiment>>,
    bytes: AtomicUsize,
}

impl ExperimentEntry {
    fn bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES.saturating_add(self.bytes.load(Ordering::Relaxed))
    }
}

/// Fields that a private endpoint returned, by span and name.
pub(crate) type FieldCache = HashMap<(SpanId, String), CachedField>;

/// One field of a span.
pub(crate) struct CachedField {
    pub(crate) fresh_until: Instant,
    pub(crate) value: Option<Value>,
    pub(crate) gaps: Vec<Gap>,
}

impl TraceEntry {
    fn bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES
            .saturating_add(self.structure_bytes.load(Ordering::Relaxed))
            .saturating_add(self.contents.bytes.load(Ordering::Relaxed))
    }
}

/// A value that one call loads for all parallel calls.
pub(crate) struct SharedLoad<T> {
    finished_loads: AtomicU64,
    state: Mutex<LoadState<T>>,
}

/// The last result. Its number tells calls that arrived before it that they share it, even if it has
/// expired.
struct LoadState<T> {
    number: u64,
    result: Option<Result<T, ClientError>>,
    fresh_until: Option<Instant>,
}

impl<T> Default for SharedLoad<T> {
    fn default() -> Self {
        Self {
            finished_loads: AtomicU64::new(0),
            state: Mutex::new(LoadState {
                number: 0,
                result: None,
                fresh_until: None,
            }),
        }
    }
}

impl<T: Clone> SharedLoad<T> {
    /// The cached value if it is fresh, or else the result of `load`, which returns the value and its
    /// lifetime. The lifetime counts from the start of the load, when the value was current; after a
    /// long load a quarter of it remains.
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
        let loads_before = self.finished_loads.load(Ordering::Acquire);
        let Some(mut state) = deadline.limit(self.state.lock()).await else {
            return Err(out_of_time());
        };
        let fresh = state
            .fresh_until
            .is_some_and(|until| Instant::now() < until);
        match &state.result {
            Some(Ok(value)) if fresh || state.number > loads_before => return Ok(value.clone()),
            // Another caller may run out of time before this one does.
            Some(Err(error)) if state.number > loads_before && !error.is_out_of_time() => {
                return Err(error.clone());
            }
            _ => {}
        }
        let start = Instant::now();
        let loaded = load().await;
        state.number = self.finished_loads.fetch_add(1, Ordering::AcqRel) + 1;
        match loaded {
            Ok((value, lifetime)) => {
                state.fresh_until = Some((start + lifetime).max(Instant::now() + lifetime / 4));
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

/// The contents of a trace's spans that were read.
#[derive(Default)]
pub(crate) struct ContentCache {
    pub(crate) finished_loads: AtomicU64,
    pub(crate) state: Mutex<ContentState>,
    pub(crate) bytes: AtomicUsize,
}

/// The entries of a [`ContentCache`].
#[derive(Default)]
pub(crate) struct ContentState {
    pub(crate) spans: HashMap<SpanId, CachedContent>,
    /// The number of the last load that failed, with its error.
    pub(crate) failure: Option<(u64, ClientError)>,
}

/// The content of one span.
pub(crate) struct CachedContent {
    pub(crate) span: Arc<Span>,
    pub(crate) fresh_until: Instant,
    /// Whether the upstream returned it. If not, `span` is that of the structure.
    pub(crate) found: bool,
    pub(crate) bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(50))
    }

    fn out_of_time() -> ClientError {
        ClientError::Deadline {
            operation: "test",
            seconds: 50,
        }
    }

    const LIFETIME: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn loads_value_once_per_lifetime() {
        let load = SharedLoad::default();
        let loads = AtomicUsize::new(0);
        let deadline = deadline();
        let get = || {
            load.get(&deadline, out_of_time, || async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok((loads.fetch_add(1, Ordering::Relaxed), LIFETIME))
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
    async fn shares_failure_with_waiting_calls_only() {
        let load: SharedLoad<u8> = SharedLoad::default();
        let loads = AtomicUsize::new(0);
        let deadline = deadline();
        let get = |fail: bool| {
            let (load, loads, deadline) = (&load, &loads, &deadline);
            async move {
                load.get(deadline, out_of_time, || async {
                    loads.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if fail {
                        Err(ClientError::TraceNotFound("t".into()))
                    } else {
                        Ok((7, LIFETIME))
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
    async fn does_not_share_deadline_of_another_call() {
        let load: SharedLoad<u8> = SharedLoad::default();
        let deadline = deadline();
        let first = load.get(&deadline, out_of_time, || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(out_of_time())
        });
        let second = load.get(&deadline, out_of_time, || async { Ok((7, LIFETIME)) });
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(second.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn next_call_loads_after_cancelled_one() {
        let load: SharedLoad<u8> = SharedLoad::default();
        let deadline = deadline();
        let dropped = load.get(&deadline, out_of_time, std::future::pending);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), dropped)
                .await
                .is_err()
        );
        assert_eq!(
            load.get(&deadline, out_of_time, || async { Ok((7, LIFETIME)) })
                .await
                .unwrap(),
            7
        );
        let stuck = load.get(&deadline, out_of_time, || async {
            std::future::pending::<()>().await;
            Ok((8, LIFETIME))
        });
        tokio::time::advance(LIFETIME).await;
        let short = Deadline::after(Duration::from_secs(1));
        let waiter = load.get(&short, out_of_time, || async { Ok((9, LIFETIME)) });
        tokio::select! {
            _ = stuck => panic!("the load never finishes"),
            waited = async { tokio::time::sleep(Duration::from_millis(1)).await; waiter.await } => {
                assert!(matches!(waited, Err(ClientError::Deadline { .. })));
            }
        }
    }
}
