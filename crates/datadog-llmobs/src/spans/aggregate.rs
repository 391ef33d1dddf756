//! Aggregation of spans and traces, by the backend where it supports it, or else in the client.
//!
//! Datadog documents no aggregation of LLM spans. The client therefore reads pages of spans, up to a
//! number that fits into a tool call; beyond that the result is a sample, and a note says so. Queries of
//! buckets are always sent to the search and never evaluated here: the site has attributes (errors,
//! documents, prompts, rollups) that the documented response lacks.

use std::collections::HashSet;
use std::ops::ControlFlow;

use http::Method;
use serde_json::json;

use super::pages::{SpanPages, unreadable_rows_note};
use super::request::Filter;
use crate::call::{ApiCall, JSON, Operation};
use crate::client::Client;
use crate::error::ClientError;
use crate::pager::OutOfTime;
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

/// The maximum number of parts of the time window that a time series samples evenly.
const MAX_SLICES: i64 = 12;

type SpanKeys = HashSet<(TraceId, SpanId)>;

impl Client {
    /// Groups and measures of spans or traces. A backend that supports aggregation covers all spans;
    /// otherwise at most [`aggregate_rows`](super::super::HubSettings) of them are read.
    ///
    /// # Errors
    /// [`ClientError::BadQuery`] for a query or facet that cannot be sent, and the errors of
    /// [`Client::execute`] before the first spans were read.
    pub async fn aggregate(&self, request: &AggregateRequest) -> Result<Aggregation, ClientError> {
        let queries = request.buckets().iter().map(|bucket| &bucket.query);
        for text in request.query.iter().chain(queries) {
            query::check_balance(text)?;
        }
        if let Some(aggregation) = self.upstream_aggregation(request).await? {
            return Ok(aggregation);
        }
        PagedAggregation::new(self, request)?.run().await
    }

