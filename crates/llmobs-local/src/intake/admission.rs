//! Bounds the requests that the intake holds at once, and with them its memory.
//!
//! A decoded body takes many times its encoded size, so few requests are processed at once. Further
//! requests wait, bounded by number, bytes and time. Beyond a bound the response is 503 with
//! `Retry-After`, after which SDKs and OpenTelemetry exporters send again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::ApiError;

/// Limits of the requests that the intake holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Requests processed at once. Default 8.
    pub max_processing: usize,
    /// Requests held at once: arriving, waiting and processed. Default 256.
    pub max_requests: usize,
    /// Bytes of their encoded bodies. Default 256 MiB.
    pub max_bytes: usize,
    /// How long a request waits to be processed. Default 10 seconds.
    pub wait_timeout: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            max_processing: 8,
            max_requests: 256,
            max_bytes: 256 << 20,
            wait_timeout: Duration::from_secs(10),
        }
    }
}

/// Counts the requests of the intake and enforces [`IntakeLimits`].
pub(crate) struct Admission {
    limits: IntakeLimits,
    slots: Semaphore,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(limits: IntakeLimits) -> Self {
        Self {
            limits,
            slots: Semaphore::new(limits.max_processing),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Admits a request, or refuses it when the limit is reached.
    pub(super) fn enter(&self) -> Result<AdmissionTicket<'_>, ApiError> {
        let ticket = AdmissionTicket {
            admission: self,
            bytes: 0,
        };
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.max_requests {
            return Err(saturated());
        }
        Ok(ticket)
    }
}

#[cfg(test)]
impl Admission {
    /// Occupies a slot, like a request with long processing.
    pub(crate) fn occupy_slot(&self) -> SemaphorePermit<'_> {
        self.slots.try_acquire().unwrap()
    }

    /// The number of admitted requests.
    pub(crate) fn request_count(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// An admitted request. Dropping the ticket releases its share of the limits.
pub(super) struct AdmissionTicket<'a> {
    admission: &'a Admission,
    bytes: usize,
}

impl<'a> AdmissionTicket<'a> {
    /// Counts bytes of the body before they are buffered.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes += bytes;
        let before = self.admission.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.admission.limits.max_bytes {
            return Err(saturated());
        }
        Ok(())
    }

    /// Waits until the request may be processed.
    pub(super) async fn wait_for_slot(&self) -> Result<SemaphorePermit<'a>, ApiError> {
        let slot = self.admission.slots.acquire();
        match tokio::time::timeout(self.admission.limits.wait_timeout, slot).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(saturated()),
        }
    }
}

impl Drop for AdmissionTicket<'_> {
    fn drop(&mut self) {
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
        self.admission
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn saturated() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the intake is overloaded and stored nothing of this request; send it again after a second",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_beyond_limits_and_releases_on_drop() {
        let admission = Admission::new(IntakeLimits {
            max_processing: 1,
            max_requests: 2,
            max_bytes: 10,
            wait_timeout: Duration::ZERO,
        });
        let mut first = admission.enter().unwrap();
        first.charge(6).unwrap();
        let slot = first.wait_for_slot().await.unwrap();
        let mut second = admission.enter().unwrap();
        assert_eq!(second.charge(5), Err(saturated()));
        assert!(second.wait_for_slot().await.is_err());
        assert!(admission.enter().is_err());
        drop((slot, first, second));
        let mut third = admission.enter().unwrap();
        third.charge(10).unwrap();
        assert!(third.wait_for_slot().await.is_ok());
    }
}
