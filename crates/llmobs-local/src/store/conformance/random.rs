//! Random histories of a store, and random searches.

use proptest::prelude::*;
use serde_json::json;

use super::{ALL_TIME, EvaluationTarget, Search, TargetedEvaluation};
use llmobs_core::model::{
    Assessment, Evaluation, EventKind, Io, Span, SpanId, SpanKind, Status, TimeWindow, TraceId,
};
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::index::strategies;

/// One operation of a history.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Append(Vec<Span>),
    AttachEvaluations(Vec<TargetedEvaluation>),
    /// Waits until the derived index contains all writes.
    WaitForIndex,
    /// Starts to rebuild the derived index.
    Reindex,
    /// Removes spans that started before this, in nanoseconds, and evaluations without a target.
    Purge(i64),
}

pub(super) fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(words).prop_map(str::to_owned)
}

fn ids() -> impl Strategy<Value = (String, String)> {
    (word(&["t1", "t2", "t3"]), word(&["1", "2", "3", "4", "5"]))
}

prop_compose! {
    pub(super) fn span()(
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
    pub(super) fn evaluation()(
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

/// Simple spans whose values coincide often, and spans with every attribute. Without evaluations,
/// which are written separately.
pub(super) fn any_span() -> impl Strategy<Value = Span> {
    prop_oneof![
        2 => span(),
        1 => strategies::span().prop_map(as_ingested),
    ]
}

/// A span as the intake creates it: without null values, and with the session of its tag.
fn as_ingested(mut span: Span) -> Span {
    span.input.value = span.input.value.take().filter(|value| !value.is_null());
    let tagged = span.tag("session_id").map(str::to_owned);
    let named = span.session_id.take();
    span.session_id = named.filter(|session| !session.is_empty()).or(tagged);
    span.evaluations.clear();
    span.feedback.clear();
    span
}

/// Simple evaluations, and evaluations with every attribute.
pub(super) fn any_evaluation() -> impl Strategy<Value = TargetedEvaluation> {
    let full =
        (evaluation(), strategies::evaluation()).prop_map(|(simple, full)| TargetedEvaluation {
            evaluation: Evaluation {
                value: full.value.filter(|value| !value.is_null()),
                event_kind: simple.evaluation.event_kind,
                timestamp_ms: simple.evaluation.timestamp_ms,
                ..full
            },
            ..simple
        });
    prop_oneof![2 => evaluation(), 1 => full]
}

pub(super) fn history(
    span: impl Strategy<Value = Span>,
    evaluation: impl Strategy<Value = TargetedEvaluation>,
) -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        proptest::collection::vec(span, 1..6).prop_map(Operation::Append),
        proptest::collection::vec(evaluation, 1..4).prop_map(Operation::AttachEvaluations),
        Just(Operation::WaitForIndex),
        Just(Operation::Reindex),
        proptest::sample::select(vec![i64::MIN, 0, 1, 1_700_000_000_001_500_000, i64::MAX])
            .prop_map(Operation::Purge),
    ];
    proptest::collection::vec(operation, 1..8)
}

/// Queries that match many of the random spans.
const QUERIES: &[&str] = &[
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
    pub(super) fn search()(
        app in proptest::option::of(word(&["shop", "bank", "other"])),
        kind in proptest::option::of(word(&["llm", "reranker"])),
        name in proptest::option::of(word(&["a"])),
        trace in proptest::option::of(word(&["t1"])),
        session in proptest::option::of(word(&["s1"])),
        roots: bool,
        tier in proptest::option::of(word(&["gold"])),
        query in prop_oneof![
            1 => Just(None),
            2 => word(QUERIES).prop_map(Some),
            4 => strategies::query().prop_map(Some),
        ],
        window in prop_oneof![Just(ALL_TIME), Just(TimeWindow {
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
            query: query.map(|text| llmobs_core::query::parse(&text).unwrap()),
            newest_first,
            limit,
            ..Search::within(window)
        }
    }
}
