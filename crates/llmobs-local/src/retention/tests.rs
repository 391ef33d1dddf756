//! What goes, what stays, and that others are served meanwhile.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::store::{CheckStep, Durability, SqliteStore, TargetedEvaluation};
use super::super::store::{EvaluationTarget, Search};
use super::*;
use crate::{DataDir, LocalOptions};
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

fn judged(target: EvaluationTarget, timestamp_ms: i64) -> TargetedEvaluation {
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

fn of_span(number: i64, timestamp_ms: i64) -> TargetedEvaluation {
    let target = EvaluationTarget::Span {
        trace_id: Some(TraceId::from(format!("t{number}"))),
        span_id: SpanId::from(number.to_string()),
    };
    judged(target, timestamp_ms)
}

fn starts(store: &dyn SpanStore) -> Vec<i64> {
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

fn run(mut purge: Purge, store: &dyn SpanStore) -> Removed {
    let mut removed = Removed::default();
    while !purge.is_done() {
        let step = purge.step(store).unwrap();
        removed.spans += step.spans;
        removed.evaluations += step.evaluations;
        // It goes to and fro as JSON.
        let text = serde_json::to_string(&purge).unwrap();
        purge = serde_json::from_str(&text).unwrap();
    }
    removed
}

fn open(folder: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(folder.path(), Durability::Process).unwrap()
}

#[test]
fn what_began_before_goes_with_what_was_said_about_it_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let days = |days: i64| NOW - days * DAY_MS;
    // More than one step removes.
    let spans = (0..1_300).map(|n| span(n, if n < 1_200 { days(40) + n } else { days(3) + n }));
    store.append(spans.collect()).unwrap();
    let session = |number: i64| EvaluationTarget::Session(format!("s{number}"));
    let bare = |number: i64| EvaluationTarget::Span {
        trace_id: None,
        span_id: SpanId::from(number.to_string()),
    };
    let trace = |number: i64| EvaluationTarget::Trace(TraceId::from(format!("t{number}")));
    store
        .attach_evaluations(vec![
            // About spans that go: by the span's end, or because they are old.
            of_span(1, days(2)),
            judged(session(2), days(39)),
            judged(bare(3), days(39)),
            judged(trace(4), days(39)),
            of_span(7_777, days(35)),
            // About spans that stay, however old; and about none, but young: its span may come.
            of_span(1_250, days(39)),
            judged(session(1_251), days(39)),
            judged(bare(1_252), days(39)),
            judged(trace(1_253), days(39)),
            of_span(8_888, days(1)),
            judged(session(5), days(1)),
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
    assert_eq!(run(retention.purge(NOW), &store), Removed::default());
    for step in [
        CheckStep::File,
        CheckStep::Spans { after: None },
        CheckStep::Evaluations { after: None },
        CheckStep::Changes,
    ] {
        assert_eq!(store.check(step).unwrap().faults, [""; 0]);
    }
}

#[test]
fn by_size_the_oldest_go_until_it_fits_and_the_space_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
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
    store.attach_evaluations(vec![of_span(1, NOW)]).unwrap();
    let before = store.usage().unwrap();
    let most = before.used_bytes / 2;
    let removed = run(Purge::new(None, Some(most), GiveBack::All), &store);
    let after = store.usage().unwrap();
    assert!(after.used_bytes <= most, "{after:?} of {before:?}");
    assert!(after.used_bytes > most / 2, "no more than needed");
    assert_eq!(after.free_bytes, 0, "given back");
    let left = starts(&store);
    assert_eq!(left.len() as u64 + removed.spans, 2_000);
    assert_eq!(
        left.first(),
        Some(&(NOW + removed.spans as i64)),
        "the oldest went"
    );
    assert_eq!(removed.evaluations, 1);
    // A limit below an empty store empties it and comes to an end.
    run(Purge::new(None, Some(1), GiveBack::Surplus), &store);
    assert_eq!(store.stats().unwrap().spans, 0);
    store.append(vec![span(1, NOW)]).unwrap();
    assert_eq!(starts(&store), [NOW]);
}

#[test]
fn ingest_and_reads_go_on_during_a_purge() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
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
        run(Purge::new(Some(NOW), None, GiveBack::All), &store);
        writing.join().unwrap();
        reading.join().unwrap();
    });
    let left = starts(&store);
    assert_eq!((left.len(), left[0]), (100, NOW + 10_000));
}

#[tokio::test]
async fn an_owner_holds_to_its_retention_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        retention: Retention {
            max_age: Some(Duration::from_secs(60)),
            max_bytes: None,
        },
        ..LocalOptions::new(DataDir::Folder(folder.path().to_owned()))
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
