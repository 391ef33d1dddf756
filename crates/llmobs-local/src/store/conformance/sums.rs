//! What the index counts is what the spans add up to.

use proptest::prelude::*;

use super::random::{evaluation, history, span, word};
use super::{NaiveStore, Search, SpanStore, SqliteStore, apply, at, open, settle, walk};
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
    fn question()(
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

/// The answer span by span.
fn tallied(store: &dyn SpanStore, question: &AggregateRequest) -> Aggregation {
    let mut search = asked(question);
    // Traces are put together of all their spans.
    let selection = search.query.clone();
    if question.unit == Unit::Trace {
        search.query = None;
    }
    let buckets = parsed_buckets(question);
    let mut tally = SpanAggregator::new(question).unwrap();
    let spans = walk(store, &search);
    for span in &spans {
        let context = SpanContext::without_trace(span);
        let held = buckets
            .iter()
            .enumerate()
            .filter(|(_, query)| query.matches(&context));
        tally.add(ScannedSpan {
            span,
            selected: selection
                .as_ref()
                .is_none_or(|query| query.matches(&context)),
            buckets: held.fold(0, |bits, (at, _)| bits | 1 << at),
        });
    }
    tally.finish(spans.len() as u64, false)
}

/// The answer by the index.
fn counted(store: &SqliteStore, question: &AggregateRequest) -> Option<Aggregation> {
    let (search, buckets) = (asked(question), parsed_buckets(question));
    if let Some(mut gatherer) = ColumnAggregator::new(question).unwrap() {
        store.gather(&search, &buckets, &mut gatherer).unwrap()?;
        return Some(gatherer.finish());
    }
    let mut tally = SpanAggregator::new(question).unwrap();
    let rows = store.gather(&search, &buckets, &mut tally).unwrap()?;
    Some(tally.finish(rows, false))
}

fn asked(question: &AggregateRequest) -> Search {
    Search {
        filters: question.span_filters(),
        query: question
            .query
            .as_ref()
            .map(|text| llmobs_core::query::parse(text).unwrap()),
        ..Search::within(question.window)
    }
}

fn parsed_buckets(question: &AggregateRequest) -> Vec<Query> {
    let buckets = question.buckets().iter();
    buckets
        .map(|bucket| llmobs_core::query::parse(&bucket.query).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_the_index_counts_is_what_the_spans_add_up_to(
        history in history(span(), evaluation()),
        questions in proptest::collection::vec(question(), 1..8)
    ) {
        let (_folder, store) = open();
        let oracle = NaiveStore::default();
        for write in &history {
            apply(write, &store, &oracle);
        }
        settle(&store);
        for question in &questions {
            let counted = counted(&store, question);
            prop_assert!(counted.is_some(), "not answered by the index: {:?}", question);
            prop_assert_eq!(counted.unwrap(), tallied(&oracle, question), "{:?}", question);
        }
    }
}

#[test]
fn what_is_not_indexed_yet_is_counted_all_the_same() {
    let (_folder, store) = open();
    let question = AggregateRequest {
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
    let count = |store: &SqliteStore| counted(store, &question).unwrap().total.count;
    store
        .append((0..20).map(|n| at(n, &n.to_string())).collect())
        .unwrap();
    settle(&store);
    for n in 20..60 {
        store
            .append(vec![
                at(n, &n.to_string()),
                at(n - 20, &(n - 20).to_string()),
            ])
            .unwrap();
        assert_eq!(count(&store), n as u64 + 1);
    }
}
