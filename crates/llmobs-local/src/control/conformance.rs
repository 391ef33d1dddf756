//! What every control store has to do, run on each of them, and compared on random changes.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::oracle::Oracle;
use super::{
    Change, ControlStore, Find, Kind, Member, Metric, MetricsOf, Object, Record, RecordsAsked,
    RunsAsked, SqliteControl,
};
use crate::store::Durability;

/// A store, and the folder that it lives in.
struct Under {
    store: Box<dyn ControlStore>,
    _folder: Option<tempfile::TempDir>,
}

fn oracle() -> Under {
    Under {
        store: Box::new(Oracle::default()),
        _folder: None,
    }
}

fn sqlite() -> Under {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(folder.path(), Durability::Process).unwrap();
    Under {
        store: Box::new(store),
        _folder: Some(folder),
    }
}

fn object(kind: Kind, id: &str, parent: &str, name: &str) -> Change {
    let mut object = Object::new(kind, id.to_owned(), parent, name);
    object.set("of", id);
    Change::Object(object)
}

fn record(id: &str, since: i64, until: Option<i64>, place: i64, tags: &[&str]) -> Change {
    Change::Record(Record {
        dataset: "d".into(),
        id: id.into(),
        since,
        until,
        place,
        digest: format!("{id}{since}"),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        body: json!({"input": id}).as_object().unwrap().clone(),
    })
}

fn asked(version: i64, tags: &[&str]) -> RecordsAsked {
    RecordsAsked {
        dataset: "d".into(),
        version,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ids: Vec::new(),
        after: None,
        limit: usize::MAX,
    }
}

fn ids(objects: &[Object]) -> Vec<&str> {
    objects.iter().map(|object| object.id.as_str()).collect()
}

#[rstest]
#[case::oracle(oracle())]
#[case::sqlite(sqlite())]
fn objects_are_found_newest_first_and_replaced_in_place(#[case] under: Under) {
    let store = under.store;
    let experiment = |id: &str| object(Kind::Experiment, id, "p", id);
    store
        .apply(vec![experiment("a"), experiment("b"), experiment("c")])
        .unwrap();
    store
        .apply(vec![object(Kind::Experiment, "a", "p", "renamed")])
        .unwrap();
    let all = Find::all(Kind::Experiment);
    let found = store.find(&all).unwrap();
    assert_eq!(ids(&found), ["c", "b", "a"]);
    let next = Find {
        before: Some(found[0].seq),
        limit: 1,
        ..all.clone()
    };
    assert_eq!(ids(&store.find(&next).unwrap()), ["b"]);
    let by = |name: &str| Find {
        name: Some(name.to_owned()),
        ..all.clone()
    };
    assert_eq!(ids(&store.find(&by("renamed")).unwrap()), ["a"]);
    assert_eq!(ids(&store.find(&by("a")).unwrap()), [""; 0]);
    let mut gone = found[1].clone();
    gone.deleted = true;
    store.apply(vec![Change::Object(gone)]).unwrap();
    assert_eq!(ids(&store.find(&all).unwrap()), ["c", "a"]);
    let deleted = Find {
        deleted: Some(true),
        ..all
    };
    assert_eq!(ids(&store.find(&deleted).unwrap()), ["b"]);
}

