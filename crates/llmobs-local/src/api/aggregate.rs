//! `POST /api/unstable/llm-obs-mcp/v1/trace/aggregate`: groups and aggregates over all spans of a
//! time window. Datadog has no such endpoint; there, the client reads all pages and aggregates.
//!
//! Request and response are the types of [`llmobs_core::analysis::aggregate`], as plain JSON.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::spans::parse_query;
use crate::Backend;
use crate::http::{ApiError, json_plain, read_small_json, run_blocking};
use crate::store::Search;
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, ColumnAggregator, RowAggregator, ScannedSpan, SpanAggregator,
    Unit,
};
use llmobs_core::model::Span;
use llmobs_core::query::{Query, SpanContext};

/// Most groups of a response; more than any answer shows.
const MAX_GROUPS: usize = 10_000;
/// Most buckets: the number of bits of [`ScannedSpan`].
const MAX_BUCKETS: usize = 32;

pub(super) async fn aggregate(
    State(backend): State<Arc<Backend>>,
    http_request: Request,
) -> Response {
    let request = read_small_json(http_request.into_body())
        .await
        .and_then(|request| {
            serde_json::from_value(request).map_err(|error| {
                ApiError::bad_request(format!("invalid aggregation request: {error}"))
            })
        });
    let aggregation = match request {
        Ok(request) => run_blocking(move || run(&backend, request)).await,
        Err(error) => Err(error),
    };
    match aggregation {
        Ok(aggregation) => json_plain(StatusCode::OK, &json!(aggregation)),
        Err(error) => error.into_response(),
    }
}

/// Decides whether a span matches a query.
enum SpanMatcher {
    /// The query depends on the span alone.
    Query(Query),
    /// The query depends on other spans of the trace: the ids that a search returned.
    Ids(HashSet<(String, String)>),
}

impl SpanMatcher {
    fn matches(&self, span: &Span) -> bool {
        match self {
            SpanMatcher::Query(query) => query.matches(&SpanContext::without_trace(span)),
            SpanMatcher::Ids(ids) => ids.contains(&id_of(span)),
        }
    }
}

fn id_of(span: &Span) -> (String, String) {
    (span.trace_id.to_string(), span.span_id.to_string())
}

fn run(backend: &Backend, mut request: AggregateRequest) -> Result<Aggregation, ApiError> {
    let started = Instant::now();
    request.limit = request.limit.min(MAX_GROUPS);
    if request.buckets().len() > MAX_BUCKETS {
        return Err(ApiError::bad_request(format!(
            "too many buckets; use at most {MAX_BUCKETS}"
        )));
    }
    let invalid = |error| ApiError::bad_request(format!("invalid `group_by`: {error}"));
    let columns = ColumnAggregator::new(&request).map_err(invalid)?;
    let mut spans = SpanAggregator::new(&request).map_err(invalid)?;
    let scan = AggregationScan {
        backend,
        request: &request,
        started,
        partial: false,
    };
    // Validate the query alone: combined with tags, invalid syntax could parse as plain text.
    if let Some(text) = &request.query {
        parse_query(text)?;
    }
    let selection = match request.selection_query() {
        Some(text) => Some(parse_query(&text)?),
        None => None,
    };
    let bucket_queries = request
        .buckets()
        .iter()
        .map(|bucket| parse_query(&bucket.query))
        .collect::<Result<Vec<Query>, _>>()?;
    // Spans are aggregated one by one; traces and calls must be assembled first.
    if let Some(mut columns) = columns {
        let mut aggregated = scan.gather(selection.clone(), &bucket_queries, &mut columns)?;
        if columns.overflowed_in_partitions() {
            columns = columns.single_threaded();
            aggregated = scan.gather(selection.clone(), &bucket_queries, &mut columns)?;
        }
        if aggregated.is_some() {
            return Ok(columns.finish());
        }
    } else if let Some(rows) = scan.gather(selection.clone(), &bucket_queries, &mut spans)? {
        return Ok(spans.finish(rows, false));
    }
    scan.aggregate_spans(spans, selection, bucket_queries)
}

/// The searches of one aggregation, which share a time budget.
struct AggregationScan<'a> {
    backend: &'a Backend,
    request: &'a AggregateRequest,
    started: Instant,
    partial: bool,
}

impl AggregationScan<'_> {
    /// Aggregates the spans that searches return.
    fn aggregate_spans(
        mut self,
        mut spans: SpanAggregator,
        selection: Option<Query>,
        bucket_queries: Vec<Query>,
    ) -> Result<Aggregation, ApiError> {
        let buckets = bucket_queries
            .into_iter()
            .map(|query| self.matcher(query))
            .collect::<Result<Vec<_>, _>>()?;
        let mut rows = 0;
        let mut add = |span: &Span, selected: bool| {
            rows += 1;
            let in_buckets = buckets.iter().enumerate().filter(|(_, b)| b.matches(span));
            let buckets = in_buckets.fold(0, |bits, (at, _)| bits | 1 << at);
            spans.add(ScannedSpan {
                span,
                selected,
                buckets,
            });
        };
        match self.request.unit {
            Unit::Span => self.search(selection, |span| add(span, true))?,
            Unit::Trace => {
                let selected = selection.map(|query| self.matcher(query)).transpose()?;
                self.search(None, |span| {
                    let selected = selected.as_ref();
                    add(span, selected.is_none_or(|matcher| matcher.matches(span)));
                })?;
            }
        }
        let mut aggregation = spans.finish(rows, self.partial);
        if self.partial {
            aggregation.notes.push(
                "the search ran out of time and covers only the newest spans; use a shorter time window"
                    .to_owned(),
            );
        }
        Ok(aggregation)
    }

    fn search(
        &mut self,
        query: Option<Query>,
        mut each: impl FnMut(&Span),
    ) -> Result<(), ApiError> {
        let budget = self.backend.options.search_budget;
        let search = Search {
            filters: self.request.span_filters(),
            query,
            limit: usize::MAX,
            budget: budget.saturating_sub(self.started.elapsed()),
            ..Search::within(self.request.window)
        };
        let outcome = self.backend.store.search(&search, &mut |span| {
            each(&span);
            ControlFlow::Continue(())
        })?;
        self.partial |= outcome.partial;
        Ok(())
    }

    /// Aggregates in the store without reading spans, if it supports that. Returns the number of
    /// aggregated spans.
    fn gather(
        &self,
        query: Option<Query>,
        buckets: &[Query],
        rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, ApiError> {
        let search = Search {
            filters: self.request.span_filters(),
            query,
            ..Search::within(self.request.window)
        };
        Ok(self.backend.store.aggregate(&search, buckets, rows)?)
    }

    fn matcher(&mut self, query: Query) -> Result<SpanMatcher, ApiError> {
        if !query.needs_rollup() && !query.needs_descendants() {
            return Ok(SpanMatcher::Query(query));
        }
        let mut ids = HashSet::new();
        self.search(Some(query), |span| {
            ids.insert(id_of(span));
        })?;
        Ok(SpanMatcher::Ids(ids))
    }
}
