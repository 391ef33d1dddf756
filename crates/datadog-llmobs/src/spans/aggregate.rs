//! Aggregation: asked of a backend that does it, else worked out here from pages of spans.
//!
//! Datadog documents no aggregation over LLM spans. So its spans are paged, up to a number that a
//! tool call has time for; past it the answer is a sample and says so. Queries of buckets are
//! always searched for and never judged here: the site knows attributes (errors, documents,
//! prompts, rollups) that the documented answer does not bring.

use std::collections::HashSet;

use http::Method;
use serde_json::json;

use super::request::{Filter, PageRequest};
use super::search::unreadable_rows;
use crate::call::{ApiCall, JSON, Operation};
use crate::client::Client;
use crate::error::ClientError;
use crate::pager::{CursorPager, PagerLimits, Step};
use crate::retry::OperationClass;
use crate::site::Upstream;
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, ScannedSpan, SpanAggregator, Unit,
};
use llmobs_core::model::{Io, Span, SpanId, TimeWindow, TraceId};
use llmobs_core::query::{self, time};

pub(crate) static AGGREGATE: Operation = Operation {
    name: "aggregation",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/unstable/llm-obs-mcp/v1/trace/aggregate",
    media: JSON,
};

/// Parts of the window that are sampled evenly when a question is about change over time.
const MAX_SLICES: i64 = 12;

type Ids = HashSet<(TraceId, SpanId)>;

impl Client {
    /// Groups and figures over spans or traces. On a backend that aggregates by itself they are of
    /// all spans; elsewhere of at most [`aggregate_rows`](super::super::HubSettings) of them.
    ///
    /// # Errors
    /// [`ClientError::BadQuery`] for a query or facet that cannot be sent, and everything that
    /// [`Client::execute`] gives, if it comes before the first spans.
    pub async fn aggregate(&self, question: &AggregateRequest) -> Result<Aggregation, ClientError> {
        let queries = question.buckets().iter().map(|bucket| &bucket.query);
        for text in question.query.iter().chain(queries) {
            query::check_balance(text)?;
        }
        if let Some(answer) = self.aggregated_there(question).await? {
            return Ok(answer);
        }
        PagedAggregation::new(self, question)?.run().await
    }

