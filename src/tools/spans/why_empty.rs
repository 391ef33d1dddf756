//! Why a search found nothing: which filter emptied it, and where the nearest data lie.
//!
//! An agent that gets an empty list guesses; one that learns that the app has another name, or that
//! the newest match is nine days old, asks the right question next. At most two more requests are
//! spent, and none for a question that was explained within the last minute: skills poll.

use serde::Serialize;
use serde_json::Value;

use crate::render;
use crate::tools::ToolContext;
use datadog_llmobs::SpanSearch;
use llmobs_core::model::{Span, TimeWindow, TraceRollup};
use llmobs_core::query::{self, SpanContext, combine::SpanFilters, time};

/// How many recent spans are looked at to find the filter that empties a search.
const SAMPLE: usize = 200;
const DAY_MS: i64 = 86_400_000;

/// The reason for an empty answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct WhyEmpty {
    /// The filter without which there would be rows: an argument's name, or `window`.
    filter: String,
    /// At least how many spans match without it.
    matches_without: usize,
    /// Start of the newest span that matches without it, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<String>,
    /// Values of that filter that exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
}

/// Explains an empty search: a [`WhyEmpty`], or null. Whatever goes wrong here leaves the empty
/// answer as it is.
pub(super) async fn explain(context: &ToolContext, search: &SpanSearch) -> Value {
    // The window of a question that says `now` moves with every call; its length does not.
    let question = format!(
        "{:?} {:?} {:?} {}",
        search.query,
        search.filters,
        search.apm_trace_id,
        search.window.to_ms - search.window.from_ms
    );
    let explanation = async {
        let why = find_reason(context, search).await;
        serde_json::to_value(why).unwrap_or_default()
    };
    context
        .client
        .cached_for_a_minute(&question, explanation)
        .await
}

async fn find_reason(context: &ToolContext, search: &SpanSearch) -> Option<WhyEmpty> {
    // First the time: the same question over all the time there is.
    let wide = SpanSearch {
        window: TimeWindow {
            from_ms: context.now_ms - 90 * DAY_MS,
            to_ms: context.now_ms.max(search.window.to_ms),
        },
        limit: 50,
        content: false,
        ..search.clone()
    };
    let outside = context.client.search_spans(&wide).await.ok()?;
    if let Some(newest) = outside.spans.first() {
        return Some(WhyEmpty {
            filter: "window".to_owned(),
            matches_without: outside.spans.len(),
            nearest: Some(time::format_rfc3339(newest.start_ms())),
            candidates: Vec::new(),
        });
    }
    // Then the filters: a sample without any of them, judged here one filter at a time.
    let filters = each_filter(search);
    if filters.is_empty() {
        return Some(WhyEmpty {
            filter: "nothing is stored yet".to_owned(),
            ..WhyEmpty::default()
        });
    }
    let bare = SpanSearch {
        query: None,
        filters: SpanFilters::default(),
        apm_trace_id: None,
        limit: SAMPLE,
        ..wide
    };
    let sample = context.client.search_spans(&bare).await.ok()?.spans;
    let spans: Vec<&Span> = sample.iter().map(AsRef::as_ref).collect();
    if spans.is_empty() {
        return Some(WhyEmpty {
            filter: "nothing is stored yet".to_owned(),
            ..WhyEmpty::default()
        });
    }
    blame(&filters, &spans)
}

/// One filter of a search, and the query text that stands for it alone.
struct Filter {
    name: &'static str,
    query: String,
    value_of: fn(&Span) -> Option<&str>,
}

fn each_filter(search: &SpanSearch) -> Vec<Filter> {
    let SpanFilters {
        ml_app,
        span_kind,
        span_name,
        trace_id,
        span_id,
        session_id,
        tags,
        root_spans_only,
    } = search.filters.clone();
    let none = SpanFilters::default;
    let mut filters = Vec::new();
    let mut add = |name, filters_of: SpanFilters, value_of| {
        filters.push(Filter {
            name,
            query: query::combine::combine(None, &filters_of),
            value_of,
        });
    };
    if ml_app.is_some() {
        add("ml_app", SpanFilters { ml_app, ..none() }, |span| {
            Some(span.ml_app.as_str())
        });
    }
    if span_name.is_some() {
        add(
            "span_name",
            SpanFilters {
                span_name,
                ..none()
            },
            |span| Some(span.name.as_str()),
        );
    }
    if span_kind.is_some() {
        add(
            "span_kind",
            SpanFilters {
                span_kind,
                ..none()
            },
            |span| Some(span.kind.as_str()),
        );
    }
    if session_id.is_some() {
        add(
            "session_id",
            SpanFilters {
                session_id,
                ..none()
            },
            |span| span.session_id.as_deref(),
        );
    }
    if trace_id.is_some() {
        add("trace_id", SpanFilters { trace_id, ..none() }, |_| None);
    }
    if span_id.is_some() {
        add("span_id", SpanFilters { span_id, ..none() }, |_| None);
    }
    if !tags.is_empty() {
        add("tags", SpanFilters { tags, ..none() }, |_| None);
    }
    if root_spans_only {
        add(
            "root_spans_only",
            SpanFilters {
                root_spans_only,
                ..none()
            },
            |_| None,
        );
    }
    if let Some(query) = &search.query {
        filters.push(Filter {
            name: "query",
            query: query.clone(),
            value_of: |_| None,
        });
    }
    filters
}

/// The filter without which most of the sample matches.
fn blame(filters: &[Filter], spans: &[&Span]) -> Option<WhyEmpty> {
    let empty = TraceRollup::default();
    let verdicts: Vec<Vec<bool>> = filters
        .iter()
        .map(|filter| {
            let parsed = query::parse(&filter.query).ok();
            spans
                .iter()
                .map(|span| {
                    let context = SpanContext {
                        span,
                        rollup: Some(&empty),
                        descendants: &[],
                    };
                    parsed.as_ref().is_some_and(|query| query.matches(&context))
                })
                .collect()
        })
        .collect();
    let mut best: Option<WhyEmpty> = None;
    for (skipped, filter) in filters.iter().enumerate() {
        let matching: Vec<&Span> = spans
            .iter()
            .enumerate()
            .filter(|(row, _)| {
                verdicts.iter().enumerate().all(|(at, verdict)| {
                    at == skipped || verdict.get(*row).copied().unwrap_or(false)
                })
            })
            .map(|(_, span)| *span)
            .collect();
        if matching.is_empty()
            || best
                .as_ref()
                .is_some_and(|b| b.matches_without >= matching.len())
        {
            continue;
        }
        let mut candidates: Vec<String> = Vec::new();
        for value in matching.iter().filter_map(|span| (filter.value_of)(span)) {
            let value = render::candidate(value);
            if !value.is_empty() && !candidates.contains(&value) && candidates.len() < 10 {
                candidates.push(value);
            }
        }
        best = Some(WhyEmpty {
            filter: filter.name.to_owned(),
            matches_without: matching.len(),
            nearest: matching
                .iter()
                .map(|span| span.start_ms())
                .max()
                .map(time::format_rfc3339),
            candidates,
        });
    }
    // Several filters empty it together: the one that alone matches least is named.
    best.or_else(|| {
        let alone = |verdict: &Vec<bool>| verdict.iter().filter(|hit| **hit).count();
        let least = verdicts
            .iter()
            .zip(filters)
            .min_by_key(|(verdict, _)| alone(verdict))?;
        Some(WhyEmpty {
            filter: least.1.name.to_owned(),
            ..WhyEmpty::default()
        })
    })
}
