//! Parts that most answers have: the time window and the notes.

use serde::Serialize;
use serde_json::Value;

use datadog_llmobs::Gap;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::time;

/// The time window of a search as the answer shows it: `{from, to}` in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct WindowText {
    from: String,
    to: String,
}

impl From<TimeWindow> for WindowText {
    fn from(window: TimeWindow) -> Self {
        Self {
            from: time::format_rfc3339(window.from_ms),
            to: time::format_rfc3339(window.to_ms),
        }
    }
}

impl From<WindowText> for Value {
    fn from(window: WindowText) -> Self {
        serde_json::json!({"from": window.from, "to": window.to})
    }
}

/// The notes of an answer: short sentences of this server, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a note unless it is there already.
    pub(super) fn add(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    /// Adds a note for each attribute that the upstream did not return.
    pub(super) fn add_gaps(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            self.add(format!("not available: {} ({})", gap.what, gap.why));
        }
    }

    /// Notes that `limit` exceeds the maximum and was reduced to it.
    pub(super) fn add_reduced_limit(&mut self, limit: usize, max: usize) {
        if limit > max {
            self.add(format!(
                "`limit` was reduced to the maximum of {max}; use next_cursor for the remaining rows"
            ));
        }
    }
}

impl Extend<String> for Notes {
    fn extend<I: IntoIterator<Item = String>>(&mut self, notes: I) {
        notes.into_iter().for_each(|note| self.add(note));
    }
}
