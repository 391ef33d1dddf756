//! Reading a line returns exactly the item that was written. Lines use the documented format
//! where it is lossless.

use std::ops::ControlFlow;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Map, Value, json};

use super::read::EXACT;
use super::{evaluation_line, read, span_line};
use crate::demo;
use crate::store::{EvaluationTarget, Search, TargetedEvaluation};
use crate::{DataDir, LocalBackend, LocalOptions};
use llmobs_core::model::{
    AgentAttribution, Assessment, EvalStatus, Evaluation, EventKind, Io, Message, MetricType, Span,
    SpanError, SpanId, SpanKind, SpanLink, Status, TimeWindow, TraceId,
};

fn without_evaluations(mut span: Span) -> Span {
    span.evaluations.clear();
    span.feedback.clear();
    span
}

fn is_exact(line: &str) -> bool {
    let body: Value = serde_json::from_str(line).unwrap();
    body["data"]["attributes"].get(EXACT).is_some()
}

#[test]
fn demo_data_round_trips_in_documented_format() {
    let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
    demo::load(&backend, 1_900_000_000_000).unwrap();
    let store = &backend.inner.store;
    let search = Search {
        limit: usize::MAX,
        budget: std::time::Duration::from_secs(3_600),
        ..Search::within(TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        })
    };
    let (mut count, mut exact) = (0, 0);
    store
        .search(&search, &mut |span| {
            let line = span_line(&span);
            assert!(!line.contains('\n'));
            assert_eq!(
                read(line.as_bytes()).unwrap().spans,
                [without_evaluations(span)]
            );
            exact += usize::from(is_exact(&line));
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((count, exact), (2_288, 0));
    let arrived = store.evaluations(None, usize::MAX).unwrap();
    assert!(arrived.len() > 100);
    for arrived in arrived {
        let line = evaluation_line(&arrived.evaluation);
        assert_eq!(
            read(line.as_bytes()).unwrap().evaluations,
            [arrived.evaluation]
        );
        assert!(!is_exact(&line), "{line}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            map_of(inner).prop_map(Value::Object),
        ]
    })
}

/// Keys that the intake maps, and others.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "value",
            "messages",
            "prompt",
            "tags",
            "metrics",
            "_dd",
            "ml_app",
            "span_id",
            "trace_id",
            "session_id",
            "join_on",
            "kind",
            "span",
            "error",
            "input",
            "scope",
            "collection_errors",
            "span_links",
            "status",
            "error.type",
        ])
        .prop_map(str::to_owned),
        "[a-z.]{1,6}",
    ]
}

fn map_of(
    values: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::vec((key(), values), 0..4).prop_map(Map::from_iter)
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    map_of(json_value())
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(".{0,8}")
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::num::f64::NORMAL,
        Just(0.1 + 0.2),
        Just(-0.0),
        Just(5.0)
    ]
}

prop_compose! {
    fn io()(
        value in proptest::option::of(json_value().prop_filter("null counts as absent", |v| !v.is_null())),
        messages in proptest::collection::vec(json_value().prop_map(Message), 0..3),
        documents in proptest::collection::vec(json_value(), 0..2),
        prompt in proptest::option::of(json_value().prop_filter("null counts as absent", |v| !v.is_null())),
        extra in object(),
    ) -> Io {
        Io { value, messages, documents, prompt, extra }
    }
}

prop_compose! {
    fn link()(span_id in ".{0,4}", trace_id in ".{0,4}", attributes in object()) -> SpanLink {
        SpanLink { span_id, trace_id, attributes }
    }
}

prop_compose! {
    fn arbitrary_fields()(
        input in io(),
        output in io(),
        metadata in object(),
        extra in object(),
        meta_extra in object(),
        links in proptest::collection::vec(link(), 0..2),
        tool_definitions in proptest::collection::vec(json_value(), 0..2),
        collection_errors in proptest::collection::vec(".{0,8}", 0..2),
        expected_output in
            proptest::option::of(json_value().prop_filter("null counts as absent", |v| !v.is_null())),
        metrics in proptest::collection::btree_map("[a-z_]{1,5}", number(), 0..4),
    ) -> Span {
        Span {
            input, output, metadata, extra, meta_extra, links, tool_definitions, collection_errors,
            expected_output, metrics, ..Span::default()
        }
    }
}

