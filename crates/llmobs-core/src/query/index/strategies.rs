//! Random spans, evaluations and queries with common names and values: the complete language over
//! every field of a span.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::{
    Assessment, Evaluation, Io, Span, SpanError, SpanId, SpanKind, Status, TraceId,
};

/// Selects one of the items.
pub fn pick<T: Clone + std::fmt::Debug + 'static>(
    items: &[T],
) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(items.to_vec())
}

fn leaf() -> impl Strategy<Value = Value> {
    pick(&[
        json!("gold"),
        json!(""),
        json!("7"),
        json!(7),
        json!(7.5),
        json!(true),
        json!(null),
        json!({}),
        json!("x".repeat(600)),
        json!(9_007_199_254_740_993_i64),
    ])
}

fn object() -> impl Strategy<Value = Value> {
    let key = pick(&["plan", "a", "a.b", "b", "list"]);
    let inner = prop_oneof![
        3 => leaf(),
        1 => (pick(&["b", "plan", "b.c"]), leaf()).prop_map(|(key, value)| json!({key: value})),
        1 => (leaf(), pick(&["b"]), leaf()).prop_map(|(one, key, two)| json!([one, {key: two}])),
    ];
    proptest::collection::vec((key, inner), 0..4).prop_map(|members| {
        members
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect()
    })
}

/// A random evaluation.
pub fn evaluation() -> impl Strategy<Value = Evaluation> {
    (
        pick(&["tone", "custom.tone", "score"]),
        proptest::option::of(prop_oneof![leaf(), object()]),
        proptest::option::of(pick(&[Assessment::Pass, Assessment::Fail])),
        object(),
    )
        .prop_map(|(label, value, assessment, metadata)| Evaluation {
            label: label.to_owned(),
            value,
            assessment,
            reasoning: Some("because".to_owned()),
            tags: vec!["judge:a".to_owned()],
            metadata: metadata.as_object().cloned().unwrap_or_default(),
            ..Evaluation::default()
        })
}

const TAGS: &[&str] = &[
    "env:prod",
    "env:",
    "env:7",
    "plan:gold",
    "ml_app:shop",
    "url:http://x:1",
    "name:search",
    "bare",
    "service:web",
    "session_id:s1",
    "metrics.total_tokens:7",
    "meta.input:x",
    "evaluations.tone:gold",
    "meta.model_name:gpt",
    ":empty",
];

prop_compose! {
    /// A random span.
    pub fn span()(
        ids in (pick(&["t1", "t2"]), pick(&["1", "2", "undefined"]), proptest::option::of(pick(&["1", "9"]))),
        app in pick(&["shop", "bank", ""]),
        name in pick(&["search", "plan trip", ""]),
        kind in pick(&["llm", "tool", "reranker"]),
        failed: bool,
        numbers in (pick(&[0i64, 7, 5_000_000_000]), pick(&[0i64, 1_700_000_000_000_000_000])),
        tags in proptest::collection::vec(pick(TAGS), 0..5),
        optional in (proptest::option::of(pick(&["s1", ""])), proptest::option::of(pick(&["web"])),
                     proptest::option::of(pick(&["gpt-4o", "gpt"])), proptest::option::of(pick(&["Timeout"]))),
        metrics in proptest::collection::btree_map(
            pick(&["total_tokens", "time_to_first_token"]).prop_map(str::to_owned), pick(&[0.0, 7.0, 7.5]), 0..3),
        free in (object(), object(), object()),
        evaluations in proptest::collection::vec(evaluation(), 0..3),
        feedback in proptest::collection::vec(evaluation(), 0..2),
        input in proptest::option::of(prop_oneof![leaf(), Just(json!("please refund my order")), object()]),
    ) -> Span {
        let (trace, id, parent) = ids;
        let (session, service, model, error) = optional;
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let by_label = |list: Vec<Evaluation>| list.into_iter().map(|e| (e.label.clone(), e)).collect();
        Span {
            trace_id: TraceId::from(trace), span_id: SpanId::from(id), parent_id: parent.map(SpanId::from),
            ml_app: app.into(), name: name.into(), kind: SpanKind::from(kind),
            status: if failed { Status::Error } else { Status::Ok },
            duration_ns: numbers.0, start_ns: numbers.1,
            tags: tags.into_iter().map(str::to_owned).collect(),
            session_id: session.map(str::to_owned), service: service.map(str::to_owned),
            model_name: model.map(str::to_owned),
            error: error.map(|kind| SpanError { error_type: kind.into(), message: "timed out".into(), stack: String::new() }),
            metrics, metadata: map(free.0), extra: map(free.1),
            input: Io { value: input, prompt: Some(free.2), ..Io::default() },
            evaluations: by_label(evaluations), feedback: by_label(feedback),
            ..Span::default()
        }
    }
}

/// Names of attributes and tags in random queries.
pub const NAMES: &[&str] = &[
    "ml_app",
    "name",
    "status",
    "duration",
    "timestamp",
    "trace_id",
    "span_id",
    "parent_id",
    "session_id",
    "service",
    "event_kind",
    "event_type",
    "tags",
    "env",
    "plan",
    "a",
    "a.b",
    "list",
    "list.b",
    "b.c",
    "url",
    "url\\:http",
    "bare",
    "nothing",
    "meta.span.kind",
    "meta.model_name",
    "meta.error.type",
    "meta.error.message",
    "meta.error",
    "meta.input",
    "meta.input.value",
    "meta.input.value.plan",
    "meta.input.prompt.id",
    "meta.input.prompt.plan",
    "meta.metadata.plan",
    "meta.metadata.a.b",
    "meta.metadata.list",
    "meta.metadata.list.b",
    "meta.unknown",
    "metrics.total_tokens",
    "metrics.time_to_first_token",
    "metrics.none",
    "evaluations.tone",
    "evaluations.custom.tone",
    "evaluation.tone.value",
    "evaluations.tone.assessment",
    "evaluations.custom.tone.plan",
    "evaluations.tone.metadata.a.b",
    "evaluations.tone.tags",
    "evaluations.score",
    "feedback.tone",
    "feedback.tone.value",
    "feedback.custom.tone",
    "trace.llm_calls",
    "trace.nothing",
    "child.@name",
];

const VALUES: &[&str] = &[
    "shop",
    "search",
    "error",
    "llm",
    "gold",
    "\"\"",
    "7",
    "7.0",
    "7ns",
    "5s",
    "prod",
    "s1",
    "undefined",
    "t1",
    "1",
    "pass",
    "true",
    "go*",
    "*",
    "?",
    "g?ld",
    "gpt*",
    "*o*",
    ">6",
    ">=7",
    "<7.5",
    "<1ms",
    "[7 TO 8]",
    "[* TO 7]",
    "(gold OR 7)",
    "(go* OR >5)",
    "9007199254740992",
    "9007199254740993",
    "Timeout",
    "http\\://x\\:1",
    "evaluation",
    "web",
    "(* OR x)",
];

/// The text of a random query.
pub fn query() -> impl Strategy<Value = String> {
    let term = prop_oneof![
        4 => (pick(&["@", ""]), pick(NAMES), pick(VALUES))
            .prop_map(|(sigil, name, value)| format!("{sigil}{name}:{value}")),
        1 => (pick(&["_exists_:", "_missing_:"]), pick(&["@", ""]), pick(NAMES))
            .prop_map(|(test, sigil, name)| format!("{test}{sigil}{name}")),
        1 => pick(&["refund", "ref*", "\"my order\"", "my ord?r", "...", "prod", "gold", "plan"]).prop_map(str::to_owned),
    ];
    term.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("-({a})")),
        ]
    })
}
