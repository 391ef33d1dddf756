//! Aggregations by the engine equal aggregations span by span.

use proptest::prelude::*;

use super::random::{evaluation, history, span, word};
use super::{
    NaiveStore, OpenEngine, Search, SpanEngine, apply, run_cases, search_all_pages, span_at,
    wait_for_index,
};
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, Bucket, ColumnAggregator, Dimension, ScannedSpan,
    SpanAggregator, Unit,
};
use llmobs_core::model::TimeWindow;
use llmobs_core::query::{Query, SpanContext};

const QUERIES: &[&str] = &[
    "@status:error",
    "-@name:a",
    "refund",
    "@duration:<3",
    "@evaluation.tone.value:<50",
    "tier:*",
    "@meta.model_name:gpt*",
    "@parent_id:undefined",
    "@metrics.total_tokens:>1 weather",
];

prop_compose! {
    fn request()(
        app in proptest::option::of(word(&["shop", "bank"])),
        query in proptest::option::of(word(QUERIES)),
        facets in proptest::collection::vec(
            word(&["@ml_app", "tier", "@meta.span.kind", "@meta.model_name", "@name", "@status", "@event_kind"]), 0..3),
        buckets in proptest::collection::vec(word(QUERIES), 0..3),
        interval_ms in proptest::option::of(Just(1)),
        narrow: bool,
        unit in prop_oneof![2 => Just(Unit::Span), 1 => Just(Unit::Trace)],
        usage: bool,
        limit in 1..20usize,
    ) -> AggregateRequest {
        let mut group_by: Vec<Dimension> = facets.into_iter().map(Dimension::Facet).collect();
        if !buckets.is_empty() {
            group_by.push(Dimension::Buckets(buckets.iter().enumerate().map(|(at, query)| Bucket {
                name: format!("bucket {at}"), query: query.clone(),
            }).collect()));
        }
        let mut measures = vec!["error_rate", "failure_rate", "duration.p50", "duration.p95",
            "evaluation.tone.mean", "evaluation.tone.pass_rate", "feedback.done.mean"];
        if usage {
            measures.extend(["total_tokens.sum", "input_tokens.mean", "cost.per_success"]);
        }
        AggregateRequest {
            query, ml_app: app, tags: Vec::new(), unit, group_by, interval_ms, offset: 0, limit,
            window: if narrow {
                TimeWindow { from_ms: 1_700_000_000_000, to_ms: 1_700_000_000_001 }
            } else {
                TimeWindow { from_ms: 0, to_ms: 1_700_000_000_010 }
            },
            measures: measures.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }
}

/// Aggregates span by span.
fn aggregate_spans(store: &dyn SpanEngine, request: &AggregateRequest) -> Aggregation {
    let mut search = search_of(request);
    // A trace needs all its spans.
    let selection = search.query.clone();
    if request.unit == Unit::Trace {
        search.query = None;
    }
    let buckets = parsed_buckets(request);
    let mut aggregator = SpanAggregator::new(request).unwrap();
    let spans = search_all_pages(store, &search);
    for span in &spans {
        let context = SpanContext::without_trace(span);
        let matching = buckets
            .iter()
            .enumerate()
            .filter(|(_, query)| query.matches(&context));
        aggregator.add(ScannedSpan {
            span,
            selected: selection
                .as_ref()
                .is_none_or(|query| query.matches(&context)),
            buckets: matching.fold(0, |bits, (bucket, _)| bits | 1 << bucket),
        });
    }
    aggregator.finish(spans.len() as u64, false)
}

/// Aggregates with the engine.
fn aggregate_with_engine(
    store: &dyn SpanEngine,
    request: &AggregateRequest,
) -> Option<Aggregation> {
    let (search, buckets) = (search_of(request), parsed_buckets(request));
    if let Some(mut aggregator) = ColumnAggregator::new(request).unwrap() {
        store
            .aggregate(&search, &buckets, &mut aggregator)
            .unwrap()?;
        return Some(aggregator.finish());
    }
    let mut aggregator = SpanAggregator::new(request).unwrap();
    let rows = store
        .aggregate(&search, &buckets, &mut aggregator)
        .unwrap()?;
    Some(aggregator.finish(rows, false))
}

fn search_of(request: &AggregateRequest) -> Search {
    Search {
        filters: request.span_filters(),
        query: request
            .query
            .as_ref()
            .map(|text| llmobs_core::query::parse(text).unwrap()),
        ..Search::within(request.window)
    }
}

fn parsed_buckets(request: &AggregateRequest) -> Vec<Query> {
    let buckets = request.buckets().iter();
    buckets
        .map(|bucket| llmobs_core::query::parse(&bucket.query).unwrap())
        .collect()
}

/// Random histories: aggregations by the engine equal aggregations span by span.
pub fn check_aggregation(open: OpenEngine<'_>) {
    let strategy = (
        history(span(), evaluation()),
        proptest::collection::vec(request(), 1..8),
    );
    run_cases(32, &strategy, |(history, requests)| {
        let test = open();
        let engine = test.engine.as_ref();
        let oracle = NaiveStore::default();
        for operation in &history {
            apply(operation, engine, &oracle);
        }
        wait_for_index(engine);
        for request in &requests {
            match aggregate_with_engine(engine, request) {
                Some(actual) => {
                    prop_assert_eq!(actual, aggregate_spans(&oracle, request), "{:?}", request);
                }
                None => prop_assert!(!test.must_aggregate, "not aggregated: {:?}", request),
            }
        }
        Ok(())
    });
}

/// An aggregation includes spans that a derived index does not contain yet.
pub fn check_aggregation_of_recent_writes(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    let request = AggregateRequest {
        query: None,
        ml_app: None,
        tags: Vec::new(),
        window: TimeWindow {
            from_ms: 0,
            to_ms: 10,
        },
        unit: Unit::Span,
        group_by: vec![Dimension::Facet("@name".to_owned())],
        measures: Vec::new(),
        interval_ms: None,
        offset: 0,
        limit: 10,
    };
    store
        .append((0..20).map(|n| span_at(n, &n.to_string())).collect())
        .unwrap();
    wait_for_index(store);
    for n in 20..60 {
        store
            .append(vec![
                span_at(n, &n.to_string()),
                span_at(n - 20, &(n - 20).to_string()),
            ])
            .unwrap();
        match aggregate_with_engine(store, &request) {
            Some(answer) => assert_eq!(answer.total.count, n as u64 + 1),
            None => assert!(!test.must_aggregate),
        }
    }
}