prop_compose! {
    fn span()(
        parts in arbitrary_fields(),
        (trace, id) in (".{1,8}", ".{1,8}"),
        parent in text(),
        (app, name) in (".{0,6}", ".{0,8}"),
        (session, service, apm) in (text(), text(), text()),
        (model, provider, version, intent) in (text(), text(), text(), text()),
        kind in proptest::sample::select(vec!["llm", "experiment", "tool", "reranker", ""]),
        failed: bool,
        error in proptest::option::of((".{0,5}", ".{0,5}", ".{0,5}")),
        agent in proptest::option::of((".{0,5}", text())),
        tags in proptest::collection::vec(
            prop_oneof![Just("ml_app:other".to_owned()), Just("session_id:s".to_owned()),
                        "[a-z]{1,4}:.{0,4}"], 0..4),
        scope in proptest::option::of(Just("experiments".to_owned())),
        (start, duration) in (any::<i64>(), any::<i64>()),
    ) -> Span {
        Span {
            trace_id: TraceId::from(trace),
            span_id: SpanId::from(id),
            parent_id: parent.map(SpanId::from),
            ml_app: app,
            name,
            session_id: session,
            service,
            apm_trace_id: apm,
            model_name: model,
            model_provider: provider,
            model_version: version,
            intent,
            kind: SpanKind::from(kind),
            status: if failed { Status::Error } else { Status::Ok },
            error: error.map(|(error_type, message, stack)| SpanError { error_type, message, stack }),
            agent: agent.map(|(name, id)| AgentAttribution { name, span_id: id.map(SpanId::from) }),
            tags,
            scope,
            start_ns: start,
            duration_ns: duration,
            ..parts
        }
    }
}

prop_compose! {
    fn evaluation()(
        which in 0..6,
        (one, two) in (".{1,5}", ".{1,5}"),
        label in ".{1,5}",
        feedback: bool,
        metric_type in proptest::sample::select(MetricType::ALL.to_vec()),
        value in proptest::option::of(json_value().prop_filter("null counts as absent", |v| !v.is_null())),
        assessment in proptest::option::of(Just(Assessment::Fail)),
        reasoning in text(),
        status in proptest::sample::select(vec![EvalStatus::Ok, EvalStatus::Warn, EvalStatus::Error]),
        error in proptest::option::of(json_value().prop_filter("null counts as absent", |v| !v.is_null())),
        tags in proptest::collection::vec(".{0,4}", 0..2),
        (metadata, extra) in (object(), object()),
        timestamp_ms: i64,
        app in ".{0,4}",
    ) -> TargetedEvaluation {
        let target = match which {
            0 => EvaluationTarget::Trace(TraceId::from(one)),
            1 => EvaluationTarget::Session(one),
            2 => EvaluationTarget::Tag { key: one, value: two },
            3 => EvaluationTarget::JoinKey(one),
            4 => EvaluationTarget::Span { trace_id: None, span_id: SpanId::from(one) },
            _ => EvaluationTarget::Span {
                trace_id: Some(TraceId::from(one)),
                span_id: SpanId::from(two),
            },
        };
        TargetedEvaluation {
            target,
            ml_app: app,
            evaluation: Evaluation {
                label,
                event_kind: if feedback { EventKind::Feedback } else { EventKind::Evaluation },
                metric_type, value, assessment, reasoning, status, error, tags, metadata,
                timestamp_ms, extra,
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_span_round_trips_exactly(span in span()) {
        let line = span_line(&span);
        prop_assert!(!line.contains('\n'));
        let read = read(line.as_bytes()).unwrap();
        prop_assert_eq!(&read.spans, &[span]);
        prop_assert_eq!(span_line(&read.spans[0]), line);
    }

    #[test]
    fn any_evaluation_round_trips_exactly(evaluation in evaluation()) {
        let line = evaluation_line(&evaluation);
        let read = read(line.as_bytes()).unwrap();
        prop_assert_eq!(&read.evaluations, &[evaluation]);
        prop_assert_eq!(evaluation_line(&read.evaluations[0]), line);
    }
}

#[rstest]
#[case::not_json("{", "not valid JSON")]
#[case::cut(
    r#"{"data":{"type":"span","attributes":{"ml_app":"a","spans":[{"#,
    "not valid JSON"
)]
#[case::unknown_format("{}", "neither")]
#[case::other_kind(r#"{"data":{"type":"mail","attributes":{}}}"#, "neither")]
#[case::no_list(
    r#"{"data":{"type":"span","attributes":{"ml_app":"a"}}}"#,
    "`spans` must be a list"
)]
#[case::broken_exact(
    r#"{"data":{"type":"span","attributes":{"_llmobs_mcp":{"span":{"start_ns":"secret words"}}}}}"#,
    "does not contain a span"
)]
#[case::exact_without_ids(
    r#"{"data":{"type":"span","attributes":{"_llmobs_mcp":{"span":{}}}}}"#,
    "with its ids"
)]
fn error_about_line_does_not_quote_it(#[case] line: &str, #[case] expected: &str) {
    let reason = read(line.as_bytes()).unwrap_err();
    assert!(reason.contains(expected), "{reason}");
    assert!(!reason.contains("secret words"));
}

#[test]
fn reads_line_in_sdk_dialect() {
    let line = json!({"event_type": "span", "spans": [
        {"span_id": "1", "trace_id": "t", "name": "n", "start_ns": 5, "tags": ["ml_app:a"]}]});
    let batch = read(line.to_string().as_bytes()).unwrap();
    assert_eq!(batch.spans[0].ml_app, "a");
}
