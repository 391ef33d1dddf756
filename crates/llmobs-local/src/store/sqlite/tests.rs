//! The conformance suite on the SQLite store, and what is specific to SQLite.

use std::sync::Arc;

use super::super::conformance::{self, TestEngine};
use super::*;
use rstest::rstest;

/// An empty store in a temporary directory. Aggregations read several threads even of few spans.
fn open_empty() -> TestEngine {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        parallel_scan: ParallelScan {
            max_threads: 4,
            documents_per_thread: 8,
        },
        ..SqliteOptions::new(Durability::Process)
    };
    TestEngine {
        engine: Arc::new(SqliteStore::with_options(directory.path(), options).unwrap()),
        must_aggregate: true,
        resources: Box::new(directory),
    }
}

#[rstest]
#[case::random_histories(conformance::check_random_histories)]
#[case::aggregation(conformance::check_aggregation)]
#[case::aggregation_of_recent_writes(conformance::check_aggregation_of_recent_writes)]
#[case::pages_during_writes(conformance::check_pages_during_writes)]
#[case::order_within_one_millisecond(conformance::check_order_within_one_millisecond)]
#[case::break_of_a_visitor(conformance::check_break_of_a_visitor)]
#[case::search_without_time(conformance::check_search_without_time)]
#[case::concurrent_writers(conformance::check_concurrent_writers)]
fn passes_the_conformance_suite(#[case] check: fn(conformance::OpenEngine<'_>)) {
    check(&open_empty);
}

#[test]
fn acknowledged_spans_survive_a_crash() {
    let span = Span {
        trace_id: TraceId::from("t"),
        span_id: SpanId::from("1"),
        start_ns: 1,
        ..Span::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path(), Durability::Full).unwrap();
    let id = store.store_id().to_owned();
    store.append(vec![span.clone()]).unwrap();
    // Never closed, so no checkpoint.
    std::mem::forget(store);
    let reopened = SqliteStore::open(directory.path(), Durability::Full).unwrap();
    assert_eq!(reopened.store_id(), id);
    assert_eq!(reopened.trace(&TraceId::from("t")).unwrap(), [span]);
}
