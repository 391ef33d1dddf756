//! The whole inputs and outputs of a trace's spans, each read at most once per life.
//!
//! The structure already holds inputs and outputs up to 25 KB; a span whose both sides came that
//! way needs no second reading. For the others one mutex per trace orders the readers: who finds
//! a span missing loads it while the rest wait, so that parallel calls for overlapping sets never
//! read a span twice. What a page brought is kept at once: a reader that is dropped or fails half
//! way loses nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::request::Filter;
use super::trace::Walk;
use super::{Gap, LoadedTrace, SEARCH, SpanContents, SpanSelection};
use crate::cache::{CachedContent, ContentState};
use crate::client::Client;
use crate::error::ClientError;
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Io, Span, SpanId};

/// A side below this size surely came whole with the structure. The API moves sides above 25 KB
/// out of it; the margin is for what sizes are counted differently.
const INLINE_BYTES: usize = 16 * 1024;

const WHAT: &str = "full input and output of some spans";

impl Client {
    /// What the structure lacks of the contents of spans; evaluations are those of `trace`. A
    /// span whose content could not be read stands as the structure has it, and a gap says so.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives; what was read before the error is kept.
    pub async fn contents(
        &self,
        trace: &LoadedTrace,
        which: SpanSelection<'_>,
    ) -> Result<SpanContents, ClientError> {
        let mut contents = SpanContents::default();
        let wanted = wanted(trace, which);
        if wanted.is_empty() {
            return Ok(contents);
        }
        let caches = &self.hub.caches;
        let entry = caches.entry(self.fingerprint, &trace.id).await;
        let shelf = &entry.contents;
        let arrived = shelf.finished.load(Ordering::Acquire);
        let Some(mut state) = self.deadline.limit(shelf.state.lock()).await else {
            return Err(ClientError::Deadline {
                operation: SEARCH.name,
                seconds: self.deadline.seconds(),
            });
        };
        let now = Instant::now();
        let missing: Vec<&Arc<Span>> = wanted
            .iter()
            .copied()
            .filter(|span| !state.holds(span, now))
            .collect();
        if !missing.is_empty() {
            if let Some((number, error)) = &state.failure
                && *number > arrived
                && !error.is_out_of_time()
            {
                return Err(error.clone());
            }
            let loaded = self.load_contents(trace, &missing, &mut state).await;
            shelf.bytes.store(state.bytes(), Ordering::Relaxed);
            let number = shelf.finished.fetch_add(1, Ordering::AcqRel) + 1;
            caches.reinsert(self.fingerprint, &trace.id, &entry).await;
            match loaded {
                Ok(why) => contents.gaps.extend(why.map(|why| Gap { what: WHAT, why })),
                Err(error) => {
                    state.failure = Some((number, error.clone()));
                    return Err(error);
                }
            }
        }
        let mut not_found = 0_usize;
        for span in wanted {
            let content = state.content(span);
            not_found += usize::from(content.is_none_or(|content| !content.found));
            let whole = content.map_or(span, |content| &content.span);
            contents
                .spans
                .insert(span.span_id.clone(), Arc::clone(whole));
        }
        if not_found > 0 && contents.gaps.is_empty() {
            contents.gaps.push(Gap {
                what: WHAT,
                why: format!(
                    "{} did not give the content of {not_found} spans",
                    self.upstream_name()
                ),
            });
        }
        Ok(contents)
    }

    /// Reads what is missing into the shelf. Gives the reason if not everything was read.
    async fn load_contents(
        &self,
        trace: &LoadedTrace,
        missing: &[&Arc<Span>],
        state: &mut ContentState,
    ) -> Result<Option<String>, ClientError> {
        let life = self.content_life(trace);
        let page_size = self.hub.settings.content_page;
        let mut stopped = None;
        for filter in self.plan(trace, missing, state) {
            let walk: Walk = self
                .walk(&filter, trace.window, page_size, true, |page| {
                    let fresh_until = Instant::now() + life;
                    for span in page {
                        state.put(span, fresh_until);
                    }
                })
                .await?;
            if let Some(stop) = walk.stopped {
                stopped = Some(format!("not all of it was read, because {}", stop.why()));
                break;
            }
            if walk.timed_out {
                stopped = Some(format!("{} ran out of time", self.upstream_name()));
            }
        }
        if stopped.is_none() {
            // What is not there now is not asked for again during the same life.
            let now = Instant::now();
            for span in missing {
                if !state.holds(span, now) {
                    state.stand_in(span, now + life);
                }
            }
        }
        Ok(stopped)
    }

