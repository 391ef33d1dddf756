//! A plan finds what the query matches, and no more where it says so.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Facts, Node, facts, group_columns, plan};
use crate::model::{
    Assessment, Evaluation, Io, Span, SpanError, SpanId, SpanKind, Status, TraceId, TraceRollup,
};
use crate::query::text::{TokenPattern, segments, tokens};
use crate::query::{Field, SpanContext, facet_values, parse};

fn holds(node: &Node, facts: &Facts, texts: &[Vec<String>]) -> bool {
    match node {
        Node::All => true,
        Node::Nothing => false,
        Node::And(nodes) => nodes.iter().all(|node| holds(node, facts, texts)),
        Node::Or(nodes) => nodes.iter().any(|node| holds(node, facts, texts)),
        Node::Not(node) => !holds(node, facts, texts),
        Node::Key(key) => facts.keys.contains(key),
        Node::KeyLike { prefix, rest } => facts
            .keys
            .iter()
            .filter_map(|key| key.strip_prefix(prefix.as_str()))
            .any(|key| rest.matches(key)),
        Node::Number { column, test } => facts
            .numbers
            .iter()
            .any(|(name, value)| name == column && test.passes(*value)),
        Node::Words(words) => texts.iter().any(|text| found(words, text)),
    }
}

fn found(words: &[TokenPattern], text: &[String]) -> bool {
    text.windows(words.len()).any(|run| {
        run.iter()
            .zip(words)
            .all(|(token, word)| word.matches(token))
    })
}

fn pick<T: Clone + std::fmt::Debug + 'static>(items: &[T]) -> impl Strategy<Value = T> + use<T> {
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

fn evaluation() -> impl Strategy<Value = Evaluation> {
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
            metadata: metadata.as_object().cloned().unwrap(),
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
    fn span()(
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
        judged in proptest::collection::vec(evaluation(), 0..3),
        rated in proptest::collection::vec(evaluation(), 0..2),
        input in proptest::option::of(prop_oneof![leaf(), Just(json!("please refund my order")), object()]),
    ) -> Span {
        let (trace, id, parent) = ids;
        let (session, service, model, error) = optional;
        let map = |value: Value| value.as_object().cloned().unwrap();
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
            evaluations: by_label(judged), feedback: by_label(rated),
            ..Span::default()
        }
    }
}

const NAMES: &[&str] = &[
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

fn query() -> impl Strategy<Value = String> {
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

fn words(span: &Span) -> Vec<Vec<String>> {
    let cut = |text: &std::borrow::Cow<'_, str>| tokens(text).map(|t| t.into_owned()).collect();
    segments(span).iter().map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_finds_what_matches_and_no_more_if_it_is_exact(span in span(), text in query(), calls in 0usize..3) {
        let query = parse(&text).unwrap();
        let kept = facts(&span);
        let plan = plan(&query.root, &|key| kept.keys.contains(key));
        let rollup = TraceRollup { llm_calls: calls, ..TraceRollup::default() };
        let below = Span { name: "search".into(), ..Span::default() };
        let matches = query.matches(&SpanContext {
            span: &span,
            rollup: span.is_root().then_some(&rollup),
            descendants: &[&below],
        });
        let found = holds(&plan.node, &kept, &words(&span));
        if matches {
            prop_assert!(found, "missed by {:?} of {:?}", plan, kept);
        } else if plan.exact {
            prop_assert!(!found, "found by {:?} in {:?}", plan, kept);
        }
    }

    #[test]
    fn groups_are_the_values_of_the_facet(span in span(), name in pick(NAMES), sigil in pick(&["@", ""])) {
        let field = Field::parse(&format!("{sigil}{name}")).unwrap();
        let kept = facts(&span);
        if let Some(columns) = group_columns(&field, &|key| kept.keys.contains(key)) {
            let groups: Vec<&str> = kept
                .groups
                .iter()
                .filter(|(column, _)| columns.contains(column))
                .map(|(_, value)| value.as_str())
                .collect();
            prop_assert_eq!(groups, facet_values(&field, &SpanContext::of(&span)));
        }
    }
}

#[test]
fn what_teams_ask_every_day_is_exact() {
    for text in [
        "@ml_app:shop @status:error",
        "@ml_app:shop -@name:ping",
        "-@name:ping* env:prod",
        "@duration:>5s @meta.span.kind:llm",
        "@metrics.total_tokens:>1000",
        "@evaluation.tone.value:<0.5",
        "@evaluations.custom.tone:*",
        "@meta.error.type:*Timeout*",
        "@meta.model_name:gpt-4* OR @meta.model_name:o3",
        "\"please refund\" -env:dev",
        "_missing_:@session_id",
        "@meta.metadata.plan:gold",
        "anything:here",
    ] {
        let plan = plan(&parse(text).unwrap().root, &|_| false);
        assert!(plan.exact, "{text}: {plan:?}");
    }
}
