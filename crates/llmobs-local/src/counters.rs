//! Counts of what was asked, so that a test can prove how little a client asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use llmobs_core::model::Span;

/// What was asked of a backend since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests by route, `METHOD /path`, without the Agent's proxy prefix. Unknown paths count
    /// under `unknown`.
    pub requests: BTreeMap<String, u64>,
    /// How often each span, by trace id and span id, was answered with its content. Only with
    /// `LocalOptions::count_reads`.
    pub contents: BTreeMap<(String, String), u64>,
}

pub(super) struct Counters {
    counts: Mutex<RequestCounts>,
    count_reads: bool,
}

impl Counters {
    pub(super) fn new(count_reads: bool) -> Self {
        Self {
            counts: Mutex::default(),
            count_reads,
        }
    }

    fn lock(&self) -> MutexGuard<'_, RequestCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request(&self, route: String) {
        *self.lock().requests.entry(route).or_default() += 1;
    }

    pub(super) fn content(&self, span: &Span) {
        if self.count_reads {
            let key = (span.trace_id.to_string(), span.span_id.to_string());
            *self.lock().contents.entry(key).or_default() += 1;
        }
    }

    pub(super) fn read(&self) -> RequestCounts {
        self.lock().clone()
    }
}
