//! The range of time that a question is about.

use serde::{Deserialize, Serialize};

/// A range of time in milliseconds since the Unix epoch; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeWindow {
    /// First millisecond.
    pub from_ms: i64,
    /// Last millisecond.
    pub to_ms: i64,
}

impl TimeWindow {
    /// Whether a moment, in milliseconds since the Unix epoch, lies inside.
    pub fn contains_ms(&self, ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&ms)
    }
}