    /// The searches that bring what is missing: one for the whole trace while nothing is there,
    /// else one that names the few that are there already, else some that name what is missing.
    fn plan(
        &self,
        trace: &LoadedTrace,
        missing: &[&Arc<Span>],
        state: &ContentState,
    ) -> Vec<Filter> {
        let settings = &self.hub.settings;
        let most = settings.ids_per_query.max(1);
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
        let untouched = !state
            .spans
            .values()
            .any(|content| content.fresh_until > now);
        if others.is_empty() || (untouched && total <= settings.small_trace) {
            return vec![Filter::trace(&trace.id)];
        }
        if others.len() <= most && others.len() < missing_ids.len() {
            return vec![Filter::all_but(&trace.id, others.into_iter())];
        }
        // In the order of the trace, so that the same question reads the same.
        let mut named = HashSet::new();
        let ids: Vec<&SpanId> = missing
            .iter()
            .map(|span| &span.span_id)
            .filter(|id| named.insert(*id))
            .collect();
        ids.chunks(most)
            .map(|batch| Filter::spans(&trace.id, batch.iter().copied()))
            .collect()
    }

    /// Spans of a running trace are still written; those of an older one hardly change.
    fn content_life(&self, trace: &LoadedTrace) -> Duration {
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
    /// Whether a span's content is here, fresh, and of the span as the structure knows it now: a
    /// span that was sent again with another end has new content.
    fn holds(&self, span: &Span, now: Instant) -> bool {
        self.spans.get(&span.span_id).is_some_and(|content| {
            let known = &content.span;
            content.fresh_until > now
                && known.start_ns == span.start_ns
                && known.duration_ns == span.duration_ns
                && known.status == span.status
                && known.name == span.name
        })
    }

    fn put(&mut self, span: Span, fresh_until: Instant) {
        let bytes = size_up_to(&span, usize::MAX);
        let content = CachedContent {
            span: Arc::new(span),
            fresh_until,
            found: true,
            bytes,
        };
        self.spans.insert(content.span.span_id.clone(), content);
    }

    fn stand_in(&mut self, span: &Arc<Span>, fresh_until: Instant) {
        let content = CachedContent {
            span: Arc::clone(span),
            fresh_until,
            found: false,
            bytes: 0,
        };
        self.spans.insert(span.span_id.clone(), content);
    }

    /// A span's content with the evaluations that the structure has now.
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

/// The spans whose content must be read apart from the structure, in order; of a span id that
/// occurs twice the first.
pub(super) fn apart(tree: &TraceTree) -> Vec<NodeId> {
    let is_first = |node: NodeId| tree.find(tree.span(node).span_id.as_str()) == Some(node);
    tree.nodes()
        .filter(|node| !is_inline(tree.span(*node)) && is_first(*node))
        .collect()
}

fn wanted<'a>(trace: &'a LoadedTrace, which: SpanSelection<'_>) -> Vec<&'a Arc<Span>> {
    let named: Vec<NodeId> = match which {
        SpanSelection::All => trace.apart.clone(),
        SpanSelection::Spans(ids) => {
            let nodes = ids.iter().filter_map(|id| trace.tree.find(id.as_str()));
            let mut nodes: Vec<NodeId> = nodes
                .filter(|node| trace.apart.binary_search(node).is_ok())
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        }
    };
    let spans = named.into_iter().map(|node| trace.tree.span(node));
    spans.collect()
}

/// Whether the structure holds the whole content.
fn is_inline(span: &Span) -> bool {
    let whole = |io: &Io| {
        !io.is_empty()
            && !io.extra.keys().any(|key| key.contains("attachment"))
            && io_size_up_to(io, INLINE_BYTES) < INLINE_BYTES
    };
    whole(&span.input) && whole(&span.output)
}

/// Roughly the bytes of a span's content; counting stops at `most`.
fn size_up_to(span: &Span, most: usize) -> usize {
    let mut size = io_size_up_to(&span.input, most) + io_size_up_to(&span.output, most);
    let expected = span.expected_output.iter();
    for value in expected
        .chain(span.metadata.values())
        .chain(&span.tool_definitions)
    {
        add_size(value, &mut size, most);
    }
    size
}

fn io_size_up_to(io: &Io, most: usize) -> usize {
    let mut size = 0;
    let messages = io.messages.iter().map(|message| &message.0);
    for value in messages
        .chain(&io.value)
        .chain(&io.documents)
        .chain(&io.prompt)
        .chain(io.extra.values())
    {
        add_size(value, &mut size, most);
    }
    size
}

fn add_size(value: &Value, size: &mut usize, most: usize) {
    if *size >= most {
        return;
    }
    *size = size.saturating_add(8);
    match value {
        Value::String(text) => *size = size.saturating_add(text.len()),
        Value::Array(items) => items.iter().for_each(|item| add_size(item, size, most)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            *size = size.saturating_add(key.len());
            add_size(item, size, most);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
