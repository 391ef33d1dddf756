//! A plan finds what the query matches, and no more where it says so.

use proptest::prelude::*;

use super::strategies::{NAMES, pick, query, span};
use super::{IndexCondition, IndexDocument, group_columns, index_document, plan_query};
use crate::model::{Span, TraceRollup};
use crate::query::text::{TokenPattern, searched_texts, tokens};
use crate::query::{Field, SpanContext, facet_values, parse};

fn holds(node: &IndexCondition, facts: &IndexDocument<'_>, texts: &[Vec<String>]) -> bool {
    match node {
        IndexCondition::MatchAll => true,
        IndexCondition::MatchNone => false,
        IndexCondition::And(nodes) => nodes.iter().all(|node| holds(node, facts, texts)),
        IndexCondition::Or(nodes) => nodes.iter().any(|node| holds(node, facts, texts)),
        IndexCondition::Not(node) => !holds(node, facts, texts),
        IndexCondition::Key(key) => facts.keys.contains(key),
        IndexCondition::KeyMatches { prefix, pattern } => facts
            .keys
            .iter()
            .filter_map(|key| key.strip_prefix(prefix.as_str()))
            .any(|key| pattern.matches(key)),
        IndexCondition::Number { column, test } => facts
            .numbers
            .iter()
            .any(|(name, value)| name == column && test.passes(*value)),
        IndexCondition::Phrase(words) => texts.iter().any(|text| found(words, text)),
    }
}

fn found(words: &[TokenPattern], text: &[String]) -> bool {
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
    fn a_plan_finds_what_matches_and_no_more_if_it_is_exact(span in span(), text in query(), calls in 0usize..3) {
        let query = parse(&text).unwrap();
        let kept = index_document(&span);
        let plan = plan_query(&query.root, &|key| kept.keys.contains(key));
        let rollup = TraceRollup { llm_calls: calls, ..TraceRollup::default() };
        let below = Span { name: "search".into(), ..Span::default() };
        let matches = query.matches(&SpanContext {
            span: &span,
            rollup: span.is_root().then_some(&rollup),
            descendants: &[&below],
        });
        let found = holds(&plan.condition, &kept, &words(&span));
        if matches {
            prop_assert!(found, "missed by {:?} of {:?}", plan, kept);
        } else if plan.exact {
            prop_assert!(!found, "found by {:?} in {:?}", plan, kept);
        }
    }

    #[test]
    fn groups_are_the_values_of_the_facet(span in span(), name in pick(NAMES), sigil in pick(&["@", ""])) {
        let field = Field::parse(&format!("{sigil}{name}")).unwrap();
        let kept = index_document(&span);
        if let Some(columns) = group_columns(&field, &|key| kept.keys.contains(key)) {
            let groups: Vec<&str> = kept
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
        let plan = plan_query(&parse(text).unwrap().root, &|_| false);
        assert!(plan.exact, "{text}: {plan:?}");
    }
}

#[test]
fn a_span_of_very_many_tags_says_once_what_holds_for_all() {
    let mut tags: Vec<String> = (0..50_000).map(|value| format!("k:{value}")).collect();
    tags.extend((0..1_000).map(|name| format!("n{name}:v")));
    let span = Span {
        tags,
        ..Span::default()
    };
    let kept = index_document(&span);
    let times = |key: &str| kept.keys.iter().filter(|kept| *kept == key).count();
    assert_eq!([times("?k"), times("!free")], [1, 1]);
    let of_k = kept.groups.iter().filter(|(column, _)| column == "k");
    assert_eq!(of_k.count(), 50_000);
}
