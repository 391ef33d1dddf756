//! One suite for every `SpanStore`: random histories, each question answered as the oracle does.

mod random;
mod sums;

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::oracle::NaiveStore;
use super::{
    CheckStep, Durability, EvaluationTarget, Outcome, Position, PurgeStep, Search, SpanStore,
    SqliteStore, SweepStep, TargetedEvaluation,
};
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};
use random::{Write, any_evaluation, any_span, history, search};

const ALL: TimeWindow = TimeWindow {
    from_ms: i64::MIN,
    to_ms: i64::MAX,
};

fn open() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Durability::Process).unwrap();
    (folder, store)
}

fn collect(store: &dyn SpanStore, search: &Search) -> (Vec<Span>, Outcome) {
    let mut spans = Vec::new();
    let outcome = store
        .search(search, &mut |span| {
            spans.push(span);
            ControlFlow::Continue(())
        })
        .unwrap();
    (spans, outcome)
}

fn walk(store: &dyn SpanStore, search: &Search) -> Vec<Span> {
    let mut search = search.clone();
    let mut all = Vec::new();
    loop {
        let (spans, outcome) = collect(store, &search);
        all.extend(spans);
        match outcome.next {
            None => return all,
            next => search.after = next,
        }
    }
}

/// Waits until the index has all that was written.
fn settle(store: &SqliteStore) {
    assert!(
        store.settle(std::time::Duration::from_secs(60)),
        "{:?}",
        store.index_progress()
    );
}

fn purge(store: &dyn SpanStore, before_ns: i64) -> Vec<(TraceId, SpanId)> {
    let mut gone = Vec::new();
    loop {
        let step = PurgeStep {
            before_ns,
            limit: 3,
        };
        let purged = store.purge(step).unwrap();
        gone.extend(purged.spans);
        if !purged.more {
            break;
        }
    }
    let mut after = None;
    loop {
        let step = SweepStep {
            before_ms: 2,
            after,
            limit: 2,
        };
        after = store.sweep(step).unwrap().next;
        if after.is_none() {
            return gone;
        }
    }
}

/// Does to both what a history says.
fn apply(write: &Write, sqlite: &SqliteStore, oracle: &NaiveStore) {
    let stores: [&dyn SpanStore; 2] = [sqlite, oracle];
    match write {
        Write::Spans(spans) => {
            for store in stores {
                store.append(spans.clone()).map(drop).unwrap();
            }
        }
        Write::Evaluations(list) => {
            for store in stores {
                store.attach_evaluations(list.clone()).map(drop).unwrap();
            }
        }
        Write::Purge(before_ns) => {
            let [gone, expected] = stores.map(|store| purge(store, *before_ns));
            assert_eq!(gone, expected);
        }
        Write::Settle => settle(sqlite),
        Write::Rebuild => sqlite.rebuild_index(),
    }
}

fn all_evaluations(store: &dyn SpanStore) -> Vec<TargetedEvaluation> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.evaluations(after, 2).unwrap();
        let Some(last) = page.last() else {
            return all;
        };
        after = Some(last.arrival);
        all.extend(page.into_iter().map(|arrived| {
            let mut targeted = arrived.evaluation;
            let is_id = matches!(
                targeted.target,
                EvaluationTarget::Span { .. } | EvaluationTarget::Trace(_)
            );
            if is_id {
                // An id needs no narrowing, so the application is kept with the words sent only.
                targeted.ml_app.clear();
            }
            targeted
        }));
    }
}

