//! Manners towards a shared API: few requests at a time, and silence for as long as it asks.
//!
//! Kept per credential and upstream. After a 429, or when an answer says that nothing is left,
//! a gate closes for the bucket (`X-RateLimit-Name`, or the route while no name is known), and
//! every other call of the same bucket waits for the same moment instead of knocking. Datadog's
//! windows are fixed and only it knows them, so there is no rate of our own to keep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::credential::Fingerprint;
use super::deadline::Deadline;
use super::retry::{RateHeaders, jitter};

/// Why a request may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The gate opens after the call's time is over.
    Closed(Duration),
    /// The call's time was over before its turn came.
    OutOfTime,
}

/// The manners of every credential.
pub(crate) struct Limiter {
    principals: Cache<Fingerprint, Arc<Principal>>,
    concurrency: usize,
    jitter: Duration,
}

struct Principal {
    slots: Arc<Semaphore>,
    gates: Mutex<Gates>,
}

#[derive(Default)]
struct Gates {
    /// The bucket that a route counts for, once an answer named it.
    buckets: HashMap<&'static str, String>,
    /// When a bucket, or a route without one, may be asked again.
    closed_until: HashMap<String, Instant>,
}

impl Gates {
    fn bucket(&self, route: &'static str) -> &str {
        self.buckets.get(route).map_or(route, String::as_str)
    }
}

impl Limiter {
    pub(crate) fn new(concurrency: usize, jitter: Duration) -> Self {
        Self {
            principals: Cache::builder()
                .max_capacity(10_000)
                .time_to_idle(Duration::from_secs(24 * 3_600))
                .build(),
            concurrency: concurrency.max(1),
            jitter,
        }
    }

    async fn principal(&self, who: Fingerprint) -> Arc<Principal> {
        let fresh = async {
            Arc::new(Principal {
                slots: Arc::new(Semaphore::new(self.concurrency)),
                gates: Mutex::default(),
            })
        };
        self.principals.get_with(who, fresh).await
    }

    /// Waits for the gate and for a free slot. The slot is free again when the permit is dropped.
    pub(crate) async fn enter(
        &self,
        who: Fingerprint,
        route: &'static str,
        deadline: &Deadline,
    ) -> Result<Option<OwnedSemaphorePermit>, Refused> {
        let principal = self.principal(who).await;
        loop {
            let wait = principal.wait(route);
            if wait.is_zero() {
                let slot = deadline
                    .limit(Arc::clone(&principal.slots).acquire_owned())
                    .await
                    .ok_or(Refused::OutOfTime)?;
                // The gate may have closed while this call stood in the queue.
                if principal.wait(route).is_zero() {
                    return Ok(slot.ok());
                }
                continue;
            }
            if wait >= deadline.remaining() {
                return Err(Refused::Closed(wait));
            }
            tokio::time::sleep(wait + jitter(self.jitter)).await;
        }
    }

    /// Closes the gate if an answer asks for it; gives the wait.
    pub(crate) async fn observe(
        &self,
        who: Fingerprint,
        route: &'static str,
        headers: &RateHeaders,
        too_many: bool,
    ) {
        if headers.name.is_none() && headers.remaining != Some(0) && !too_many {
            return;
        }
        let principal = self.principal(who).await;
        let mut gates = principal.lock();
        if let Some(name) = &headers.name {
            gates.buckets.insert(route, name.clone());
        }
        if (too_many || headers.remaining == Some(0))
            && let Some(reset) = headers.reset
        {
            let bucket = gates.bucket(route).to_owned();
            let until = Instant::now() + reset;
            gates
                .closed_until
                .retain(|_, until| *until > Instant::now());
            let gate = gates.closed_until.entry(bucket).or_insert(until);
            *gate = until.max(*gate);
        }
    }
}

impl Principal {
    fn lock(&self) -> std::sync::MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, route: &'static str) -> Duration {
        let gates = self.lock();
        gates
            .closed_until
            .get(gates.bucket(route))
            .map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::{Credential, FingerprintKey};
    use super::*;

    fn who(upstream: &str) -> Fingerprint {
        thread_local!(static KEY: FingerprintKey = FingerprintKey::random());
        KEY.with(|key| key.of(&Credential::None, upstream))
    }

    fn headers(name: &str, remaining: u64, reset: u64) -> RateHeaders {
        RateHeaders {
            name: Some(name.into()),
            remaining: Some(remaining),
            reset: Some(Duration::from_secs(reset)),
        }
    }

    fn deadline(seconds: u64) -> Deadline {
        Deadline::after(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_holds_every_route_of_its_bucket_and_nobody_else() {
        let limiter = Limiter::new(4, Duration::ZERO);
        limiter
            .observe(who("a"), "/one", &headers("spans", 5, 60), false)
            .await;
        limiter
            .observe(who("a"), "/two", &headers("spans", 0, 60), false)
            .await;
        let refused = limiter.enter(who("a"), "/one", &deadline(50)).await;
        assert_eq!(
            refused.err(),
            Some(Refused::Closed(Duration::from_secs(60)))
        );
        assert!(
            limiter
                .enter(who("a"), "/three", &deadline(50))
                .await
                .is_ok()
        );
        assert!(limiter.enter(who("b"), "/one", &deadline(50)).await.is_ok());
        let start = Instant::now();
        assert!(limiter.enter(who("a"), "/two", &deadline(90)).await.is_ok());
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_requests_run_at_a_time() {
        let limiter = Limiter::new(2, Duration::ZERO);
        let first = limiter.enter(who("a"), "/x", &deadline(5)).await.unwrap();
        let _second = limiter.enter(who("a"), "/y", &deadline(5)).await.unwrap();
        let third = limiter.enter(who("a"), "/x", &deadline(5)).await;
        assert_eq!(third.err(), Some(Refused::OutOfTime));
        drop(first);
        assert!(limiter.enter(who("a"), "/x", &deadline(5)).await.is_ok());
    }
}
