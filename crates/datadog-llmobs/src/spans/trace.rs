//! Loading the structure of a trace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::SEARCH;
use super::content_size::deferred_content;
use super::pages::{SpanPagesRead, unreadable_rows_note};
use super::request::Filter;
use crate::client::Client;
use crate::error::ClientError;
use crate::loaded::LoadedTrace;
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};

impl Client {
    /// The structure of a trace of any age. Its evaluations are current or a few seconds old. It is
    /// cached for a short time, and parallel calls for the same trace share one load.
    ///
    /// # Errors
    /// [`ClientError::TraceNotFound`] if it has no spans, and the errors of [`Client::execute`].
    pub async fn trace(&self, id: &TraceId, now_ms: i64) -> Result<Arc<LoadedTrace>, ClientError> {
        let caches = &self.hub.caches;
        let entry = caches.trace(self.fingerprint, id).await;
        let lifetime = self.hub.settings.structure_life;
        let out_of_time = || ClientError::Deadline {
            operation: SEARCH.name,
            seconds: self.deadline.total_seconds(),
        };
        let trace = entry
            .structure
            .get(&self.deadline, out_of_time, || async {
                let trace = self.load_structure(id, now_ms).await?;
                // An incomplete trace is shared with waiting calls, and soon loaded again.
                let lifetime = if trace.complete {
                    lifetime
                } else {
                    lifetime / 4
                };
                Ok((Arc::new(trace), lifetime))
            })
            .await?;
        caches
            .set_structure_bytes(self.fingerprint, id, &entry, trace.bytes)
            .await;
        Ok(trace)
    }

    async fn load_structure(&self, id: &TraceId, now_ms: i64) -> Result<LoadedTrace, ClientError> {
        let settings = &self.hub.settings;
        let window = lookback_window(now_ms, settings.lookback);
        let filter = Filter::trace(id);
        let mut spans = UniqueSpans::default();
        let read = self
            .read_spans(&filter, window, settings.structure_page, false, |page| {
                spans.extend(page);
            })
            .await?;
        let spans = spans.spans;
        if spans.is_empty() {
            return Err(if read.timed_out {
                ClientError::SearchTimedOut {
                    operation: SEARCH.name,
                    upstream: self.upstream_name(),
                }
            } else {
                ClientError::TraceNotFound(id.clone())
            });
        }
        let notes = self.completeness_notes(&read, spans.len());
        let tree = TraceTree::build(&spans);
        Ok(LoadedTrace {
            id: id.clone(),
            complete: read.stopped.is_none() && !read.timed_out,
            deferred_content: deferred_content(&tree),
            tree,
            window,
            notes,
            bytes: read.bytes,
        })
    }

    fn completeness_notes(&self, read: &SpanPagesRead, count: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(reason) = read.stopped {
            notes.push(format!(
                "the trace is not complete: only its first {count} spans were read, because {}",
                reason.clause()
            ));
        }
        if read.timed_out {
            notes.push(format!(
                "the trace may not be complete: the search timed out at {}",
                self.upstream_name()
            ));
        }
        notes.extend(unreadable_rows_note(read.unreadable_rows));
        notes
    }
}

/// Spans without repetitions: a row that moved between two pages while the trace grew is returned
/// twice.
#[derive(Default)]
struct UniqueSpans {
    spans: Vec<Arc<Span>>,
    index_of: HashMap<SpanId, usize>,
}

impl UniqueSpans {
    fn extend(&mut self, page: Vec<Span>) {
        for span in page {
            let is_repeated = self
                .index_of
                .get(&span.span_id)
                .and_then(|index| self.spans.get(*index))
                .is_some_and(|known| **known == span);
            if !is_repeated {
                self.index_of.insert(span.span_id.clone(), self.spans.len());
                self.spans.push(Arc::new(span));
            }
        }
    }
}

/// The time window of the search for a trace by its id.
fn lookback_window(now_ms: i64, lookback: Duration) -> TimeWindow {
    let back = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
    TimeWindow {
        from_ms: now_ms.saturating_sub(back),
        to_ms: now_ms,
    }
}
