//! Why a search found nothing: the filter that excludes every span, and the nearest data.
//!
//! Without an explanation a model guesses. The explanation shows, for example, that the application has
//! another name or that the newest match is nine days old. An explanation costs at most two requests, and none if
//! the same search was explained within the last minute, because skills poll.

use serde::Serialize;
use serde_json::Value;

use super::searching::id_window;
use crate::render::candidate;
use crate::tools::tool::ToolContext;
use datadog_llmobs::SpanSearch;
use llmobs_core::model::{Span, TimeWindow, TraceRollup};
use llmobs_core::query::{self, SpanContext, combine::SpanFilters, time};

/// Recent spans that are read to find the filter that excludes every span.
const SAMPLE_SPANS: usize = 200;
/// Spans that are read outside the requested time window.
const MAX_SPANS_OUTSIDE: usize = 50;
const MAX_CANDIDATES: usize = 10;

/// The reason for an empty answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct WhyEmpty {
    /// The filter without which there would be rows: the name of an argument, or `window`.
    filter: String,
    /// Number of spans found that match without it; there may be more.
    matches_without: usize,
    /// Start of the newest span that matches without it, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<String>,
    /// Existing values of that filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
}

impl WhyEmpty {
    fn filter(name: &str) -> Self {
        Self {
            filter: name.to_owned(),
            ..Self::default()
        }
    }

    fn no_data() -> Self {
        Self::filter("nothing is stored yet")
    }
}

/// Explains an empty search as a [`WhyEmpty`] object. `null` if there is no explanation or a request
/// failed.
pub(super) async fn explain(context: &ToolContext, search: &SpanSearch) -> Value {
    // A window that ends at `now` moves with every call; its length does not.
    let key = format!(
        "{:?} {:?} {:?} {}",
        search.query,
        search.filters,
        search.apm_trace_id,
        search.window.to_ms - search.window.from_ms
    );
    let explanation = async {
        let reason = find_reason(context, search).await;
        serde_json::to_value(reason).unwrap_or_default()
    };
    context.client.cached_for_a_minute(&key, explanation).await
}

async fn find_reason(context: &ToolContext, search: &SpanSearch) -> Option<WhyEmpty> {
    // First the same search over all data.
    let any_time = SpanSearch {
        window: TimeWindow {
            to_ms: context.now_ms.max(search.window.to_ms),
            ..id_window(context.now_ms)
        },
        limit: MAX_SPANS_OUTSIDE,
        content: false,
        ..search.clone()
    };
    let outside = context.client.search_spans(&any_time).await.ok()?;
    if let Some(newest) = outside.spans.first() {
        return Some(WhyEmpty {
            matches_without: outside.spans.len(),
            nearest: Some(time::format_rfc3339(newest.start_ms())),
            ..WhyEmpty::filter("window")
        });
    }
    // Then a sample without filters, in which each filter is evaluated here.
    let filters = single_filters(search);
    if filters.is_empty() {
        return Some(WhyEmpty::no_data());
    }
    let unfiltered = SpanSearch {
        query: None,
        filters: SpanFilters::default(),
        apm_trace_id: None,
        limit: SAMPLE_SPANS,
        ..any_time
    };
    let sample = context.client.search_spans(&unfiltered).await.ok()?.spans;
    let spans: Vec<&Span> = sample.iter().map(AsRef::as_ref).collect();
    if spans.is_empty() {
        return Some(WhyEmpty::no_data());
    }
    find_excluding_filter(&filters, &spans)
}

/// Reads a value of a span.
type SpanValue = fn(&Span) -> Option<&str>;

/// One filter of a search as a query.
struct SingleFilter {
    name: &'static str,
    query: String,
    /// The value of a span that the filter restricts, if candidates are useful.
    value: SpanValue,
}

/// Copies one filter.
type CopyFilter = fn(&mut SpanFilters, &SpanFilters);

