//! The conformance suite of control stores.
//!
//! Every [`ControlStore`] must pass [`check_all`], which panics when the store deviates. Random
//! changes are compared with a naive store, the oracle.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a check fails by panicking, like any test"
)]

mod naive_control;

use std::any::Any;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::{
    Change, ControlStore, Member, Metric, MetricScope, Object, ObjectFilter, ObjectKind, Record,
    RecordFilter, RunFilter,
};
use naive_control::NaiveControl;

/// An empty control store under test.
pub struct TestControl {
    /// The store.
    pub store: Box<dyn ControlStore>,
    /// Dropped after the store, for example a temporary directory.
    pub resources: Box<dyn Any>,
}

/// Opens an empty control store.
pub type OpenControl<'a> = &'a dyn Fn() -> TestControl;

/// Runs every check.
pub fn check_all(open: OpenControl<'_>) {
    check_objects(open);
    check_records(open);
    check_metrics(open);
    check_random_changes(open);
}

fn open_oracle() -> TestControl {
    TestControl {
        store: Box::new(NaiveControl::default()),
        resources: Box::new(()),
    }
}

fn put_object(kind: ObjectKind, id: &str, parent: &str, name: &str) -> Change {
    let mut object = Object::new(kind, id.to_owned(), parent, name);
    object.set("of", id);
    Change::PutObject(object)
}

fn put_record(id: &str, since: i64, until: Option<i64>, position: i64, tags: &[&str]) -> Change {
    Change::PutRecord(Record {
        dataset: "d".into(),
        id: id.into(),
        since,
        until,
        position,
        digest: format!("{id}{since}"),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        body: json!({"input": id}).as_object().unwrap().clone(),
    })
}

