//! What a purge removes and keeps, and that requests are served meanwhile.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use std::sync::Arc;

use super::*;
use crate::clock::now_ms;
use crate::control::SqliteControl;
use crate::store::{
    CheckStep, Durability, EvaluationTarget, Search, SqliteStore, TargetedEvaluation,
};
use crate::{DataDir, LocalBackend, LocalOptions, retain};
use llmobs_core::model::{Evaluation, Io, Span, SpanId, TimeWindow, TraceId};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const NOW: i64 = 1_900_000_000_000;

fn span(number: i64, start_ms: i64) -> Span {
    Span {
        trace_id: TraceId::from(format!("t{number}")),
        span_id: SpanId::from(number.to_string()),
        session_id: Some(format!("s{number}")),
        start_ns: start_ms * 1_000_000,
        ..Span::default()
    }
}

fn evaluation(target: EvaluationTarget, timestamp_ms: i64) -> TargetedEvaluation {
    TargetedEvaluation {
        target,
        ml_app: String::new(),
        evaluation: Evaluation {
            label: "tone".into(),
            value: Some(json!(1)),
            timestamp_ms,
            ..Evaluation::default()
        },
    }
}

fn evaluation_of_span(number: i64, timestamp_ms: i64) -> TargetedEvaluation {
    let target = EvaluationTarget::Span {
        trace_id: Some(TraceId::from(format!("t{number}"))),
        span_id: SpanId::from(number.to_string()),
    };
    evaluation(target, timestamp_ms)
}

fn starts(store: &SpanStore) -> Vec<i64> {
    let search = Search {
        newest_first: false,
        limit: usize::MAX,
        budget: Duration::from_secs(3_600),
        ..Search::within(TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        })
    };
    let mut starts = Vec::new();
    store
        .search(&search, &mut |span| {
            starts.push(span.start_ms());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    starts
}

fn run(mut purge: Purge, store: &SpanStore) -> RemovedCounts {
    let mut removed = RemovedCounts::default();
    while !purge.is_done() {
        let step = purge.step(store).unwrap();
        removed.spans += step.spans;
        removed.evaluations += step.evaluations;
        // Commands pass it as JSON.
        let text = serde_json::to_string(&purge).unwrap();
        purge = serde_json::from_str(&text).unwrap();
    }
    removed
}

fn open(directory: &tempfile::TempDir) -> SpanStore {
    let spans = SqliteStore::open(directory.path(), Durability::Process).unwrap();
    let control = SqliteControl::open(directory.path(), Durability::Process).unwrap();
    SpanStore::new(Arc::new(spans), Arc::new(control))
}

#[test]
fn removes_old_spans_with_their_evaluations_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let days = |days: i64| NOW - days * DAY_MS;
    // More than one step.
    let spans = (0..1_300).map(|n| span(n, if n < 1_200 { days(40) + n } else { days(3) + n }));
    store.append(spans.collect()).unwrap();
    let session = |number: i64| EvaluationTarget::Session(format!("s{number}"));
    let span_only = |number: i64| EvaluationTarget::Span {
        trace_id: None,
        span_id: SpanId::from(number.to_string()),
    };
    let trace = |number: i64| EvaluationTarget::Trace(TraceId::from(format!("t{number}")));
    store
        .attach_evaluations(vec![
            // On removed spans: removed with the span, or by age.
            evaluation_of_span(1, days(2)),
            evaluation(session(2), days(39)),
            evaluation(span_only(3), days(39)),
            evaluation(trace(4), days(39)),
            evaluation_of_span(7_777, days(35)),
            // On kept spans of any age, and recent ones without a target: it may still arrive.
            evaluation_of_span(1_250, days(39)),
            evaluation(session(1_251), days(39)),
            evaluation(span_only(1_252), days(39)),
            evaluation(trace(1_253), days(39)),
            evaluation_of_span(8_888, days(1)),
            evaluation(session(5), days(1)),
        ])
        .unwrap();
    let retention = Retention {
        max_age: Some(Duration::from_secs(30 * 24 * 60 * 60)),
        max_bytes: None,
    };
    let removed = run(retention.purge(NOW), &store);
    assert_eq!((removed.spans, removed.evaluations), (1_200, 5));
    assert_eq!(starts(&store).len(), 100);
    assert_eq!(store.stats().unwrap().evaluations, 6);
    for number in 1_250..1_254 {
        let id = SpanId::from(number.to_string());
        let trace = TraceId::from(format!("t{number}"));
        let kept = store.span(&trace, &id).unwrap().unwrap();
        assert_eq!(kept.evaluations.len(), 1, "{number}");
    }
    assert_eq!(run(retention.purge(NOW), &store), RemovedCounts::default());
    for step in [
        CheckStep::Storage,
        CheckStep::Spans { after: None },
        CheckStep::Evaluations { after: None },
        CheckStep::Changes,
    ] {
        assert_eq!(store.check(step).unwrap().faults, [""; 0]);
    }
}

