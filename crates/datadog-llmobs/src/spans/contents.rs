//! The complete inputs and outputs of a trace's spans.
//!
//! The structure contains inputs and outputs up to 25 KB. The content of other spans is read
//! separately and cached. One mutex per trace orders the readers: the first that misses a span loads
//! it while the others wait, so parallel calls for overlapping spans read each span once. Each page is
//! cached at once, so a reader that is cancelled or fails loses no page.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::content_size::content_bytes;
use super::request::Filter;
use super::{SEARCH, SpanContents, SpanSelection};
use crate::cache::{CachedContent, ContentState};
use crate::client::Client;
use crate::error::ClientError;
use crate::loaded::{Gap, LoadedTrace};
use llmobs_core::analysis::tree::NodeId;
use llmobs_core::model::{Span, SpanId};

const MISSING_CONTENT: &str = "full input and output of some spans";

impl Client {
    /// The contents of spans that the structure lacks, with the evaluations of `trace`. A span whose
    /// content could not be read is returned as in the structure, with a gap.
    ///
    /// # Errors
    /// The errors of [`Client::execute`]. Pages that were read before the error stay cached.
    pub async fn contents(
        &self,
        trace: &LoadedTrace,
        selection: SpanSelection<'_>,
    ) -> Result<SpanContents, ClientError> {
        let mut contents = SpanContents::default();
        let deferred = deferred_spans(trace, selection);
        if deferred.is_empty() {
            return Ok(contents);
        }
        let caches = &self.hub.caches;
        let entry = caches.trace(self.fingerprint, &trace.id).await;
        let cache = &entry.contents;
        let loads_before = cache.finished_loads.load(Ordering::Acquire);
        let Some(mut state) = self.deadline.limit(cache.state.lock()).await else {
            return Err(ClientError::Deadline {
                operation: SEARCH.name,
                seconds: self.deadline.total_seconds(),
            });
        };
        let now = Instant::now();
        let missing: Vec<&Arc<Span>> = deferred
            .iter()
            .copied()
            .filter(|span| !state.is_current(span, now))
            .collect();
        if !missing.is_empty() {
            if let Some((number, error)) = &state.failure
                && *number > loads_before
                && !error.is_out_of_time()
            {
                return Err(error.clone());
            }
            let loaded = self.load_contents(trace, &missing, &mut state).await;
            cache.bytes.store(state.bytes(), Ordering::Relaxed);
            let number = cache.finished_loads.fetch_add(1, Ordering::AcqRel) + 1;
            caches.reinsert(self.fingerprint, &trace.id, &entry).await;
            match loaded {
                Ok(reason) => contents.gaps.extend(reason.map(|why| Gap {
                    what: MISSING_CONTENT,
                    why,
                })),
                Err(error) => {
                    state.failure = Some((number, error.clone()));
                    return Err(error);
                }
            }
        }
        let not_found = state.collect(&deferred, &mut contents);
        if not_found > 0 && contents.gaps.is_empty() {
            contents.gaps.push(Gap {
                what: MISSING_CONTENT,
                why: format!(
                    "{} did not return the content of {not_found} spans",
                    self.upstream_name()
                ),
            });
        }
        Ok(contents)
    }

    /// Reads missing contents into the cache. Returns the reason if not all of them were read.
    async fn load_contents(
        &self,
        trace: &LoadedTrace,
        missing: &[&Arc<Span>],
        state: &mut ContentState,
    ) -> Result<Option<String>, ClientError> {
        let lifetime = self.content_lifetime(trace);
        let page_size = self.hub.settings.content_page;
        let mut stopped = None;
        for filter in self.plan(trace, missing, state) {
            let read = self
                .read_spans(&filter, trace.window, page_size, true, |page| {
                    let fresh_until = Instant::now() + lifetime;
                    for span in page {
                        state.insert(span, fresh_until);
                    }
                })
                .await?;
            if let Some(reason) = read.stopped {
                stopped = Some(format!(
                    "not all of it was read, because {}",
                    reason.clause()
                ));
                break;
            }
            if read.timed_out {
                stopped = Some(format!("the search timed out at {}", self.upstream_name()));
            }
        }
        if stopped.is_none() {
            // Content that does not exist is not requested again during the same lifetime.
            let now = Instant::now();
            for span in missing {
                if !state.is_current(span, now) {
                    state.insert_not_found(span, now + lifetime);
                }
            }
        }
        Ok(stopped)
    }