#[rstest]
#[case::oracle(oracle())]
#[case::sqlite(sqlite())]
fn a_version_holds_the_records_of_its_time(#[case] under: Under) {
    let store = under.store;
    store
        .apply(vec![
            record("a", 1, Some(2), 0, &["lang:de", "x:1"]),
            record("a", 2, None, 0, &["lang:de"]),
            record("b", 1, Some(3), 1, &[]),
            record("c", 3, None, 2, &["lang:en"]),
        ])
        .unwrap();
    let at = |asked: &RecordsAsked| -> Vec<(String, i64)> {
        let records = store.records(asked).unwrap();
        records.into_iter().map(|it| (it.id, it.since)).collect()
    };
    assert_eq!(
        at(&asked(1, &[])),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    assert_eq!(
        at(&asked(2, &[])),
        [("a".to_owned(), 2), ("b".to_owned(), 1)]
    );
    assert_eq!(
        at(&asked(3, &[])),
        [("a".to_owned(), 2), ("c".to_owned(), 3)]
    );
    assert_eq!(at(&asked(1, &["lang:de", "x:1"])), [("a".to_owned(), 1)]);
    assert_eq!(at(&asked(2, &["lang:de", "x:1"])), []);
}

#[rstest]
#[case::oracle(oracle())]
#[case::sqlite(sqlite())]
fn metrics_are_added_and_keep_their_order(#[case] under: Under) {
    let store = under.store;
    let metric = |span: &str, label: &str| Change::Metric {
        experiment: "e".into(),
        metric: Metric {
            span: span.into(),
            label: label.into(),
            body: format!("{{\"label\":\"{label}\"}}"),
        },
    };
    let run = |span: &str, start_ns: i64| {
        Change::Member(Member {
            experiment: "e".into(),
            trace: "t".into(),
            span: span.into(),
            run: true,
            start_ns,
            ..Member::default()
        })
    };
    store
        .apply(vec![
            run("1", 10),
            run("2", 20),
            run("2", 30),
            metric("1", "b"),
            metric("1", "a"),
            metric("2", "a"),
            metric("1", "b"),
            metric("", "sum"),
        ])
        .unwrap();
    let labels = |of: MetricsOf| -> Vec<String> {
        let metrics = store.metrics("e", of).unwrap();
        metrics.into_iter().map(|it| it.span + &it.label).collect()
    };
    let between = |first_ns, last_ns| MetricsOf::Runs { first_ns, last_ns };
    assert_eq!(labels(between(0, 29)), ["1b", "1a", "1b"]);
    assert_eq!(labels(between(0, 30)), ["1b", "1a", "2a", "1b"]);
    assert_eq!(labels(MetricsOf::Whole), ["sum"]);
    let after = |after| RunsAsked {
        experiment: "e",
        after,
        limit: 5,
    };
    assert_eq!(store.runs(&after(Some((10, "1")))).unwrap().len(), 1);
    assert_eq!(store.totals("e").unwrap().runs, 2);
    store
        .apply(vec![Change::ForgetMetrics {
            experiment: "e".into(),
        }])
        .unwrap();
    assert_eq!(labels(MetricsOf::Whole), [""; 0]);
}

/// A span id may stand in two traces, at different times.
fn trace_of(start_ns: i64) -> String {
    if start_ns < 5 { "t" } else { "u" }.to_owned()
}

fn any_change() -> impl Strategy<Value = Change> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (id.clone(), 0i64..4, prop::option::of(1i64..5), 0i64..3).prop_map(
            |(id, since, until, place)| {
                let tags: &[&str] = if place == 0 { &["t:1"] } else { &[] };
                // A place belongs to one record.
                let place = place * 3 + i64::from(id.as_bytes()[0] - b'a');
                record(id, since, until, place, tags)
            }
        ),
        (id.clone(), 0i64..4).prop_map(|(id, since)| Change::RemoveRecord {
            dataset: "d".into(),
            id: id.into(),
            since
        }),
        (id.clone(), id.clone()).prop_map(|(id, name)| object(Kind::Dataset, id, "p", name)),
        (id.clone(), 0i64..9, any::<bool>()).prop_map(|(span, start_ns, run)| {
            Change::Member(Member {
                experiment: "e".into(),
                trace: trace_of(start_ns),
                span: span.into(),
                run,
                start_ns,
                duration_ns: start_ns,
                failed: start_ns % 2 == 0,
                total_tokens: 2.0,
                ..Member::default()
            })
        }),
        (id.clone(), 0i64..9).prop_map(|(span, start_ns)| Change::ForgetMember {
            trace: trace_of(start_ns),
            span: span.into(),
        }),
        (0i64..9).prop_map(|start_ns| Change::ForgetMembersBefore { start_ns }),
        (id.clone(), id).prop_map(|(span, label)| Change::Metric {
            experiment: "e".into(),
            metric: Metric {
                span: span.into(),
                label: label.into(),
                body: "{}".into()
            }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sqlite_answers_as_the_oracle_does(
        changes in prop::collection::vec(any_change(), 0..30),
        version in 0i64..5,
        after in 0i64..9,
    ) {
        let (oracle, sqlite) = (oracle(), sqlite());
        let stores = [&oracle.store, &sqlite.store];
        for store in stores {
            for change in &changes {
                store.apply(vec![change.clone()]).unwrap();
            }
        }
        let one = |store: &dyn ControlStore| {
            let mut records = store.records(&asked(version, &[])).unwrap();
            records.sort_by_key(|record| (record.place, record.id.clone(), record.since));
            (
                records,
                store.records(&asked(version, &["t:1"])).unwrap().len(),
                store.find(&Find { name: Some("b".into()), ..Find::all(Kind::Dataset) }).unwrap()
                    .into_iter().map(|object| object.id).collect::<Vec<_>>(),
                store.metrics("e", MetricsOf::Runs { first_ns: after, last_ns: 9 }).unwrap(),
                store.runs(&RunsAsked { experiment: "e", after: Some((after, "b")), limit: 2 }).unwrap(),
                store.totals("e").unwrap(),
                store.members(Some(("t", "b"))).unwrap(),
            )
        };
        prop_assert_eq!(one(stores[0].as_ref()), one(stores[1].as_ref()));
    }
}