#[test]
fn removes_the_oldest_spans_by_size_and_releases_space() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let noise = |n: i64| -> String {
        let mut state = n.unsigned_abs() + 1;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b' ' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .take(5_000)
        .collect()
    };
    for hundred in 0..20 {
        let spans = (0..100).map(|n| {
            let number = hundred * 100 + n;
            Span {
                input: Io {
                    value: Some(json!(noise(number))),
                    ..Io::default()
                },
                ..span(number, NOW + number)
            }
        });
        store.append(spans.collect()).unwrap();
    }
    store
        .attach_evaluations(vec![evaluation_of_span(1, NOW)])
        .unwrap();
    let before = store.maintenance().usage().unwrap();
    let limit = before.used_bytes / 2;
    let removed = run(Purge::new(None, Some(limit), SpaceRelease::All), &store);
    let after = store.maintenance().usage().unwrap();
    assert!(after.used_bytes <= limit, "{after:?} of {before:?}");
    assert!(after.used_bytes > limit / 2, "removed more than necessary");
    assert_eq!(after.free_bytes, 0, "free space is returned");
    let remaining = starts(&store);
    assert_eq!(remaining.len() as u64 + removed.spans, 2_000);
    assert_eq!(
        remaining.first(),
        Some(&(NOW + removed.spans as i64)),
        "the oldest spans are removed"
    );
    assert_eq!(removed.evaluations, 1);
    // A limit below the size of an empty store removes everything and terminates.
    run(Purge::new(None, Some(1), SpaceRelease::Surplus), &store);
    assert_eq!(store.stats().unwrap().spans, 0);
    store.append(vec![span(1, NOW)]).unwrap();
    assert_eq!(starts(&store), [NOW]);
}

#[test]
fn serves_writes_and_reads_during_a_purge() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let old = (0..5_000).map(|n| span(n, n));
    store.append(old.collect()).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 10_000..10_100 {
                store.append(vec![span(number, NOW + number)]).unwrap();
            }
        });
        let reading = scope.spawn(|| {
            for _ in 0..20 {
                let (trace, id) = (TraceId::from("t10000"), SpanId::from("10000"));
                store.span(&trace, &id).unwrap();
            }
        });
        run(Purge::new(Some(NOW), None, SpaceRelease::All), &store);
        writing.join().unwrap();
        reading.join().unwrap();
    });
    let remaining = starts(&store);
    assert_eq!((remaining.len(), remaining[0]), (100, NOW + 10_000));
}

#[tokio::test]
async fn retention_runs_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        retention: Retention {
            max_age: Some(Duration::from_secs(60)),
            max_bytes: None,
        },
        ..LocalOptions::new(DataDir::Path(directory.path().to_owned()))
    };
    let backend = LocalBackend::open(options).unwrap();
    let store = backend.inner.store.clone();
    store
        .append(vec![span(1, now_ms() - DAY_MS), span(2, now_ms())])
        .unwrap();
    let stop = CancellationToken::new();
    let retaining = tokio::spawn(retain(backend.clone(), stop.clone()));
    for _ in 0..600 {
        if store.stats().unwrap().spans == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.stats().unwrap().spans, 1);
    stop.cancel();
    retaining.await.unwrap();
}