    /// The searches for missing contents: one for the entire trace if it is small and nothing is
    /// cached, one that excludes the few spans that are not needed, or several that name the missing
    /// ones.
    fn plan(
        &self,
        trace: &LoadedTrace,
        missing: &[&Arc<Span>],
        state: &ContentState,
    ) -> Vec<Filter> {
        let settings = &self.hub.settings;
        let max_ids = settings.ids_per_query.max(1);
        let missing_ids: HashSet<&SpanId> = missing.iter().map(|span| &span.span_id).collect();
        let mut others: Vec<&SpanId> = trace
            .tree
            .spans()
            .iter()
            .map(|span| &span.span_id)
            .filter(|id| !missing_ids.contains(id))
            .collect();
        others.sort_unstable();
        others.dedup();
        let total = missing_ids.len() + others.len();
        let now = Instant::now();
        let nothing_cached = !state
            .spans
            .values()
            .any(|content| content.fresh_until > now);
        if others.is_empty() || (nothing_cached && total <= settings.small_trace) {
            return vec![Filter::trace(&trace.id)];
        }
        if others.len() <= max_ids && others.len() < missing_ids.len() {
            return vec![Filter::all_but(&trace.id, others.into_iter())];
        }
        // In the order of the trace, so that the same call sends the same queries.
        let mut named = HashSet::new();
        let ids: Vec<&SpanId> = missing
            .iter()
            .map(|span| &span.span_id)
            .filter(|id| named.insert(*id))
            .collect();
        ids.chunks(max_ids)
            .map(|batch| Filter::spans(&trace.id, batch.iter().copied()))
            .collect()
    }

    /// The lifetime of cached contents: spans of a running trace still change, those of an older one
    /// hardly do.
    fn content_lifetime(&self, trace: &LoadedTrace) -> Duration {
        let settings = &self.hub.settings;
        let last_end_ms = trace
            .tree
            .nodes()
            .map(|node| trace.tree.end_ns(node) / 1_000_000)
            .max();
        let young_ms = i64::try_from(settings.young_age.as_millis()).unwrap_or(i64::MAX);
        let age_ms = trace
            .window
            .to_ms
            .saturating_sub(last_end_ms.unwrap_or_default());
        if age_ms < young_ms {
            settings.young_content_life
        } else {
            settings.content_life
        }
    }
}

impl ContentState {
    /// Whether the cached content of a span is fresh and belongs to this version of the span. A span
    /// that was sent again with another end has new content.
    fn is_current(&self, span: &Span, now: Instant) -> bool {
        self.spans.get(&span.span_id).is_some_and(|content| {
            let cached = &content.span;
            content.fresh_until > now
                && cached.start_ns == span.start_ns
                && cached.duration_ns == span.duration_ns
                && cached.status == span.status
                && cached.name == span.name
        })
    }

    fn insert(&mut self, span: Span, fresh_until: Instant) {
        let bytes = content_bytes(&span);
        let content = CachedContent {
            span: Arc::new(span),
            fresh_until,
            found: true,
            bytes,
        };
        self.spans.insert(content.span.span_id.clone(), content);
    }

    fn insert_not_found(&mut self, span: &Arc<Span>, fresh_until: Instant) {
        let content = CachedContent {
            span: Arc::clone(span),
            fresh_until,
            found: false,
            bytes: 0,
        };
        self.spans.insert(span.span_id.clone(), content);
    }

    /// Adds the cached contents of spans. Returns how many the upstream did not return.
    fn collect(&mut self, spans: &[&Arc<Span>], contents: &mut SpanContents) -> usize {
        let mut not_found = 0;
        for span in spans {
            let content = self.content(span);
            not_found += usize::from(content.is_none_or(|content| !content.found));
            let complete = content.map_or(*span, |content| &content.span);
            contents
                .spans
                .insert(span.span_id.clone(), Arc::clone(complete));
        }
        not_found
    }

    /// The content of a span, with the evaluations of the structure.
    fn content(&mut self, structure: &Span) -> Option<&CachedContent> {
        let content = self.spans.get_mut(&structure.span_id)?;
        if content.span.evaluations != structure.evaluations
            || content.span.feedback != structure.feedback
        {
            let span = Arc::make_mut(&mut content.span);
            span.evaluations.clone_from(&structure.evaluations);
            span.feedback.clone_from(&structure.feedback);
        }
        Some(content)
    }

    fn bytes(&self) -> usize {
        self.spans.values().map(|content| content.bytes).sum()
    }
}

/// The selected spans whose content is not complete in the structure, in order.
fn deferred_spans<'a>(trace: &'a LoadedTrace, selection: SpanSelection<'_>) -> Vec<&'a Arc<Span>> {
    let selected: Vec<NodeId> = match selection {
        SpanSelection::All => trace.deferred_content.clone(),
        SpanSelection::Spans(ids) => {
            let nodes = ids.iter().filter_map(|id| trace.tree.find(id.as_str()));
            let mut nodes: Vec<NodeId> = nodes
                .filter(|node| trace.deferred_content.binary_search(node).is_ok())
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        }
    };
    selected
        .into_iter()
        .map(|node| trace.tree.span(node))
        .collect()
}
