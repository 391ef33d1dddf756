//! Missing, damaged and outdated indexes are rebuilt, and searches return the same spans meanwhile.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;

use super::{DIRECTORY_NAME, IndexProgress};
use crate::store::{
    Durability, Maintenance as _, Search, SpanReader as _, SpanWriter as _, SqliteStore,
};
use llmobs_core::model::{Io, Span, SpanId, TimeWindow, TraceId};

const TIMEOUT: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory, Durability::Process).unwrap()
}

fn spans(ids: std::ops::Range<i64>) -> Vec<Span> {
    ids.map(|n| Span {
        trace_id: TraceId::from("t"),
        span_id: SpanId::from(n.to_string()),
        start_ns: n * 1_000_000,
        input: Io {
            value: Some(if n % 7 == 0 { "a refund" } else { "weather" }.into()),
            ..Io::default()
        },
        ..Span::default()
    })
    .collect()
}

/// The number of spans that contain a word.
fn count_matches(store: &SqliteStore, word: &str) -> usize {
    let search = Search {
        query: Some(llmobs_core::query::parse(word).unwrap()),
        limit: usize::MAX,
        ..Search::within(TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        })
    };
    let mut count = 0;
    store
        .search(&search, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.join(DIRECTORY_NAME)).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// Damage to the index between two runs.
#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    Removed,
    NotJson,
    OtherVersion,
    OtherStore,
    Truncated(&'static str),
    Zeroed(&'static str),
    Missing(&'static str),
    OutboxTrimmed,
}

impl Damage {
    fn apply(self, directory: &Path) {
        let meta = directory.join(DIRECTORY_NAME).join("meta.json");
        let edit = |from: &str, to: &str| {
            let text = std::fs::read_to_string(&meta).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&meta, text.replace(from, to)).unwrap();
        };
        match self {
            Damage::None => {}
            Damage::Removed => std::fs::remove_dir_all(directory.join(DIRECTORY_NAME)).unwrap(),
            Damage::NotJson => std::fs::write(&meta, "{").unwrap(),
            Damage::OtherVersion => edit("\\\"version\\\":", "\\\"version\\\":9"),
            Damage::OtherStore => edit("\\\"store\\\":\\\"", "\\\"store\\\":\\\"x"),
            Damage::Truncated(ending) => files(directory, ending).iter().for_each(|file| {
                let length = std::fs::metadata(file).unwrap().len();
                let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                file.set_len(length / 2).unwrap();
            }),
            Damage::Zeroed(ending) => files(directory, ending).iter().for_each(|file| {
                let length = std::fs::metadata(file).unwrap().len();
                std::fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
            }),
            Damage::Missing(ending) => files(directory, ending).iter().for_each(|file| {
                std::fs::remove_file(file).unwrap();
            }),
            Damage::OutboxTrimmed => {
                let file = directory.join(crate::store::FILE_NAME);
                let connection = rusqlite::Connection::open(file).unwrap();
                // As if the outbox had been trimmed while the index was missing.
                connection
                    .execute("UPDATE outbox SET seq = seq + 1000000", [])
                    .unwrap();
            }
        }
    }
}

#[rstest]
#[case(Damage::None)]
#[case(Damage::Removed)]
#[case(Damage::NotJson)]
#[case(Damage::OtherVersion)]
#[case(Damage::OtherStore)]
#[case(Damage::Truncated(".fast"))]
#[case(Damage::Truncated(".term"))]
#[case(Damage::Zeroed(".fast"))]
#[case(Damage::Zeroed(".idx"))]
#[case(Damage::Missing(".term"))]
#[case(Damage::OutboxTrimmed)]
fn searches_find_all_spans_after_any_damage(#[case] damage: Damage) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.append(spans(0..70)).unwrap();
    assert!(store.wait_for_index(TIMEOUT));
    drop(store);
    damage.apply(directory.path());
    let store = open(directory.path());
    assert_eq!(
        count_matches(&store, "refund"),
        10,
        "while the index is built"
    );
    store.append(spans(70..140)).unwrap();
    assert_eq!(count_matches(&store, "refund"), 20, "with later spans");
    assert!(
        store.wait_for_index(TIMEOUT),
        "{:?}",
        store.index_progress()
    );
    assert_eq!(count_matches(&store, "refund"), 20, "from the index");
    let check = store.verify_index(TIMEOUT).unwrap().unwrap();
    assert!(check.is_clean() && check.equal == 140, "{check:?}");
}

#[test]
fn searches_work_without_a_usable_index() {
    let directory = tempfile::tempdir().unwrap();
    // A file in place of the directory.
    std::fs::write(directory.path().join(DIRECTORY_NAME), "in the way").unwrap();
    let store = open(directory.path());
    store.append(spans(0..70)).unwrap();
    assert!(!store.wait_for_index(TIMEOUT));
    assert!(matches!(
        store.index_progress(),
        Some(IndexProgress::Failed(_))
    ));
    store.append(spans(70..140)).unwrap();
    assert_eq!(count_matches(&store, "refund"), 20);
}

#[test]
fn requested_rebuild_restores_the_complete_index() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.append(spans(0..140)).unwrap();
    store.reindex();
    assert_eq!(count_matches(&store, "refund"), 20);
    assert!(store.wait_for_index(TIMEOUT));
    let check = store.verify_index(TIMEOUT).unwrap().unwrap();
    assert!(check.is_clean() && check.equal == 140, "{check:?}");
}