    /// The aggregation of the upstream; `None` if it does not support one, as Datadog sites.
    async fn upstream_aggregation(
        &self,
        request: &AggregateRequest,
    ) -> Result<Option<Aggregation>, ClientError> {
        if matches!(self.upstream(), Upstream::Site(_)) {
            return Ok(None);
        }
        let rejections = &self.hub.caches.rejections;
        let key = (self.fingerprint, AGGREGATE.route);
        if rejections.get(&key).await.is_some() {
            return Ok(None);
        }
        let call = ApiCall::new(&AGGREGATE).body(json!(request));
        match self.execute(call).await {
            Ok(response) => serde_json::from_value(response.value)
                .map(Some)
                .map_err(|_| self.unreadable(&AGGREGATE, response.status, "other JSON".into())),
            Err(ClientError::Status(response))
                if matches!(response.status, 401 | 403 | 404 | 405 | 501) =>
            {
                rejections.insert(key, response.message).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// An aggregation of pages of spans.
struct PagedAggregation<'a> {
    client: &'a Client,
    request: &'a AggregateRequest,
    aggregator: SpanAggregator,
    rows: u64,
    sampled: bool,
    covered_from_ms: i64,
    notes: Vec<String>,
}

impl<'a> PagedAggregation<'a> {
    fn new(client: &'a Client, request: &'a AggregateRequest) -> Result<Self, ClientError> {
        Ok(Self {
            client,
            request,
            aggregator: SpanAggregator::new(request)?,
            rows: 0,
            sampled: false,
            covered_from_ms: request.window.from_ms,
            notes: Vec::new(),
        })
    }

    async fn run(mut self) -> Result<Aggregation, ClientError> {
        let slices = slices(self.request);
        let quota = (self.client.hub.settings.aggregate_rows / slices.len().max(1)).max(1);
        let has_slices = slices.len() > 1;
        match self.request.selection_query() {
            Some(selection) if self.request.unit == Unit::Trace => {
                self.aggregate_matching_traces(&selection, slices, quota)
                    .await?;
            }
            selection => {
                for slice in slices {
                    self.aggregate_slice(selection.as_deref(), slice, quota)
                        .await?;
                }
            }
        }
        let mut aggregation = self.aggregator.finish(self.rows, self.sampled);
        if self.sampled {
            let which = if has_slices {
                "the newest spans of each part of the time window".to_owned()
            } else {
                let from = time::format_rfc3339(self.covered_from_ms);
                format!("the newest spans, back to {from}")
            };
            aggregation.notes.push(format!(
                "a sample: {} does not support aggregation, so {which} were read; traces at the edges of the sample may lack spans; narrow the time window or the query to cover all spans",
                self.client.upstream_name()
            ));
        }
        aggregation.notes.append(&mut self.notes);
        Ok(aggregation)
    }

    /// Reads one part of the time window and counts each of its spans.
    async fn aggregate_slice(
        &mut self,
        selection: Option<&str>,
        slice: TimeWindow,
        quota: usize,
    ) -> Result<(), ClientError> {
        let scope = self.request.span_filters();
        let content = self.request.groups_by_content();
        let mut spans: Vec<Span> = Vec::new();
        let filter = Filter::search(selection, &scope, None);
        let oldest_read_ms = self
            .read_newest(&filter, slice, quota, content, |span| {
                spans.push(without_unread_content(span, content));
            })
            .await?;
        let window = TimeWindow {
            from_ms: oldest_read_ms.unwrap_or(slice.from_ms),
            ..slice
        };
        self.covered_from_ms = window.from_ms;
        let mut members = Vec::new();
        for bucket in self.request.buckets() {
            let text = match selection {
                Some(all) => format!("({}) AND ({all})", bucket.query),
                None => bucket.query.clone(),
            };
            let filter = Filter::search(Some(&text), &scope, None);
            members.push(self.matching_keys(&filter, window, quota).await?);
        }
        for span in &spans {
            self.count(span, true, &members);
        }
        Ok(())
    }

    /// Finds the traces with a matching span, and counts all their spans.
    async fn aggregate_matching_traces(
        &mut self,
        selection: &str,
        slices: Vec<TimeWindow>,
        quota: usize,
    ) -> Result<(), ClientError> {
        let scope = self.request.span_filters();
        let content = self.request.groups_by_content();
        let filter = Filter::search(Some(selection), &scope, None);
        let mut matching = SpanKeys::new();
        for slice in slices {
            let oldest_read_ms = self
                .read_newest(&filter, slice, quota, false, |span| {
                    matching.insert(span_key(&span));
                })
                .await?;
            self.covered_from_ms = oldest_read_ms.unwrap_or(slice.from_ms);
        }
        let traces = distinct(matching.iter().map(|(trace, _)| trace));
        let batch = self.client.hub.settings.ids_per_query.max(1);
        let mut remaining = self.client.hub.settings.aggregate_rows;
        for traces in traces.chunks(batch) {
            if remaining == 0 {
                self.sampled = true;
                break;
            }
            let filter = Filter::search(None, &scope, Some(traces));
            let mut spans: Vec<Span> = Vec::new();
            self.read_newest(&filter, self.request.window, remaining, content, |span| {
                spans.push(without_unread_content(span, content));
            })
            .await?;
            remaining = remaining.saturating_sub(spans.len());
            let mut members = Vec::new();
            for bucket in self.request.buckets() {
                let filter = Filter::search(Some(&bucket.query), &scope, Some(traces));
                let window = self.request.window;
                members.push(self.matching_keys(&filter, window, quota).await?);
            }
            for span in &spans {
                self.count(span, matching.contains(&span_key(span)), &members);
            }
        }
        Ok(())
    }

    /// The spans that match a filter.
    async fn matching_keys(
        &mut self,
        filter: &Filter,
        window: TimeWindow,
        quota: usize,
    ) -> Result<SpanKeys, ClientError> {
        let mut keys = SpanKeys::new();
        self.read_newest(filter, window, quota, false, |span| {
            keys.insert(span_key(&span));
        })
        .await?;
        Ok(keys)
    }

    fn count(&mut self, span: &Span, selected: bool, members: &[SpanKeys]) {
        let key = span_key(span);
        let containing = members
            .iter()
            .enumerate()
            .filter(|(_, keys)| keys.contains(&key));
        let buckets = containing.fold(0, |bits, (index, _)| bits | 1 << index);
        self.aggregator.add(ScannedSpan {
            span,
            selected,
            buckets,
        });
    }

    /// Reads the newest spans that match a filter, up to `quota`. Returns the start of the oldest span
    /// read if older ones may exist.
    async fn read_newest(
        &mut self,
        filter: &Filter,
        window: TimeWindow,
        quota: usize,
        content: bool,
        mut consume: impl FnMut(Span) + Send,
    ) -> Result<Option<i64>, ClientError> {
        let settings = &self.client.hub.settings;
        let max_page_size = if content {
            settings.content_page
        } else {
            settings.structure_page
        };
        let source = SpanPages {
            client: self.client,
            filter,
            window,
            newest_first: true,
            attachments: content,
        };
        let out_of_time = if self.rows > 0 {
            OutOfTime::KeepsEarlierData
        } else {
            OutOfTime::KeepsPages
        };
        let mut rows = 0;
        let mut oldest_ms = window.to_ms;
        let mut notes = Vec::new();
        let mut timed_out = false;
        let read = self
            .client
            .read_pages(&source, max_page_size.min(quota), out_of_time, |page| {
                notes.extend(unreadable_rows_note(page.unreadable_rows));
                timed_out = page.timed_out;
                rows += page.spans.len();
                for span in page.spans {
                    oldest_ms = oldest_ms.min(span.start_ms());
                    consume(span);
                }
                if rows < quota {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .await?;
        self.notes.append(&mut notes);
        self.rows += rows as u64;
        // A timeout on the last page means that older spans may exist, but not where they start.
        self.sampled |= read.stopped.is_some() || timed_out;
        Ok(read.stopped.map(|_| oldest_ms))
    }
}

fn span_key(span: &Span) -> (TraceId, SpanId) {
    (span.trace_id.clone(), span.span_id.clone())
}

/// Drops the content of a span unless the aggregation reads it, because many spans are in memory at once.
fn without_unread_content(mut span: Span, content: bool) -> Span {
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

/// The parts of the time window that are read one after the other, so that the sample of a time series
/// covers its entire window.
fn slices(request: &AggregateRequest) -> Vec<TimeWindow> {
    let TimeWindow { from_ms, to_ms } = request.window;
    let length = to_ms.saturating_sub(from_ms).max(1);
    let parts = match request.interval_ms {
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
