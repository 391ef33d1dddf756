//! The conformance suite of span stores.
//!
//! Every [`SpanEngine`] must pass [`check_all`]. Random histories are applied to the engine and to
//! a naive in-memory store, the oracle, and both must answer every request alike. A check panics
//! when the engine deviates.
//!
//! ```ignore
//! #[test]
//! fn my_engine_conforms() {
//!     llmobs_local::store::conformance::check_all(&|| TestEngine {
//!         engine: Arc::new(MyEngine::open_empty()),
//!         must_aggregate: false,
//!         resources: Box::new(()),
//!     });
//! }
//! ```
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a check fails by panicking, like any test"
)]

mod aggregation;
mod naive_store;
mod random;

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use super::{
    CheckStep, EvaluationPurgeStep, EvaluationTarget, IndexProgress, Search, SearchOutcome,
    SpanEngine, SpanPurgeStep, TargetedEvaluation,
};
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};
use naive_store::NaiveStore;
use random::{Operation, any_evaluation, any_span, history, search};

pub use aggregation::{check_aggregation, check_aggregation_of_recent_writes};

/// How long a derived index may take to catch up.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);

const ALL_TIME: TimeWindow = TimeWindow {
    from_ms: i64::MIN,
    to_ms: i64::MAX,
};

/// An empty engine under test.
pub struct TestEngine {
    /// The engine.
    pub engine: Arc<dyn SpanEngine>,
    /// Whether `SpanReader::aggregate` must answer every aggregation of the suite.
    pub must_aggregate: bool,
    /// Dropped after the engine, for example a temporary directory.
    pub resources: Box<dyn Any>,
}

/// Opens an empty engine.
pub type OpenEngine<'a> = &'a dyn Fn() -> TestEngine;

/// Runs every check.
pub fn check_all(open: OpenEngine<'_>) {
    check_random_histories(open);
    check_aggregation(open);
    check_aggregation_of_recent_writes(open);
    check_pages_during_writes(open);
    check_order_within_one_millisecond(open);
    check_break_of_a_visitor(open);
    check_search_without_time(open);
    check_concurrent_writers(open);
}

/// Random histories: every search, look-up and count answers like the oracle.
pub fn check_random_histories(open: OpenEngine<'_>) {
    let strategy = (
        history(any_span(), any_evaluation()),
        proptest::collection::vec(search(), 1..12),
    );
    run_cases(48, &strategy, |(history, searches)| {
        let test = open();
        let engine = test.engine.as_ref();
        let oracle = NaiveStore::default();
        let stores: [&dyn SpanEngine; 2] = [engine, &oracle];
        for operation in &history {
            apply(operation, engine, &oracle);
            for search in &searches {
                let [actual, expected] = stores.map(|store| search_all_pages(store, search));
                prop_assert_eq!(actual, expected, "{:?}", search);
            }
        }
        wait_for_index(engine);
        for search in &searches {
            let [actual, expected] = stores.map(|store| search_all_pages(store, search));
            prop_assert_eq!(actual, expected, "with an up-to-date index: {:?}", search);
        }
        for trace in ["t1", "t2", "t3", "none"] {
            let trace = TraceId::from(trace);
            let [actual, expected] = stores.map(|store| store.trace(&trace).unwrap());
            prop_assert_eq!(actual, expected);
            let span = SpanId::from("2");
            let [actual, expected] = stores.map(|store| store.span(&trace, &span).unwrap());
            prop_assert_eq!(actual, expected);
        }
        let [actual, expected] = stores.map(|store| store.stats().unwrap());
        prop_assert_eq!(actual, expected);
        let [actual, expected] = stores.map(|store| store.usage().unwrap().oldest_start_ns);
        prop_assert_eq!(actual, expected);
        let [actual, expected] = stores.map(all_evaluations);
        prop_assert_eq!(actual, expected);
        prop_assert_eq!(all_faults(engine), [""; 0]);
        Ok(())
    });
}

