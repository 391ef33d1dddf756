//! Counts requests, so that tests can assert how many a client sends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use llmobs_core::model::Span;

/// Requests to a backend since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests by route, `METHOD /path`, without the Agent's proxy prefix. Unknown paths count
    /// under `unknown`.
    pub requests: BTreeMap<String, u64>,
    /// How often the content of each span, by trace id and span id, was returned. Only with
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

    pub(super) fn count_request(&self, route: String) {
        *self.lock().requests.entry(route).or_default() += 1;
    }

    pub(super) fn count_content(&self, span: &Span) {
        if self.count_reads {
            let key = (span.trace_id.to_string(), span.span_id.to_string());
            *self.lock().contents.entry(key).or_default() += 1;
        }
    }

    pub(super) fn read(&self) -> RequestCounts {
        self.lock().clone()
    }
}
