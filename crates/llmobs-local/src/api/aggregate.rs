//! `POST /api/unstable/llm-obs-mcp/v1/trace/aggregate`: groups and figures over all spans of a
//! window. Ours: Datadog has no such endpoint, and our client pages there instead.
//!
//! Its question and answer are those of [`llmobs_core::analysis::aggregate`], as plain JSON.

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
use crate::http::{ApiError, blocking, json_plain, read_question};
use crate::store::Search;
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, ColumnAggregator, RowAggregator, ScannedSpan, SpanAggregator,
    Unit,
};
use llmobs_core::model::Span;
use llmobs_core::query::{Query, SpanContext};

/// More groups on a page than any answer holds.
const MAX_LIMIT: usize = 10_000;
/// As many as a [`ScannedSpan`] has bits.
const MAX_BUCKETS: usize = 32;

pub(super) async fn aggregate(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let question = read_question(request.into_body())
        .await
        .and_then(|question| {
            serde_json::from_value(question).map_err(|error| {
                ApiError::bad_request(format!("the question cannot be read: {error}"))
            })
        });
    let answered = match question {
        // What only Datadog documents has no aggregation.
        Ok(_) if backend.options.documented_only => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "this endpoint is not documented",
        )),
        Ok(question) => blocking(move || answer(&backend, question)).await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(answer) => json_plain(StatusCode::OK, &json!(answer)),
        Err(error) => error.into_response(),
    }
}

/// A query to judge spans by: at hand if the span is enough for that, else by the ids that a
/// search of its own gave, as the store knows the traces around the spans.
enum Judge {
    Inline(Query),
    Found(HashSet<(String, String)>),
}

impl Judge {
    fn holds(&self, span: &Span) -> bool {
        match self {
            Judge::Inline(query) => query.matches(&SpanContext::without_trace(span)),
            Judge::Found(ids) => ids.contains(&id_of(span)),
        }
    }
}

fn id_of(span: &Span) -> (String, String) {
    (span.trace_id.to_string(), span.span_id.to_string())
}

fn answer(backend: &Backend, mut question: AggregateRequest) -> Result<Aggregation, ApiError> {
    let started = Instant::now();
    question.limit = question.limit.min(MAX_LIMIT);
    if question.buckets().len() > MAX_BUCKETS {
        return Err(ApiError::bad_request(format!(
            "there are more than {MAX_BUCKETS} buckets"
        )));
    }
    let unreadable = |error| ApiError::bad_request(format!("`group_by` cannot be read: {error}"));
    let gatherer = ColumnAggregator::new(&question).map_err(unreadable)?;
    let mut tally = SpanAggregator::new(&question).map_err(unreadable)?;
    let mut scan = Scan {
        backend,
        question: &question,
        started,
        partial: false,
    };
    // By itself first: put beside tags, what cannot be read would be taken as plain text.
    if let Some(text) = &question.query {
        parse_query(text)?;
    }
    let selection = match question.selection_query() {
        Some(text) => Some(parse_query(&text)?),
        None => None,
    };
    let parsed = question.buckets().iter();
    let parsed = parsed.map(|bucket| parse_query(&bucket.query));
    let parsed: Vec<Query> = parsed.collect::<Result<_, _>>()?;
    // Single spans are counted as they come; traces and calls must be put together first.
    if let Some(mut gatherer) = gatherer {
        let mut given = scan.gather(selection.clone(), &parsed, &mut gatherer)?;
        if gatherer.overflowed_in_partitions() {
            gatherer = gatherer.single_threaded();
            given = scan.gather(selection.clone(), &parsed, &mut gatherer)?;
        }
        if given.is_some() {
            return Ok(gatherer.finish());
        }
    } else if let Some(rows) = scan.gather(selection.clone(), &parsed, &mut tally)? {
        return Ok(tally.finish(rows, false));
    }
    let mut buckets = Vec::new();
    for query in parsed {
        buckets.push(scan.judge(query)?);
    }
    let mut rows = 0;
    let mut take = |span: &Span, selected: bool| {
        rows += 1;
        let in_buckets = buckets.iter().enumerate().filter(|(_, b)| b.holds(span));
        let buckets = in_buckets.fold(0, |bits, (at, _)| bits | 1 << at);
        tally.add(ScannedSpan {
            span,
            selected,
            buckets,
        });
    };
    match question.unit {
        Unit::Span => scan.search(selection, |span| take(span, true))?,
        Unit::Trace => {
            let selected = selection.map(|query| scan.judge(query)).transpose()?;
            scan.search(None, |span| {
                take(
                    span,
                    selected.as_ref().is_none_or(|judge| judge.holds(span)),
                );
            })?;
        }
    }
    let partial = scan.partial;
    let mut answer = tally.finish(rows, partial);
    if partial {
        answer.notes.push(
            "the local store ran out of time: the newest spans were counted; narrow the window"
                .to_owned(),
        );
    }
    Ok(answer)
}

/// Searches of one question, within one budget of time.
struct Scan<'a> {
    backend: &'a Backend,
    question: &'a AggregateRequest,
    started: Instant,
    partial: bool,
}

impl Scan<'_> {
    fn search(
        &mut self,
        query: Option<Query>,
        mut each: impl FnMut(&Span),
    ) -> Result<(), ApiError> {
        let budget = self.backend.options.search_budget;
        let search = Search {
            filters: self.question.span_filters(),
            query,
            limit: usize::MAX,
            budget: budget.saturating_sub(self.started.elapsed()),
            ..Search::within(self.question.window)
        };
        let outcome = self.backend.store.search(&search, &mut |span| {
            each(&span);
            ControlFlow::Continue(())
        })?;
        self.partial |= outcome.partial;
        Ok(())
    }

    /// Has the store give its spans without reading them, if it can: how many it gave.
    fn gather(
        &self,
        query: Option<Query>,
        buckets: &[Query],
        rows: &mut dyn RowAggregator,
    ) -> Result<Option<u64>, ApiError> {
        let search = Search {
            filters: self.question.span_filters(),
            query,
            ..Search::within(self.question.window)
        };
        Ok(self.backend.store.gather(&search, buckets, rows)?)
    }

    fn judge(&mut self, query: Query) -> Result<Judge, ApiError> {
        if !query.needs_rollup() && !query.needs_descendants() {
            return Ok(Judge::Inline(query));
        }
        let mut ids = HashSet::new();
        self.search(Some(query), |span| {
            ids.insert(id_of(span));
        })?;
        Ok(Judge::Found(ids))
    }
}