/// Pages return each span once, and none is missed, while another thread writes.
pub fn check_pages_during_writes(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    let old = (0..500).map(|n| span_at(n / 3 * 1_000_000, &format!("old-{n}")));
    store.append(old.collect()).unwrap();
    let mut search = Search {
        limit: 7,
        ..Search::within(ALL_TIME)
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..300 {
                store
                    .append(vec![span_at(n % 170 * 1_000_000, &format!("new-{n}"))])
                    .unwrap();
            }
        });
        let mut returned = Vec::new();
        loop {
            let (spans, outcome) = search_page(store, &search);
            returned.extend(spans.iter().map(|span| span.span_id.to_string()));
            search.after = outcome.next;
            if outcome.next.is_none() {
                break;
            }
        }
        writer.join().unwrap();
        let mut distinct = returned.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), returned.len(), "a span was returned twice");
        let old = distinct.iter().filter(|id| id.starts_with("old")).count();
        assert_eq!(old, 500, "a span that existed before the search was missed");
    });
}

/// Thousands of spans that start in one millisecond keep the order in which they arrived.
pub fn check_order_within_one_millisecond(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    let spans: Vec<Span> = (0..3_000).map(|n| span_at(5, &format!("{n:04}"))).collect();
    for chunk in spans.chunks(700) {
        store.append(chunk.to_vec()).unwrap();
    }
    store.append(vec![span_at(1_000_005, "next")]).unwrap();
    let search = Search {
        limit: 1_000,
        newest_first: false,
        ..Search::within(ALL_TIME)
    };
    let spans = search_all_pages(store, &search);
    let ids: Vec<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    assert_eq!(ids.len(), 3_001);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

/// A span for which the visitor returns `Break` is not delivered, and is on the next page.
pub fn check_break_of_a_visitor(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    store
        .append(vec![span_at(1, "1"), span_at(2, "2"), span_at(3, "3")])
        .unwrap();
    let mut delivered = Vec::new();
    let outcome = store
        .search(&Search::within(ALL_TIME), &mut |span| {
            if delivered.len() == 1 {
                return ControlFlow::Break(());
            }
            delivered.push(span.span_id);
            ControlFlow::Continue(())
        })
        .unwrap();
    let search = Search {
        after: outcome.next,
        ..Search::within(ALL_TIME)
    };
    let (rest, _) = search_page(store, &search);
    assert_eq!(delivered, [SpanId::from("3")]);
    assert_eq!(rest, [span_at(2, "2"), span_at(1, "1")]);
}

/// A search without any time budget makes progress, and says where to continue.
pub fn check_search_without_time(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    store
        .append((0..50).map(|n| span_at(n, &n.to_string())).collect())
        .unwrap();
    let search = Search {
        budget: Duration::ZERO,
        query: Some(llmobs_core::query::parse("nothing-matches-this").unwrap()),
        ..Search::within(ALL_TIME)
    };
    let (spans, outcome) = search_page(store, &search);
    assert!(spans.is_empty());
    assert!(outcome.partial);
    assert_eq!(outcome.next.map(|next| next.start_ns), Some(49));
    assert!(search_all_pages(store, &search).is_empty());
}

/// All writes of concurrent threads are acknowledged and stored.
pub fn check_concurrent_writers(open: OpenEngine<'_>) {
    let test = open();
    let store = test.engine.as_ref();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            scope.spawn(move || {
                for n in 0..20 {
                    store
                        .append(vec![span_at(n, &format!("{writer}-{n}"))])
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().spans, 320);
}

fn run_cases<S: Strategy>(cases: u32, strategy: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if let Err(failure) = TestRunner::new(config).run(strategy, check) {
        panic!("{failure}");
    }
}

fn span_at(start_ns: i64, id: &str) -> Span {
    Span {
        trace_id: TraceId::from("t"),
        span_id: SpanId::from(id),
        start_ns,
        ..Span::default()
    }
}

fn search_page(store: &dyn SpanEngine, search: &Search) -> (Vec<Span>, SearchOutcome) {
    let mut spans = Vec::new();
    let outcome = store
        .search(search, &mut |span| {
            spans.push(span);
            ControlFlow::Continue(())
        })
        .unwrap();
    (spans, outcome)
}

fn search_all_pages(store: &dyn SpanEngine, search: &Search) -> Vec<Span> {
    let mut search = search.clone();
    let mut all = Vec::new();
    loop {
        let (spans, outcome) = search_page(store, &search);
        all.extend(spans);
        match outcome.next {
            None => return all,
            next => search.after = next,
        }
    }
}

/// Waits until the derived index, if there is one, contains all writes.
fn wait_for_index(store: &dyn SpanEngine) {
    let last_change = store.usage().unwrap().last_change;
    let deadline = Instant::now() + INDEX_TIMEOUT;
    loop {
        match store.index_progress() {
            None => return,
            Some(IndexProgress::UpTo(seq)) if seq >= last_change => return,
            progress => assert!(Instant::now() < deadline, "{progress:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Purges in small steps. Returns the removed spans.
fn purge(store: &dyn SpanEngine, before_ns: i64) -> Vec<(TraceId, SpanId)> {
    let mut removed = Vec::new();
    loop {
        let step = SpanPurgeStep {
            before_ns,
            limit: 3,
        };
        let outcome = store.purge_spans(step).unwrap();
        removed.extend(outcome.spans);
        if !outcome.more {
            break;
        }
    }
    let mut after = None;
    loop {
        let step = EvaluationPurgeStep {
            before_ms: 2,
            after,
            limit: 2,
        };
        after = store.purge_evaluations(step).unwrap().next;
        if after.is_none() {
            return removed;
        }
    }
}

/// Applies an operation to the engine and to the oracle.
fn apply(operation: &Operation, engine: &dyn SpanEngine, oracle: &NaiveStore) {
    let stores: [&dyn SpanEngine; 2] = [engine, oracle];
    match operation {
        Operation::Append(spans) => {
            for store in stores {
                store.append(spans.clone()).map(drop).unwrap();
            }
        }
        Operation::AttachEvaluations(evaluations) => {
            for store in stores {
                store
                    .attach_evaluations(evaluations.clone())
                    .map(drop)
                    .unwrap();
            }
        }
        Operation::Purge(before_ns) => {
            let [actual, expected] = stores.map(|store| purge(store, *before_ns));
            assert_eq!(actual, expected);
        }
        Operation::WaitForIndex => wait_for_index(engine),
        Operation::Reindex => engine.reindex(),
    }
}

fn all_evaluations(store: &dyn SpanEngine) -> Vec<TargetedEvaluation> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.evaluations(after, 2).unwrap();
        let Some(last) = page.last() else {
            return all;
        };
        after = Some(last.arrival);
        all.extend(page.into_iter().map(|stored| {
            let mut targeted = stored.evaluation;
            let is_id = matches!(
                targeted.target,
                EvaluationTarget::Span { .. } | EvaluationTarget::Trace(_)
            );
            if is_id {
                // The application does not restrict an id, so a store need not keep it.
                targeted.ml_app.clear();
            }
            targeted
        }));
    }
}

/// The faults that a complete check reports.
fn all_faults(store: &dyn SpanEngine) -> Vec<String> {
    let mut faults = Vec::new();
    let mut step = Some(CheckStep::Storage);
    while let Some(current) = step {
        let outcome = store.check(current).unwrap();
        faults.extend(outcome.faults);
        step = match (current, outcome.next) {
            (CheckStep::Storage, _) => Some(CheckStep::Spans { after: None }),
            (CheckStep::Spans { .. }, after @ Some(_)) => Some(CheckStep::Spans { after }),
            (CheckStep::Spans { .. }, None) => Some(CheckStep::Evaluations { after: None }),
            (CheckStep::Evaluations { .. }, after @ Some(_)) => {
                Some(CheckStep::Evaluations { after })
            }
            (CheckStep::Evaluations { .. }, None) => Some(CheckStep::Changes),
            (CheckStep::Changes, _) => Some(CheckStep::Index),
            (CheckStep::Index, _) => None,
        };
    }
    faults
}
