//! Client-side concurrency limit and rate-limit back-off, per credential and upstream.
//!
//! After a 429, or a response without remaining requests, the bucket is blocked until its reset, and
//! every call of the same bucket waits until then. The bucket is `X-RateLimit-Name`, or the route
//! until a response names one. Datadog's rate windows are fixed and known only to Datadog, so the
//! client enforces no rate of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::credential::Fingerprint;
use super::deadline::Deadline;
use super::retry::{RateLimitHeaders, jitter};

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionError {
    /// The bucket is blocked until after the deadline of the call.
    RateLimited(Duration),
    /// The deadline passed while the call waited for a permit.
    OutOfTime,
}

/// The limits of every credential.
pub(crate) struct Limiter {
    credentials: Cache<Fingerprint, Arc<CredentialLimits>>,
    concurrency: usize,
    jitter: Duration,
}

struct CredentialLimits {
    permits: Arc<Semaphore>,
    buckets: Mutex<RateLimitBuckets>,
}

#[derive(Default)]
struct RateLimitBuckets {
    /// The bucket of each route that a response has named.
    names: HashMap<&'static str, String>,
    /// Until when a bucket, or a route without one, is blocked.
    blocked_until: HashMap<String, Instant>,
}

impl RateLimitBuckets {
    fn name(&self, route: &'static str) -> &str {
        self.names.get(route).map_or(route, String::as_str)
    }
}

impl Limiter {
    pub(crate) fn new(concurrency: usize, jitter: Duration) -> Self {
        Self {
            credentials: Cache::builder()
                .max_capacity(10_000)
                .time_to_idle(Duration::from_secs(24 * 3_600))
                .build(),
            concurrency: concurrency.max(1),
            jitter,
        }
    }

    async fn limits(&self, fingerprint: Fingerprint) -> Arc<CredentialLimits> {
        let new_limits = async {
            Arc::new(CredentialLimits {
                permits: Arc::new(Semaphore::new(self.concurrency)),
                buckets: Mutex::default(),
            })
        };
        self.credentials.get_with(fingerprint, new_limits).await
    }

    /// Waits until the bucket is open and a permit is free. Dropping the permit frees it.
    pub(crate) async fn acquire(
        &self,
        fingerprint: Fingerprint,
        route: &'static str,
        deadline: &Deadline,
    ) -> Result<Option<OwnedSemaphorePermit>, AdmissionError> {
        let limits = self.limits(fingerprint).await;
        loop {
            let wait = limits.blocked_for(route);
            if wait.is_zero() {
                let permit = deadline
                    .limit(Arc::clone(&limits.permits).acquire_owned())
                    .await
                    .ok_or(AdmissionError::OutOfTime)?;
                // The bucket may have been blocked while this call waited for the permit.
                if limits.blocked_for(route).is_zero() {
                    return Ok(permit.ok());
                }
                continue;
            }
            if wait >= deadline.remaining() {
                return Err(AdmissionError::RateLimited(wait));
            }
            tokio::time::sleep(wait + jitter(self.jitter)).await;
        }
    }

    /// Blocks the bucket if the response requires it.
    pub(crate) async fn observe(
        &self,
        fingerprint: Fingerprint,
        route: &'static str,
        headers: &RateLimitHeaders,
        is_limited: bool,
    ) {
        if headers.name.is_none() && headers.remaining != Some(0) && !is_limited {
            return;
        }
        let limits = self.limits(fingerprint).await;
        let mut buckets = limits.lock();
        if let Some(name) = &headers.name {
            buckets.names.insert(route, name.clone());
        }
        if (is_limited || headers.remaining == Some(0))
            && let Some(reset) = headers.reset
        {
            let bucket = buckets.name(route).to_owned();
            let until = Instant::now() + reset;
            buckets
                .blocked_until
                .retain(|_, until| *until > Instant::now());
            let blocked_until = buckets.blocked_until.entry(bucket).or_insert(until);
            *blocked_until = until.max(*blocked_until);
        }
    }
}

impl CredentialLimits {
    fn lock(&self) -> std::sync::MutexGuard<'_, RateLimitBuckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocked_for(&self, route: &'static str) -> Duration {
        let buckets = self.lock();
        buckets
            .blocked_until
            .get(buckets.name(route))
            .map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::{Credential, FingerprintKey};
    use super::*;

    fn fingerprint(upstream: &str) -> Fingerprint {
        thread_local!(static KEY: FingerprintKey = FingerprintKey::random());
        KEY.with(|key| key.fingerprint(&Credential::None, upstream))
    }

    fn headers(name: &str, remaining: u64, reset: u64) -> RateLimitHeaders {
        RateLimitHeaders {
            name: Some(name.into()),
            remaining: Some(remaining),
            reset: Some(Duration::from_secs(reset)),
        }
    }

    fn deadline(seconds: u64) -> Deadline {
        Deadline::after(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_every_route_of_bucket_and_no_other_caller() {
        let limiter = Limiter::new(4, Duration::ZERO);
        limiter
            .observe(fingerprint("a"), "/one", &headers("spans", 5, 60), false)
            .await;
        limiter
            .observe(fingerprint("a"), "/two", &headers("spans", 0, 60), false)
            .await;
        let error = limiter
            .acquire(fingerprint("a"), "/one", &deadline(50))
            .await;
        assert_eq!(
            error.err(),
            Some(AdmissionError::RateLimited(Duration::from_secs(60)))
        );
        assert!(
            limiter
                .acquire(fingerprint("a"), "/three", &deadline(50))
                .await
                .is_ok()
        );
        assert!(
            limiter
                .acquire(fingerprint("b"), "/one", &deadline(50))
                .await
                .is_ok()
        );
        let start = Instant::now();
        assert!(
            limiter
                .acquire(fingerprint("a"), "/two", &deadline(90))
                .await
                .is_ok()
        );
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_concurrent_requests() {
        let limiter = Limiter::new(2, Duration::ZERO);
        let first = limiter
            .acquire(fingerprint("a"), "/x", &deadline(5))
            .await
            .unwrap();
        let _second = limiter
            .acquire(fingerprint("a"), "/y", &deadline(5))
            .await
            .unwrap();
        let third = limiter.acquire(fingerprint("a"), "/x", &deadline(5)).await;
        assert_eq!(third.err(), Some(AdmissionError::OutOfTime));
        drop(first);
        assert!(
            limiter
                .acquire(fingerprint("a"), "/x", &deadline(5))
                .await
                .is_ok()
        );
    }
}