/// What a check finds, all of it.
fn faults(store: &dyn SpanStore) -> Vec<String> {
    let mut faults = Vec::new();
    let mut step = Some(CheckStep::File);
    while let Some(at) = step {
        let checked = store.check(at).unwrap();
        faults.extend(checked.faults);
        step = match (at, checked.next) {
            (CheckStep::File, _) => Some(CheckStep::Spans { after: None }),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_store_answers_as_the_oracle(
        history in history(any_span(), any_evaluation()),
        searches in proptest::collection::vec(search(), 1..12)
    ) {
        let (_folder, sqlite) = open();
        let oracle = NaiveStore::default();
        let stores: [&dyn SpanStore; 2] = [&sqlite, &oracle];
        for write in &history {
            apply(write, &sqlite, &oracle);
            for search in &searches {
                let [found, expected] = stores.map(|store| walk(store, search));
                prop_assert_eq!(found, expected, "{:?}", search);
            }
        }
        settle(&sqlite);
        let check = sqlite.verify_index(std::time::Duration::from_secs(60)).unwrap().unwrap();
        prop_assert!(check.is_clean(), "{:?}", check);
        prop_assert_eq!(check.agreeing, sqlite.stats().unwrap().spans);
        for search in &searches {
            let [found, expected] = stores.map(|store| walk(store, search));
            prop_assert_eq!(found, expected, "by the index alone: {:?}", search);
        }
        for trace in ["t1", "t2", "t3", "none"] {
            let trace = TraceId::from(trace);
            let [found, expected] = stores.map(|store| store.trace(&trace).unwrap());
            prop_assert_eq!(found, expected);
            let span = SpanId::from("2");
            let [found, expected] = stores.map(|store| store.span(&trace, &span).unwrap());
            prop_assert_eq!(found, expected);
        }
        let [found, expected] = stores.map(|store| store.stats().unwrap());
        prop_assert_eq!(found, expected);
        let [found, expected] = stores.map(|store| store.usage().unwrap().oldest_start_ns);
        prop_assert_eq!(found, expected);
        let [found, expected] = stores.map(all_evaluations);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(faults(&sqlite), [""; 0]);
    }
}

fn at(start_ns: i64, id: &str) -> Span {
    Span {
        trace_id: TraceId::from("t"),
        span_id: SpanId::from(id),
        start_ns,
        ..Span::default()
    }
}

#[test]
fn a_walk_shows_each_span_once_while_others_write() {
    let (_folder, store) = open();
    let old = (0..500).map(|n| at(n / 3 * 1_000_000, &format!("old-{n}")));
    store.append(old.collect()).unwrap();
    let mut search = Search {
        limit: 7,
        ..Search::within(ALL)
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..300 {
                store
                    .append(vec![at(n % 170 * 1_000_000, &format!("new-{n}"))])
                    .unwrap();
            }
        });
        let mut seen = Vec::new();
        loop {
            let (spans, outcome) = collect(&store, &search);
            seen.extend(spans.iter().map(|span| span.span_id.to_string()));
            search.after = outcome.next;
            if outcome.next.is_none() {
                break;
            }
        }
        writer.join().unwrap();
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "a span was shown twice");
        let old = once.iter().filter(|id| id.starts_with("old")).count();
        assert_eq!(old, 500, "a span that was there from the start was missed");
    });
}

#[test]
fn more_spans_of_one_millisecond_than_keys_keep_their_order() {
    let (_folder, store) = open();
    let spans: Vec<Span> = (0..3_000).map(|n| at(5, &format!("{n:04}"))).collect();
    for chunk in spans.chunks(700) {
        store.append(chunk.to_vec()).unwrap();
    }
    store.append(vec![at(1_000_005, "next")]).unwrap();
    let search = Search {
        limit: 1_000,
        newest_first: false,
        ..Search::within(ALL)
    };
    let found = walk(&store, &search);
    let ids: Vec<&str> = found.iter().map(|span| span.span_id.as_str()).collect();
    assert_eq!(ids.len(), 3_001);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn what_was_acknowledged_is_there_after_a_sudden_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Durability::Full).unwrap();
    let id = store.store_id().to_owned();
    store.append(vec![at(1, "1")]).unwrap();
    // Never closed: no checkpoint, no last words.
    std::mem::forget(store);
    let again = SqliteStore::open(folder.path(), Durability::Full).unwrap();
    assert_eq!(again.store_id(), id);
    assert_eq!(again.trace(&TraceId::from("t")).unwrap(), [at(1, "1")]);
}

#[test]
fn a_refused_span_counts_as_not_delivered() {
    let (_folder, store) = open();
    store
        .append(vec![at(1, "1"), at(2, "2"), at(3, "3")])
        .unwrap();
    let mut taken = Vec::new();
    let outcome = store
        .search(&Search::within(ALL), &mut |span| {
            if taken.len() == 1 {
                return ControlFlow::Break(());
            }
            taken.push(span.span_id);
            ControlFlow::Continue(())
        })
        .unwrap();
    let search = Search {
        after: outcome.next,
        ..Search::within(ALL)
    };
    let (rest, _) = collect(&store, &search);
    assert_eq!(taken, [SpanId::from("3")]);
    assert_eq!(rest, [at(2, "2"), at(1, "1")]);
}

#[test]
fn a_search_out_of_time_says_where_to_go_on() {
    let (_folder, store) = open();
    store
        .append((0..50).map(|n| at(n, &n.to_string())).collect())
        .unwrap();
    let search = Search {
        budget: std::time::Duration::ZERO,
        query: Some(llmobs_core::query::parse("nothing-matches-this").unwrap()),
        ..Search::within(ALL)
    };
    let (spans, outcome) = collect(&store, &search);
    assert!(spans.is_empty());
    assert!(outcome.partial);
    assert!(
        outcome
            .next
            .is_some_and(|next: Position| next.start_ns == 49)
    );
    assert!(walk(&store, &search).is_empty(), "the walk comes to an end");
}

#[test]
fn concurrent_senders_are_all_acknowledged() {
    let (_folder, store) = open();
    std::thread::scope(|scope| {
        for sender in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..20 {
                    store.append(vec![at(n, &format!("{sender}-{n}"))]).unwrap();
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().spans, 320);
}