fn record_filter(version: i64, tags: &[&str]) -> RecordFilter {
    RecordFilter {
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

/// Objects are returned newest first, and replaced at their position.
pub fn check_objects(open: OpenControl<'_>) {
    let test = open();
    let store = test.store.as_ref();
    let experiment = |id: &str| put_object(ObjectKind::Experiment, id, "p", id);
    store
        .apply(vec![experiment("a"), experiment("b"), experiment("c")])
        .unwrap();
    store
        .apply(vec![put_object(
            ObjectKind::Experiment,
            "a",
            "p",
            "renamed",
        )])
        .unwrap();
    let all = ObjectFilter::all(ObjectKind::Experiment);
    let objects = store.find(&all).unwrap();
    assert_eq!(ids(&objects), ["c", "b", "a"]);
    let next = ObjectFilter {
        before: Some(objects[0].seq),
        limit: 1,
        ..all.clone()
    };
    assert_eq!(ids(&store.find(&next).unwrap()), ["b"]);
    let by = |name: &str| ObjectFilter {
        name: Some(name.to_owned()),
        ..all.clone()
    };
    assert_eq!(ids(&store.find(&by("renamed")).unwrap()), ["a"]);
    assert_eq!(ids(&store.find(&by("a")).unwrap()), [""; 0]);
    let mut deleted = objects[1].clone();
    deleted.deleted = true;
    store.apply(vec![Change::PutObject(deleted)]).unwrap();
    assert_eq!(ids(&store.find(&all).unwrap()), ["c", "a"]);
    let deleted = ObjectFilter {
        deleted: Some(true),
        ..all.clone()
    };
    assert_eq!(ids(&store.find(&deleted).unwrap()), ["b"]);
    store
        .apply(vec![Change::RemoveObject {
            kind: ObjectKind::Experiment,
            id: "a".into(),
        }])
        .unwrap();
    assert_eq!(ids(&store.find(&all).unwrap()), ["c"]);
}

/// A version of a dataset contains the records that were inserted and not yet replaced in it.
pub fn check_records(open: OpenControl<'_>) {
    let test = open();
    let store = test.store.as_ref();
    store
        .apply(vec![
            put_record("a", 1, Some(2), 0, &["lang:de", "x:1"]),
            put_record("a", 2, None, 0, &["lang:de"]),
            put_record("b", 1, Some(3), 1, &[]),
            put_record("c", 3, None, 2, &["lang:en"]),
        ])
        .unwrap();
    let ids_and_versions = |filter: &RecordFilter| -> Vec<(String, i64)> {
        let records = store.records(filter).unwrap();
        records
            .into_iter()
            .map(|record| (record.id, record.since))
            .collect()
    };
    assert_eq!(
        ids_and_versions(&record_filter(1, &[])),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    assert_eq!(
        ids_and_versions(&record_filter(2, &[])),
        [("a".to_owned(), 2), ("b".to_owned(), 1)]
    );
    assert_eq!(
        ids_and_versions(&record_filter(3, &[])),
        [("a".to_owned(), 2), ("c".to_owned(), 3)]
    );
    assert_eq!(
        ids_and_versions(&record_filter(1, &["lang:de", "x:1"])),
        [("a".to_owned(), 1)]
    );
    assert_eq!(ids_and_versions(&record_filter(2, &["lang:de", "x:1"])), []);
}

/// Metrics are added and keep their order.
pub fn check_metrics(open: OpenControl<'_>) {
    let test = open();
    let store = test.store.as_ref();
    let metric = |span: &str, label: &str| Change::AddMetric {
        experiment: "e".into(),
        metric: Metric {
            span: span.into(),
            label: label.into(),
            body: format!("{{\"label\":\"{label}\"}}"),
        },
    };
    let run = |span: &str, start_ns: i64| {
        Change::PutMember(Member {
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
    let labels = |scope: MetricScope| -> Vec<String> {
        let metrics = store.metrics("e", scope).unwrap();
        metrics
            .into_iter()
            .map(|metric| metric.span + &metric.label)
            .collect()
    };
    let between = |first_ns, last_ns| MetricScope::Runs { first_ns, last_ns };
    assert_eq!(labels(between(0, 29)), ["1b", "1a", "1b"]);
    assert_eq!(labels(between(0, 30)), ["1b", "1a", "2a", "1b"]);
    assert_eq!(labels(MetricScope::Experiment), ["sum"]);
    let after = |after| RunFilter {
        experiment: "e",
        after,
        limit: 5,
    };
    assert_eq!(store.runs(&after(Some((10, "1")))).unwrap().len(), 1);
    assert_eq!(store.totals("e").unwrap().runs, 2);
    store
        .apply(vec![Change::RemoveMetrics {
            experiment: "e".into(),
        }])
        .unwrap();
    assert_eq!(labels(MetricScope::Experiment), [""; 0]);
}

/// A span id may occur in two traces, at different times.
fn trace_of(start_ns: i64) -> String {
    if start_ns < 5 { "t" } else { "u" }.to_owned()
}

fn any_change() -> impl Strategy<Value = Change> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (id.clone(), 0i64..4, prop::option::of(1i64..5), 0i64..3).prop_map(
            |(id, since, until, position)| {
                let tags: &[&str] = if position == 0 { &["t:1"] } else { &[] };
                // A position belongs to one record.
                let position = position * 3 + i64::from(id.as_bytes()[0] - b'a');
                put_record(id, since, until, position, tags)
            }
        ),
        (id.clone(), 0i64..4).prop_map(|(id, since)| Change::RemoveRecord {
            dataset: "d".into(),
            id: id.into(),
            since
        }),
        (id.clone(), id.clone()).prop_map(|(id, name)| put_object(
            ObjectKind::Dataset,
            id,
            "p",
            name
        )),
        id.clone().prop_map(|id| Change::RemoveObject {
            kind: ObjectKind::Dataset,
            id: id.into(),
        }),
        (id.clone(), 0i64..9, any::<bool>()).prop_map(|(span, start_ns, run)| {
            Change::PutMember(Member {
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
        (id.clone(), 0i64..9).prop_map(|(span, start_ns)| Change::RemoveMember {
            trace: trace_of(start_ns),
            span: span.into(),
        }),
        (0i64..9).prop_map(|start_ns| Change::RemoveMembersBefore { start_ns }),
        (id.clone(), id).prop_map(|(span, label)| Change::AddMetric {
            experiment: "e".into(),
            metric: Metric {
                span: span.into(),
                label: label.into(),
                body: "{}".into()
            }
        }),
    ]
}

/// After random changes, the store answers like the oracle.
pub fn check_random_changes(open: OpenControl<'_>) {
    let strategy = (prop::collection::vec(any_change(), 0..30), 0i64..5, 0i64..9);
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&strategy, |(changes, version, after)| {
        let (test, oracle) = (open(), open_oracle());
        let stores = [test.store.as_ref(), oracle.store.as_ref()];
        for store in stores {
            for change in &changes {
                store.apply(vec![change.clone()]).unwrap();
            }
        }
        let [actual, expected] = stores.map(|store| answers(store, version, after));
        prop_assert_eq!(actual, expected);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// The answers to one request of each kind, as text.
fn answers(store: &dyn ControlStore, version: i64, after: i64) -> String {
    let mut records = store.records(&record_filter(version, &[])).unwrap();
    records.sort_by_key(|record| (record.position, record.id.clone(), record.since));
    let tagged = store.records(&record_filter(version, &["t:1"])).unwrap();
    let named = ObjectFilter {
        name: Some("b".into()),
        ..ObjectFilter::all(ObjectKind::Dataset)
    };
    let objects = store.find(&named).unwrap();
    let range = MetricScope::Runs {
        first_ns: after,
        last_ns: 9,
    };
    let runs = RunFilter {
        experiment: "e",
        after: Some((after, "b")),
        limit: 2,
    };
    format!(
        "{:?}",
        (
            records,
            tagged.len(),
            ids(&objects),
            store.metrics("e", range).unwrap(),
            store.runs(&runs).unwrap(),
            store.totals("e").unwrap(),
            store.members(Some(("t", "b"))).unwrap(),
        )
    )
}
