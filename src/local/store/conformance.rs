//! One suite for every `SpanStore`: random histories, each question answered as the oracle does.

use std::ops::ControlFlow;

use proptest::prelude::*;
use serde_json::json;

use super::oracle::NaiveStore;
use super::{
    CheckStep, Durability, EvaluationTarget, Outcome, Position, PurgeStep, Search, SpanStore,
    SqliteStore, SweepStep, TargetedEvaluation,
};
use crate::analysis::aggregate::{
    Aggregation, Bucket, Dimension, Gatherer, Question, Seen, Tally, Unit,
};
use crate::model::{
    Assessment, Evaluation, EventKind, Io, Span, SpanId, SpanKind, Status, TimeWindow, TraceId,
};
use crate::query::combine::SpanFilters;
use crate::query::index::strategies;
use crate::query::{Query, SpanContext};

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

#[derive(Debug, Clone)]
enum Write {
    Spans(Vec<Span>),
    Evaluations(Vec<TargetedEvaluation>),
    /// Nothing: the derived index catches up, and what follows is behind it.
    Settle,
    /// Nothing: the derived index is built anew.
    Rebuild,
    /// Spans that began before this many nanoseconds go, and then what is about nothing.
    Purge(i64),
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

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(words).prop_map(str::to_owned)
}

fn ids() -> impl Strategy<Value = (String, String)> {
    (word(&["t1", "t2", "t3"]), word(&["1", "2", "3", "4", "5"]))
}

prop_compose! {
    fn span()(
        (trace, id) in ids(),
        parent in proptest::option::of(word(&["1", "2", "3", "9"])),
        app in word(&["shop", "bank", ""]),
        name in word(&["a", "b"]),
        kind in word(&["llm", "tool", "agent", "reranker"]),
        session in proptest::option::of(word(&["s1", "s2"])),
        failed: bool,
        start in prop_oneof![Just(1_700_000_000_000_000_000i64), Just(0), Just(-7),
                             1_700_000_000_000_000_000i64..1_700_000_000_003_000_000],
        tier in proptest::option::of(word(&["gold", "free"])),
        text in word(&["refund please", "weather", "please say refund"]),
        (duration, tokens, model) in (prop_oneof![Just(0), Just(5_000_000_000i64), 0..9i64],
                                      proptest::option::of(0..9u32), proptest::option::of(word(&["gpt-4o", "o3"]))),
        plan in proptest::option::of(prop_oneof![Just(json!("gold")), Just(json!(7)), Just(json!({"a": ["x", 2]}))]),
    ) -> Span {
        Span {
            trace_id: TraceId::from(trace),
            span_id: SpanId::from(id),
            parent_id: parent.map(SpanId::from),
            ml_app: app,
            name,
            kind: SpanKind::from(kind),
            session_id: session,
            status: if failed { Status::Error } else { Status::Ok },
            start_ns: start,
            tags: tier.map(|tier| format!("tier:{tier}")).into_iter().collect(),
            input: Io { value: Some(text.into()), ..Io::default() },
            duration_ns: duration,
            metrics: tokens.into_iter().flat_map(|tokens| {
                [("total_tokens", 1.0), ("input_tokens", 0.5), ("total_cost", 1e-3)]
                    .map(|(name, factor)| (name.to_owned(), f64::from(tokens) * factor))
            }).collect(),
            model_name: model,
            metadata: plan.map(|plan| ("plan".to_owned(), plan)).into_iter().collect(),
            ..Span::default()
        }
    }
}

