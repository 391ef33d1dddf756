//! An index that is gone, damaged or of another time is built anew, and searches never notice.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;

use super::{FOLDER, IndexProgress};
use crate::store::{Durability, Search, SpanStore, SqliteStore};
use llmobs_core::model::{Io, Span, SpanId, TimeWindow, TraceId};

const PATIENCE: Duration = Duration::from_secs(60);

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, Durability::Process).unwrap()
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

/// How many spans hold a word.
fn found(store: &SqliteStore, word: &str) -> usize {
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

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join(FOLDER)).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// What happens to the index between two runs.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Nothing,
    Gone,
    NotJson,
    OtherVersion,
    OtherStore,
    Cut(&'static str),
    Zeroed(&'static str),
    Missing(&'static str),
    Behind,
}

impl Harm {
    fn does(self, folder: &Path) {
        let meta = folder.join(FOLDER).join("meta.json");
        let edit = |from: &str, to: &str| {
            let text = std::fs::read_to_string(&meta).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&meta, text.replace(from, to)).unwrap();
        };
        match self {
            Harm::Nothing => {}
            Harm::Gone => std::fs::remove_dir_all(folder.join(FOLDER)).unwrap(),
            Harm::NotJson => std::fs::write(&meta, "{").unwrap(),
            Harm::OtherVersion => edit("\\\"version\\\":", "\\\"version\\\":9"),
            Harm::OtherStore => edit("\\\"store\\\":\\\"", "\\\"store\\\":\\\"x"),
            Harm::Cut(ending) => files(folder, ending).iter().for_each(|file| {
                let length = std::fs::metadata(file).unwrap().len();
                let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                file.set_len(length / 2).unwrap();
            }),
            Harm::Zeroed(ending) => files(folder, ending).iter().for_each(|file| {
                let length = std::fs::metadata(file).unwrap().len();
                std::fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
            }),
            Harm::Missing(ending) => files(folder, ending).iter().for_each(|file| {
                std::fs::remove_file(file).unwrap();
            }),
            Harm::Behind => {
                let file = folder.join(crate::store::sqlite::FILE_NAME);
                let connection = rusqlite::Connection::open(file).unwrap();
                // As if the index had been away while the outbox forgot.
                connection
                    .execute("UPDATE outbox SET seq = seq + 1000000", [])
                    .unwrap();
            }
        }
    }
}

#[rstest]
#[case(Harm::Nothing)]
#[case(Harm::Gone)]
#[case(Harm::NotJson)]
#[case(Harm::OtherVersion)]
#[case(Harm::OtherStore)]
#[case(Harm::Cut(".fast"))]
#[case(Harm::Cut(".term"))]
#[case(Harm::Zeroed(".fast"))]
#[case(Harm::Zeroed(".idx"))]
#[case(Harm::Missing(".term"))]
#[case(Harm::Behind)]
fn whatever_happens_to_the_index_searches_find_all(#[case] harm: Harm) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.append(spans(0..70)).unwrap();
    assert!(store.settle(PATIENCE));
    drop(store);
    harm.does(folder.path());
    let store = open(folder.path());
    assert_eq!(found(&store, "refund"), 10, "while it is built");
    store.append(spans(70..140)).unwrap();
    assert_eq!(found(&store, "refund"), 20, "with what came since");
    assert!(store.settle(PATIENCE), "{:?}", store.index_progress());
    assert_eq!(found(&store, "refund"), 20, "by the index");
    let check = store.verify_index(PATIENCE).unwrap().unwrap();
    assert!(check.is_clean() && check.agreeing == 140, "{check:?}");
}

#[test]
fn an_index_that_cannot_be_kept_costs_time_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // A file where its folder should be.
    std::fs::write(folder.path().join(FOLDER), "in the way").unwrap();
    let store = open(folder.path());
    store.append(spans(0..70)).unwrap();
    assert!(!store.settle(PATIENCE));
    assert!(matches!(store.index_progress(), IndexProgress::Failed(_)));
    store.append(spans(70..140)).unwrap();
    assert_eq!(found(&store, "refund"), 20);
}

#[test]
fn an_index_that_is_asked_for_anew_is_whole_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.append(spans(0..140)).unwrap();
    store.rebuild_index();
    assert_eq!(found(&store, "refund"), 20);
    assert!(store.settle(PATIENCE));
    let check = store.verify_index(PATIENCE).unwrap().unwrap();
    assert!(check.is_clean() && check.agreeing == 140, "{check:?}");
}
