//! How many requests the intake holds at once.
//!
//! Few are worked on, because a body in the making takes many times its size. Further ones wait,
//! but neither too many, nor with too many bytes, nor too long: then the answer is 503 with
//! `Retry-After`, which SDKs and OpenTelemetry exporters heed, and memory stays bounded whatever
//! arrives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::ApiError;

/// Bounds of what the intake holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Requests worked on at once. Default 8.
    pub at_once: usize,
    /// Requests held at once: arriving, waiting and worked on. Default 256.
    pub held: usize,
    /// Bytes of their bodies as they are on the wire. Default 256 MiB.
    pub held_bytes: usize,
    /// How long a request waits for its turn. Default 10 seconds.
    pub patience: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            at_once: 8,
            held: 256,
            held_bytes: 256 << 20,
            patience: Duration::from_secs(10),
        }
    }
}

/// The door of the intake.
pub(crate) struct Admission {
    limits: IntakeLimits,
    slots: Semaphore,
    held: AtomicUsize,
    bytes: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(limits: IntakeLimits) -> Self {
        Self {
            limits,
            slots: Semaphore::new(limits.at_once),
            held: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Lets a request in, or refuses it when too many are.
    pub(super) fn enter(&self) -> Result<Ticket<'_>, ApiError> {
        let ticket = Ticket {
            door: self,
            bytes: 0,
        };
        let before = self.held.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.held {
            return Err(saturated());
        }
        Ok(ticket)
    }
}

#[cfg(test)]
impl Admission {
    /// Takes a slot, as a request that is worked on for long would.
    pub(crate) fn hold(&self) -> SemaphorePermit<'_> {
        self.slots.try_acquire().unwrap()
    }

    /// Requests that are in.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// A request that is in. What it holds is given back when it goes.
pub(super) struct Ticket<'a> {
    door: &'a Admission,
    bytes: usize,
}

impl<'a> Ticket<'a> {
    /// Accounts for bytes of the body before they are kept.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes += bytes;
        let before = self.door.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.door.limits.held_bytes {
            return Err(saturated());
        }
        Ok(())
    }

    /// Waits for the request's turn to be worked on.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'a>, ApiError> {
        let turn = self.door.slots.acquire();
        match tokio::time::timeout(self.door.limits.patience, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(saturated()),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.door.held.fetch_sub(1, Ordering::Relaxed);
        self.door.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn saturated() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "more is being sent than can be taken in at once; nothing of this request was kept, send it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_given_back() {
        let door = Admission::new(IntakeLimits {
            at_once: 1,
            held: 2,
            held_bytes: 10,
            patience: Duration::ZERO,
        });
        let mut first = door.enter().unwrap();
        first.charge(6).unwrap();
        let turn = first.turn().await.unwrap();
        let mut second = door.enter().unwrap();
        assert_eq!(second.charge(5), Err(saturated()));
        assert!(second.turn().await.is_err());
        assert!(door.enter().is_err());
        drop((turn, first, second));
        let mut third = door.enter().unwrap();
        third.charge(10).unwrap();
        assert!(third.turn().await.is_ok());
    }
}