prop_compose! {
    fn evaluation()(
        (trace, id) in ids(),
        which in 0..6,
        label in word(&["tone", "done"]),
        app in word(&["shop", ""]),
        feedback: bool,
        timestamp_ms in 0..4i64,
        value in 0..100i64,
    ) -> TargetedEvaluation {
        let target = match which {
            0 => EvaluationTarget::Trace(TraceId::from(trace)),
            1 => EvaluationTarget::Session("s1".to_owned()),
            2 => EvaluationTarget::Tag { key: "tier".to_owned(), value: "gold".to_owned() },
            3 => EvaluationTarget::Span { trace_id: None, span_id: SpanId::from(id) },
            _ => EvaluationTarget::Span {
                trace_id: Some(TraceId::from(trace)),
                span_id: SpanId::from(id),
            },
        };
        TargetedEvaluation {
            target,
            ml_app: app,
            evaluation: Evaluation {
                label,
                event_kind: if feedback { EventKind::Feedback } else { EventKind::Evaluation },
                value: Some(json!(value)),
                assessment: Some(Assessment::Fail),
                timestamp_ms,
                ..Evaluation::default()
            },
        }
    }
}

/// Spans of few words that meet often, and spans with all that one can hold. Evaluations come by
/// themselves.
fn any_span() -> impl Strategy<Value = Span> {
    prop_oneof![
        2 => span(),
        1 => strategies::span().prop_map(as_taken_in),
    ]
}

/// A span as the intake makes it: null is nothing, and what a tag says of the session counts.
fn as_taken_in(mut span: Span) -> Span {
    span.input.value = span.input.value.take().filter(|value| !value.is_null());
    let tagged = span.tag("session_id").map(str::to_owned);
    let named = span.session_id.take();
    span.session_id = named.filter(|session| !session.is_empty()).or(tagged);
    span.evaluations.clear();
    span.feedback.clear();
    span
}

/// The same of evaluations.
fn any_evaluation() -> impl Strategy<Value = TargetedEvaluation> {
    let full =
        (evaluation(), strategies::evaluation()).prop_map(|(few, full)| TargetedEvaluation {
            evaluation: Evaluation {
                value: full.value.filter(|value| !value.is_null()),
                event_kind: few.evaluation.event_kind,
                timestamp_ms: few.evaluation.timestamp_ms,
                ..full
            },
            ..few
        });
    prop_oneof![2 => evaluation(), 1 => full]
}

fn history(
    span: impl Strategy<Value = Span>,
    evaluation: impl Strategy<Value = TargetedEvaluation>,
) -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        proptest::collection::vec(span, 1..6).prop_map(Write::Spans),
        proptest::collection::vec(evaluation, 1..4).prop_map(Write::Evaluations),
        Just(Write::Settle),
        Just(Write::Rebuild),
        proptest::sample::select(vec![i64::MIN, 0, 1, 1_700_000_000_001_500_000, i64::MAX])
            .prop_map(Write::Purge),
    ];
    proptest::collection::vec(write, 1..8)
}

/// Queries about what most spans here have.
const EXAMPLES: &[&str] = &[
    "refund",
    "@status:error",
    "-@name:a",
    "tier:gold @ml_app:shop",
    "@session_id:s1",
    "@evaluations.custom.tone:*",
    "@trace.llm_calls:>0",
    "@child.@meta.span.kind:tool",
    "@parent_id:undefined",
    "@trace_id:t2",
    "@meta.span.kind:tool",
    "ref*",
    "\"say refund\"",
    "-refund",
    "-(refund OR @status:error)",
    "@duration:>=5s",
    "@duration:<3",
    "@metrics.total_tokens:[2 TO 5]",
    "-@metrics.total_tokens:>4",
    "@meta.model_name:gpt*",
    "_missing_:@meta.model_name",
    "tier:*",
    "@evaluation.tone.value:<50",
    "-@evaluation.tone.value:<50 @evaluations.tone:*",
    "@feedback.done.value:>10",
    "@evaluations.custom.tone.assessment:fail",
    "@meta.metadata.plan:gold",
    "@meta.metadata.plan.a:2",
    "@meta.input.value:*please*",
    "nothing:here",
    "@trace.number_of_errors:>0 OR @name:b",
    "(@ml_app:shop OR @ml_app:bank) -tier:free",
    "@meta.model_name:(o3 OR gpt-4o) weather",
    "-@ml_app:*",
    "@event_kind:feedback",
    "@child.@status:error -@name:a",
    "*",
];

