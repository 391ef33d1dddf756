//! The moment at which a tool call gives up.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// When a call gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    duration: Duration,
}

impl Deadline {
    /// A deadline this far from now.
    pub fn after(duration: Duration) -> Self {
        Self {
            at: Instant::now() + duration,
            duration,
        }
    }

    /// The earlier of this deadline and one this far from now.
    pub(crate) fn min_after(self, duration: Duration) -> Self {
        let other = Self::after(duration);
        if other.at < self.at { other } else { self }
    }

    /// The remaining time; zero after the deadline.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The time between the start of the call and its deadline in seconds, rounded up.
    pub(crate) fn total_seconds(&self) -> u64 {
        self.duration
            .as_millis()
            .div_ceil(1_000)
            .try_into()
            .unwrap_or(u64::MAX)
    }

    /// Runs a future until the deadline; `None` if the deadline comes first.
    pub(crate) async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at, future).await.ok()
    }
}