    /// The upstream's own aggregation; `None` where it has none. A Datadog site is not even asked.
    async fn aggregated_there(
        &self,
        question: &AggregateRequest,
    ) -> Result<Option<Aggregation>, ClientError> {
        if matches!(self.upstream(), Upstream::Site(_)) {
            return Ok(None);
        }
        let refusals = &self.hub.caches.refusals;
        let key = (self.fingerprint, AGGREGATE.route);
        if refusals.get(&key).await.is_some() {
            return Ok(None);
        }
        let asked = self.execute(ApiCall::new(&AGGREGATE).body(json!(question)));
        match asked.await {
            Ok(answer) => {
                let status = answer.status;
                let read = serde_json::from_value(answer.value);
                let read =
                    read.map_err(|_| self.unreadable(&AGGREGATE, status, "other JSON".into()));
                read.map(Some)
            }
            Err(ClientError::Status(refusal))
                if matches!(refusal.status, 401 | 403 | 404 | 405 | 501) =>
            {
                refusals.insert(key, refusal.words).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// How a walk over pages went.
#[derive(Default)]
struct Walk {
    /// Start of the oldest span read, when there may be more behind it.
    cut_at_ms: Option<i64>,
    rows: u64,
}

/// An aggregation from pages.
struct PagedAggregation<'a> {
    client: &'a Client,
    question: &'a AggregateRequest,
    tally: SpanAggregator,
    rows: u64,
    sampled: bool,
    covered_from_ms: i64,
    notes: Vec<String>,
}

impl<'a> PagedAggregation<'a> {
    fn new(client: &'a Client, question: &'a AggregateRequest) -> Result<Self, ClientError> {
        Ok(Self {
            client,
            question,
            tally: SpanAggregator::new(question)?,
            rows: 0,
            sampled: false,
            covered_from_ms: question.window.from_ms,
            notes: Vec::new(),
        })
    }

    async fn run(mut self) -> Result<Aggregation, ClientError> {
        let slices = slices(self.question);
        let quota = (self.client.hub.settings.aggregate_rows / slices.len().max(1)).max(1);
        let several = slices.len() > 1;
        match self.question.selection_query() {
            Some(selection) if self.question.unit == Unit::Trace => {
                self.selected_traces(&selection, slices, quota).await?;
            }
            selection => {
                for slice in slices {
                    self.slice(selection.as_deref(), slice, quota).await?;
                }
            }
        }
        let mut answer = self.tally.finish(self.rows, self.sampled);
        if self.sampled {
            let which = if several {
                "the newest spans of each part of the window".to_owned()
            } else {
                let from = time::format_rfc3339(self.covered_from_ms);
                format!("the newest spans, back to {from}")
            };
            answer.notes.push(format!(
                "a sample: {} aggregates nothing by itself, so {which} were read; traces at its edges may lack spans; narrow the window or the query for all of them",
                self.client.upstream_name()
            ));
        }
        answer.notes.append(&mut self.notes);
        Ok(answer)
    }

    /// Reads one part of the window, each span of which counts.
    async fn slice(
        &mut self,
        selection: Option<&str>,
        slice: TimeWindow,
        quota: usize,
    ) -> Result<(), ClientError> {
        let scope = self.question.span_filters();
        let content = self.question.groups_by_content();
        let mut spans: Vec<Span> = Vec::new();
        let filter = Filter::search(selection, &scope, None);
        let walk = self.walk(&filter, slice, quota, content, |span| {
            spans.push(slim(span, content));
        });
        let window = TimeWindow {
            from_ms: walk.await?.cut_at_ms.unwrap_or(slice.from_ms),
            ..slice
        };
        self.covered_from_ms = window.from_ms;
        let mut members = Vec::new();
        for bucket in self.question.buckets() {
            let text = match selection {
                Some(all) => format!("({}) AND ({all})", bucket.query),
                None => bucket.query.clone(),
            };
            let filter = Filter::search(Some(&text), &scope, None);
            let mut ids = Ids::new();
            let walk = self.walk(&filter, window, quota, false, |span| {
                ids.insert(id_of(&span));
            });
            walk.await?;
            members.push(ids);
        }
        for span in &spans {
            self.count(span, true, &members);
        }
        Ok(())
    }

    /// Reads which traces have a span that is asked for, then all spans of these.
    async fn selected_traces(
        &mut self,
        selection: &str,
        slices: Vec<TimeWindow>,
        quota: usize,
    ) -> Result<(), ClientError> {
        let scope = self.question.span_filters();
        let content = self.question.groups_by_content();
        let wanted = Filter::search(Some(selection), &scope, None);
        let mut selected = Ids::new();
        for slice in slices {
            let walk = self.walk(&wanted, slice, quota, false, |span| {
                selected.insert(id_of(&span));
            });
            let cut_at = walk.await?.cut_at_ms;
            self.covered_from_ms = cut_at.unwrap_or(slice.from_ms);
        }
        let traces = distinct(selected.iter().map(|(trace, _)| trace));
        let batch = self.client.hub.settings.ids_per_query.max(1);
        let mut left = self.client.hub.settings.aggregate_rows;
        for traces in traces.chunks(batch) {
            if left == 0 {
                self.sampled = true;
                break;
            }
            let filter = Filter::search(None, &scope, Some(traces));
            let mut spans: Vec<Span> = Vec::new();
            let walk = self.walk(&filter, self.question.window, left, content, |span| {
                spans.push(slim(span, content));
            });
            walk.await?;
            left = left.saturating_sub(spans.len());
            let mut members = Vec::new();
            for bucket in self.question.buckets() {
                let filter = Filter::search(Some(&bucket.query), &scope, Some(traces));
                let mut ids = Ids::new();
                let walk = self.walk(&filter, self.question.window, quota, false, |span| {
                    ids.insert(id_of(&span));
                });
                walk.await?;
                members.push(ids);
            }
            for span in &spans {
                self.count(span, selected.contains(&id_of(span)), &members);
            }
        }
        Ok(())
    }

    fn count(&mut self, span: &Span, selected: bool, members: &[Ids]) {
        let id = id_of(span);
        let inside = members
            .iter()
            .enumerate()
            .filter(|(_, ids)| ids.contains(&id));
        let buckets = inside.fold(0, |bits, (at, _)| bits | 1 << at);
        self.tally.add(ScannedSpan {
            span,
            selected,
            buckets,
        });
    }

    /// Reads the newest spans of a filter, up to `quota`.
    async fn walk(
        &mut self,
        filter: &Filter,
        window: TimeWindow,
        quota: usize,
        content: bool,
        mut each: impl FnMut(Span),
    ) -> Result<Walk, ClientError> {
        let settings = &self.client.hub.settings;
        let most = if content {
            settings.content_page
        } else {
            settings.structure_page
        };
        let mut page_size = most.min(quota).max(1);
        let mut pager = CursorPager::new(
            PagerLimits {
                max_pages: settings.max_pages,
                max_bytes: settings.max_trace_bytes,
            },
            self.client.deadline,
        );
        let mut done = Walk::default();
        let mut cursor: Option<String> = None;
        let mut oldest = window.to_ms;
        loop {
            let request = PageRequest {
                filter,
                window,
                limit: page_size,
                cursor: cursor.as_deref(),
                newest_first: true,
                attachments: content,
            };
            let (page, bytes) = match self.client.search_page(&request).await {
                Ok(page) => page,
                Err(error) if error.is_too_large() && page_size > 1 => {
                    page_size /= 2;
                    continue;
                }
                // What was read until then is a sample.
                Err(error) if error.is_out_of_time() && self.rows > 0 => {
                    done.cut_at_ms = Some(oldest);
                    break;
                }
                Err(error) => return Err(error),
            };
            let note = unreadable_rows(page.unreadable_rows);
            self.notes.extend(note);
            self.sampled |= page.timed_out && page.next_cursor.is_none();
            done.rows += page.spans.len() as u64;
            self.rows += page.spans.len() as u64;
            for span in page.spans {
                oldest = oldest.min(span.start_ms());
                each(span);
            }
            match pager.advance(page.next_cursor, bytes) {
                Step::Next(next) if done.rows < quota as u64 => cursor = Some(next),
                Step::Complete => break,
                Step::Next(_) | Step::Stopped(_) => {
                    done.cut_at_ms = Some(oldest);
                    break;
                }
            }
        }
        self.sampled |= done.cut_at_ms.is_some();
        Ok(done)
    }
}

fn id_of(span: &Span) -> (TraceId, SpanId) {
    (span.trace_id.clone(), span.span_id.clone())
}

/// A span without what no group or measure of the question reads: many at a time are held.
fn slim(mut span: Span, content: bool) -> Span {
    if !content {
        span.input = Io::default();
        span.output = Io::default();
        span.tool_definitions = Vec::new();
    }
    span
}

fn distinct<'a>(ids: impl Iterator<Item = &'a TraceId>) -> Vec<TraceId> {
    let mut ids: Vec<TraceId> = ids.cloned().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The parts of the window that are read one by one, so that a sample is spread over all of a
/// question about change over time.
fn slices(question: &AggregateRequest) -> Vec<TimeWindow> {
    let TimeWindow { from_ms, to_ms } = question.window;
    let length = to_ms.saturating_sub(from_ms).max(1);
    let parts = match question.interval_ms {
        Some(interval) if interval > 0 => (length / interval).clamp(1, MAX_SLICES),
        _ => 1,
    };
    let step = length / parts;
    let slice = |part: i64| TimeWindow {
        from_ms: from_ms + part * step,
        to_ms: if part + 1 == parts {
            to_ms
        } else {
            from_ms + (part + 1) * step - 1
        },
    };
    (0..parts).map(slice).collect()
}