prop_compose! {
    fn search()(
        app in proptest::option::of(word(&["shop", "bank", "nobody"])),
        kind in proptest::option::of(word(&["llm", "reranker"])),
        name in proptest::option::of(word(&["a"])),
        trace in proptest::option::of(word(&["t1"])),
        session in proptest::option::of(word(&["s1"])),
        roots: bool,
        tier in proptest::option::of(word(&["gold"])),
        query in prop_oneof![
            1 => Just(None),
            2 => word(EXAMPLES).prop_map(Some),
            4 => strategies::query().prop_map(Some),
        ],
        window in prop_oneof![Just(ALL), Just(TimeWindow {
            from_ms: 1_700_000_000_001, to_ms: 1_700_000_000_002 })],
        newest_first: bool,
        limit in 1..8usize,
    ) -> Search {
        Search {
            filters: SpanFilters {
                ml_app: app,
                span_kind: kind,
                span_name: name,
                trace_id: trace,
                session_id: session,
                root_spans_only: roots,
                tags: tier.map(|tier| ("tier".to_owned(), tier)).into_iter().collect(),
                ..SpanFilters::default()
            },
            query: query.map(|text| crate::query::parse(&text).unwrap()),
            newest_first,
            limit,
            ..Search::within(window)
        }
    }
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
            for store in stores {
                match write.clone() {
                    Write::Spans(spans) => store.append(spans).map(drop).unwrap(),
                    Write::Evaluations(list) => store.attach_evaluations(list).map(drop).unwrap(),
                    Write::Settle => settle(&sqlite),
                    Write::Rebuild => sqlite.rebuild_index(),
                    Write::Purge(_) => {}
                }
            }
            if let Write::Purge(before_ns) = write {
                let [gone, expected] = stores.map(|store| purge(store, *before_ns));
                prop_assert_eq!(gone, expected);
            }
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
    ) -> Question {
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
        Question {
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
fn tallied(store: &dyn SpanStore, question: &Question) -> Aggregation {
    let mut search = asked(question);
    // Traces are put together of all their spans.
    let selection = search.query.clone();
    if question.unit == Unit::Trace {
        search.query = None;
    }
    let buckets = parsed_buckets(question);
    let mut tally = Tally::new(question).unwrap();
    let spans = walk(store, &search);
    for span in &spans {
        let context = SpanContext::of(span);
        let held = buckets
            .iter()
            .enumerate()
            .filter(|(_, query)| query.matches(&context));
        tally.add(Seen {
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
fn counted(store: &SqliteStore, question: &Question) -> Option<Aggregation> {
    let (search, buckets) = (asked(question), parsed_buckets(question));
    if let Some(mut gatherer) = Gatherer::new(question).unwrap() {
        store.gather(&search, &buckets, &mut gatherer).unwrap()?;
        return Some(gatherer.finish());
    }
    let mut tally = Tally::new(question).unwrap();
    let rows = store.gather(&search, &buckets, &mut tally).unwrap()?;
    Some(tally.finish(rows, false))
}

fn asked(question: &Question) -> Search {
    Search {
        filters: question.scope(),
        query: question
            .query
            .as_ref()
            .map(|text| crate::query::parse(text).unwrap()),
        ..Search::within(question.window)
    }
}

fn parsed_buckets(question: &Question) -> Vec<Query> {
    let buckets = question.buckets().iter();
    buckets
        .map(|bucket| crate::query::parse(&bucket.query).unwrap())
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
        for write in history {
            for each in [&store as &dyn SpanStore, &oracle] {
                match write.clone() {
                    Write::Spans(spans) => drop(each.append(spans).unwrap()),
                    Write::Evaluations(list) => drop(each.attach_evaluations(list).unwrap()),
                    Write::Purge(before_ns) => drop(purge(each, before_ns)),
                    Write::Settle | Write::Rebuild => {}
                }
            }
            match write {
                Write::Settle => settle(&store),
                Write::Rebuild => store.rebuild_index(),
                _ => {}
            }
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
    let question = Question {
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
        query: Some(crate::query::parse("nothing-matches-this").unwrap()),
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
