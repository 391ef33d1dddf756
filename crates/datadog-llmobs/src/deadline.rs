//! The moment at which a tool call must have its answer, whatever that is by then.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// When a call's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// A deadline this far from now.
    pub fn after(length: Duration) -> Self {
        Self {
            at: Instant::now() + length,
            length,
        }
    }

    /// The earlier of this deadline and one this far from now.
    pub(crate) fn sooner(self, length: Duration) -> Self {
        let other = Self::after(length);
        if other.at < self.at { other } else { self }
    }

    /// What is left; zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// How long the call was allowed to take, in seconds, rounded up.
    pub(crate) fn seconds(&self) -> u64 {
        self.length
            .as_millis()
            .div_ceil(1_000)
            .try_into()
            .unwrap_or(u64::MAX)
    }

    /// Runs a future until the deadline; `None` when the time is over first.
    pub(crate) async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at, future).await.ok()
    }
}
