//! Bodies with valid structure and arbitrary values.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{START, span};
use crate::control::SqliteControl;
use crate::intake::{Dialect, ingest_json};
use crate::span_store::SpanStore;
use crate::store::{Durability, SqliteStore};
use crate::{DataDir, LocalOptions};

/// JSON in the structure of SDK bodies, with arbitrary values.
fn hostile_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        proptest::sample::select(vec![
            "llm",
            "error",
            "undefined",
            "score",
            "a:b",
            "feedback"
        ])
        .prop_map(Value::from),
    ];
    let keys = proptest::sample::select(vec![
        "data",
        "type",
        "attributes",
        "spans",
        "metrics",
        "meta",
        "meta_struct",
        "_llmobs",
        "span",
        "kind",
        "span.kind",
        "error",
        "input",
        "output",
        "messages",
        "documents",
        "value",
        "tags",
        "trace_id",
        "span_id",
        "parent_id",
        "start_ns",
        "start",
        "duration",
        "name",
        "status",
        "span_links",
        "_dd",
        "label",
        "metric_type",
        "score_value",
        "timestamp_ms",
        "join_on",
        "tag",
        "key",
        "session_id",
        "metadata",
        "collection_errors",
        "agent_attribution",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let entries = proptest::collection::vec((keys.clone(), inner.clone()), 0..8);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_json_does_not_panic(
        parts in proptest::collection::vec((".{0,5}", hostile_json()), 0..6),
        meta in hostile_json(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let spans = SqliteStore::open(directory.path(), Durability::Process).unwrap();
        let control = SqliteControl::open(directory.path(), Durability::Process).unwrap();
        let store = SpanStore::new(std::sync::Arc::new(spans), std::sync::Arc::new(control));
        let options = LocalOptions::new(DataDir::Temporary);
        let mut span = span(1, START, json!({"meta": meta}));
        for (at, (key, value)) in parts.into_iter().enumerate() {
            let known = ["tags", "metrics", "span_links", "_dd", "status", "session_id"];
            span[known.get(at).map_or(key.as_str(), |known| known)] = value;
        }
        let bodies = [
            (Dialect::Sdk, json!([{"spans": [span]}])),
            (Dialect::HttpApi,
             json!({"data": {"type": "span", "attributes": {"ml_app": "a", "spans": [span]}}})),
            (Dialect::Apm, json!([[{"span_id": 1, "start": START, "duration": 1,
                "meta_struct": {"_llmobs": span}}]])),
            (Dialect::Evaluations,
             json!({"data": {"attributes": {"metrics": [span, meta]}}})),
            (Dialect::Evaluations, meta.clone()),
            (Dialect::Apm, json!([[meta]])),
        ];
        for (dialect, body) in bodies {
            if let Ok(accepted) = ingest_json(&store, &options, dialect, body, 0)
                && accepted.spans > 0
            {
                // Stored spans are readable.
                prop_assert_eq!(store.trace(&"t1".into()).unwrap().len(), 1);
            }
        }
    }
}
