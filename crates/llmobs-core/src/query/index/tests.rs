//! A plan finds every span that the query matches, and only those if it is exact.

use proptest::prelude::*;

use super::strategies::{NAMES, pick, query, span};
use super::{IndexCondition, IndexDocument, group_columns, index_document, plan_query};
use crate::model::{Span, TraceRollup};
use crate::query::text::{TokenPattern, searched_texts, tokens};
use crate::query::{Field, SpanContext, facet_values, parse};

fn matches(
    condition: &IndexCondition,
    document: &IndexDocument<'_>,
    texts: &[Vec<String>],
) -> bool {
    match condition {
        IndexCondition::MatchAll => true,
        IndexCondition::MatchNone => false,
        IndexCondition::And(conditions) => conditions
            .iter()
            .all(|condition| matches(condition, document, texts)),
        IndexCondition::Or(conditions) => conditions
            .iter()
            .any(|condition| matches(condition, document, texts)),
        IndexCondition::Not(inner) => !matches(inner, document, texts),
        IndexCondition::Key(key) => document.keys.contains(key),
        IndexCondition::KeyMatches { prefix, pattern } => document
            .keys
            .iter()
            .filter_map(|key| key.strip_prefix(prefix.as_str()))
            .any(|key| pattern.matches(key)),
        IndexCondition::Number { column, test } => document
            .numbers
            .iter()
            .any(|(name, value)| name == column && test.passes(*value)),
        IndexCondition::Phrase(words) => texts.iter().any(|text| contains_phrase(words, text)),
    }
}

fn contains_phrase(words: &[TokenPattern], text: &[String]) -> bool {
    text.windows(words.len()).any(|run| {
        run.iter()
            .zip(words)
            .all(|(token, word)| word.matches(token))
    })
}

fn words(span: &Span) -> Vec<Vec<String>> {
    let cut = |text: &std::borrow::Cow<'_, str>| tokens(text).map(|t| t.into_owned()).collect();
    searched_texts(span).iter().map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn plan_finds_every_match_and_only_matches_if_exact(span in span(), text in query(), calls in 0usize..3) {
        let query = parse(&text).unwrap();
        let document = index_document(&span);
        let plan = plan_query(&query.root, &|key| document.keys.contains(key));
        let rollup = TraceRollup { llm_calls: calls, ..TraceRollup::default() };
        let descendant = Span { name: "search".into(), ..Span::default() };
        let expected = query.matches(&SpanContext {
            span: &span,
            rollup: span.is_root().then_some(&rollup),
            descendants: &[&descendant],
        });
        let found = matches(&plan.condition, &document, &words(&span));
        if expected {
            prop_assert!(found, "missed by {:?} of {:?}", plan, document);
        } else if plan.exact {
            prop_assert!(!found, "found by {:?} in {:?}", plan, document);
        }
    }

    #[test]
    fn groups_equal_facet_values(span in span(), name in pick(NAMES), sigil in pick(&["@", ""])) {
        let field = Field::parse(&format!("{sigil}{name}")).unwrap();
        let document = index_document(&span);
        if let Some(columns) = group_columns(&field, &|key| document.keys.contains(key)) {
            let groups: Vec<&str> = document
                .groups
                .iter()
                .filter(|(column, _)| columns.iter().any(|wanted| wanted == column))
                .map(|(_, value)| value.as_ref())
                .collect();
            prop_assert_eq!(groups, facet_values(&field, &SpanContext::without_trace(&span)));
        }
    }
}

#[test]
fn common_queries_are_exact() {
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
        let plan = plan_query(&parse(text).unwrap().root, &|_| false);
        assert!(plan.exact, "{text}: {plan:?}");
    }
}

#[test]
fn stores_presence_of_repeated_tag_once() {
    let mut tags: Vec<String> = (0..50_000).map(|value| format!("k:{value}")).collect();
    tags.extend((0..1_000).map(|name| format!("n{name}:v")));
    let span = Span {
        tags,
        ..Span::default()
    };
    let document = index_document(&span);
    let times = |key: &str| document.keys.iter().filter(|stored| *stored == key).count();
    assert_eq!([times("?k"), times("!free")], [1, 1]);
    let of_k = document.groups.iter().filter(|(column, _)| column == "k");
    assert_eq!(of_k.count(), 50_000);
}
