//! The time window of a search.

use serde::{Deserialize, Serialize};

/// A range of time in milliseconds since the Unix epoch; both ends are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeWindow {
    /// First millisecond.
    pub from_ms: i64,
    /// Last millisecond.
    pub to_ms: i64,
}

impl TimeWindow {
    /// Whether the window contains a time in milliseconds since the Unix epoch.
    pub fn contains_ms(&self, ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&ms)
    }
}