fn single_filters(search: &SpanSearch) -> Vec<SingleFilter> {
    let no_value: SpanValue = |_| None;
    let copies: [(&'static str, CopyFilter, SpanValue); 8] = [
        (
            "ml_app",
            |one, all| one.ml_app.clone_from(&all.ml_app),
            |span| Some(span.ml_app.as_str()),
        ),
        (
            "span_name",
            |one, all| one.span_name.clone_from(&all.span_name),
            |span| Some(span.name.as_str()),
        ),
        (
            "span_kind",
            |one, all| one.span_kind.clone_from(&all.span_kind),
            |span| Some(span.kind.as_str()),
        ),
        (
            "session_id",
            |one, all| one.session_id.clone_from(&all.session_id),
            |span| span.session_id.as_deref(),
        ),
        (
            "trace_id",
            |one, all| one.trace_id.clone_from(&all.trace_id),
            no_value,
        ),
        (
            "span_id",
            |one, all| one.span_id.clone_from(&all.span_id),
            no_value,
        ),
        ("tags", |one, all| one.tags.clone_from(&all.tags), no_value),
        (
            "root_spans_only",
            |one, all| one.root_spans_only = all.root_spans_only,
            no_value,
        ),
    ];
    let filters = copies.into_iter().filter_map(|(name, copy, value)| {
        let mut one = SpanFilters::default();
        copy(&mut one, &search.filters);
        (one != SpanFilters::default()).then(|| SingleFilter {
            name,
            query: query::combine::combine(None, &one),
            value,
        })
    });
    let query = search.query.as_ref().map(|query| SingleFilter {
        name: "query",
        query: query.clone(),
        value: no_value,
    });
    filters.chain(query).collect()
}

/// For each span, whether a filter matches it.
fn matches(filter: &SingleFilter, spans: &[&Span]) -> Vec<bool> {
    let rollup = TraceRollup::default();
    let query = query::parse(&filter.query).ok();
    let matches = spans.iter().map(|span| {
        let context = SpanContext {
            span,
            rollup: Some(&rollup),
            descendants: &[],
        };
        query.as_ref().is_some_and(|query| query.matches(&context))
    });
    matches.collect()
}

/// The filter without which most spans of the sample match. If several filters exclude every span
/// together, the filter that alone matches the fewest spans.
fn find_excluding_filter(filters: &[SingleFilter], spans: &[&Span]) -> Option<WhyEmpty> {
    let matches: Vec<Vec<bool>> = filters
        .iter()
        .map(|filter| matches(filter, spans))
        .collect();
    let mut best: Option<WhyEmpty> = None;
    for (skipped, filter) in filters.iter().enumerate() {
        let others_match = |row: usize| {
            let mut others = matches.iter().enumerate().filter(|(at, _)| *at != skipped);
            others.all(|(_, matches)| matches.get(row) == Some(&true))
        };
        let rows = spans
            .iter()
            .enumerate()
            .filter(|(row, _)| others_match(*row));
        let matching: Vec<&Span> = rows.map(|(_, span)| *span).collect();
        let best_count = best.as_ref().map_or(0, |best| best.matches_without);
        if matching.len() > best_count {
            best = Some(describe(filter, &matching));
        }
    }
    best.or_else(|| {
        let count = |matches: &Vec<bool>| matches.iter().filter(|matches| **matches).count();
        let counted = matches.iter().map(count).zip(filters);
        let (_, fewest) = counted.min_by_key(|(count, _)| *count)?;
        Some(WhyEmpty::filter(fewest.name))
    })
}

/// Describes the spans that match without a filter.
fn describe(filter: &SingleFilter, matching: &[&Span]) -> WhyEmpty {
    let mut candidates: Vec<String> = Vec::new();
    for value in matching.iter().filter_map(|span| (filter.value)(span)) {
        let value = candidate(value);
        if !value.is_empty() && !candidates.contains(&value) && candidates.len() < MAX_CANDIDATES {
            candidates.push(value);
        }
    }
    let newest = matching.iter().map(|span| span.start_ms()).max();
    WhyEmpty {
        matches_without: matching.len(),
        nearest: newest.map(time::format_rfc3339),
        candidates,
        ..WhyEmpty::filter(filter.name)
    }
}
