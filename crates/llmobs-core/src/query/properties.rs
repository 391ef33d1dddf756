//! Properties of every query: nothing panics, and printing and parsing round-trip.

use proptest::prelude::*;

use super::{
    Comparison, Expr, Field, FreeText, Number, Pattern, Query, SpanContext, Term, TimeUnit,
    Wildcard, WildcardElement, check_balance, parse,
};
use crate::model::Span;

/// Text made of fragments of the language, valid and invalid.
fn query_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "\"",
        "\\",
        "-",
        ":",
        "@",
        "*",
        "?",
        ",",
        ">",
        ">=",
        "<",
        " ",
        " ",
        "AND ",
        " OR ",
        "NOT ",
        " TO ",
        " IN [",
        "and ",
        "_exists_:",
        "_missing_:",
        "@child.@",
        "@meta.span.kind:",
        "@duration:",
        "@evaluations.custom.x",
        "env:",
        "a",
        "b c",
        "5s",
        "1e3",
        "0.5",
        "é",
        "退",
        "\u{3bc}s",
        "'",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), query_like()]
}

fn name() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "AND", "NOT", "_exists_", "-x", "@x", "child.@x", "child.x", "*", "a:b", "a b", "IN",
    ]);
    prop_oneof![
        "[a-z_.@:\\-]{1,8}",
        special.prop_map(str::to_owned),
        any::<String>().prop_filter("a name", |name| !name.is_empty()),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    (name(), 0..3).prop_map(|(name, kind)| match kind {
        0 => Field::Attribute(name),
        1 => Field::Tag(name),
        _ => Field::Child(name),
    })
}

fn number() -> impl Strategy<Value = Number> {
    let units = vec![
        None,
        Some(TimeUnit::Nanoseconds),
        Some(TimeUnit::Microseconds),
        Some(TimeUnit::Milliseconds),
        Some(TimeUnit::Seconds),
        Some(TimeUnit::Minutes),
        Some(TimeUnit::Hours),
    ];
    let value = prop_oneof![
        prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
        (-1000..1000).prop_map(f64::from),
    ];
    (value, prop::sample::select(units)).prop_map(|(value, unit)| Number { value, unit })
}

fn elements() -> impl Strategy<Value = Wildcard> {
    let element = prop_oneof![
        any::<char>().prop_map(WildcardElement::Char),
        prop::sample::select(vec![
            'a', '>', '<', '@', '-', '(', ' ', '*', '\\', '"', ':', ','
        ])
        .prop_map(WildcardElement::Char),
        Just(WildcardElement::AnyChar),
        Just(WildcardElement::AnyRun),
    ];
    prop::collection::vec(element, 1..6).prop_map(|elements| elements.into_iter().collect())
}

fn single_pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        any_text().prop_map(Pattern::Literal),
        prop::sample::select(vec![
            "AND", "OR", "NOT", "TO", "IN", "", ">5", "a,b", "[1 TO 2]"
        ])
        .prop_map(|text| Pattern::Literal(text.to_owned())),
        elements()
            .prop_filter("has a wildcard", |elements| elements.as_literal().is_none())
            .prop_map(Pattern::Wildcard),
        (prop::sample::select(Comparison::ALL.to_vec()), number())
            .prop_map(|(comparison, number)| Pattern::Compare(comparison, number)),
        (prop::option::of(number()), prop::option::of(number()))
            .prop_map(|(from, to)| Pattern::Range { from, to }),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        single_pattern(),
        prop::collection::vec(single_pattern(), 1..4).prop_map(Pattern::any_of),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let words = prop::sample::select(vec!["AND", "OR", "NOT", "IN", "and", "-", "@a", "_exists_"]);
    prop_oneof![
        (field(), pattern()).prop_map(|(field, pattern)| match pattern {
            Pattern::Wildcard(wildcard) if wildcard.is_any_text() => Term::Exists(field),
            pattern => Term::Field { field, pattern },
        }),
        field().prop_map(Term::Exists),
        field().prop_map(Term::Missing),
        any_text().prop_map(|text| Term::Text(FreeText::Phrase(text))),
        words.prop_map(|word| {
            Term::Text(FreeText::Word(
                word.chars().map(WildcardElement::Char).collect(),
            ))
        }),
        elements()
            .prop_filter("does not match all spans", |elements| !elements
                .is_any_text())
            .prop_map(|elements| Term::Text(FreeText::Word(elements))),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![9 => term().prop_map(Expr::Term), 1 => Just(Expr::All)];
    leaf.prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::all_of),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::any_of),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

fn span() -> Span {
    Span {
        name: "a b".into(),
        tags: vec!["env:a".into()],
        duration_ns: 5_000_000_000,
        ..Span::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_text_parses_or_fails_at_a_char_boundary(text in any_text()) {
        match parse(&text) {
            Ok(query) => {
                let _ = query.warnings();
                let _ = query.matches(&SpanContext::without_trace(&span()));
                prop_assert_eq!(check_balance(&text), Ok(()));
                let printed = query.to_string();
                let again = parse(&printed);
                prop_assert_eq!(again.as_ref(), Ok(&query), "printed as {}", printed);
                prop_assert_eq!(query.to_string(), printed);
            }
            Err(error) => prop_assert!(text.is_char_boundary(error.position), "{}", error),
        }
        if let Err(error) = check_balance(&text) {
            prop_assert!(text.is_char_boundary(error.position), "{}", error);
        }
    }

    #[test]
    fn printed_tree_parses_to_itself(root in expr()) {
        let query = Query { root };
        let printed = query.to_string();
        prop_assert_eq!(parse(&printed), Ok(query), "printed as {}", printed);
    }

    #[test]
    fn span_matches_either_condition_or_negation(root in expr()) {
        let query = Query { root: root.clone() };
        let negated = Query { root: Expr::Not(Box::new(root)) };
        let span = span();
        let context = SpanContext::without_trace(&span);
        prop_assert_ne!(query.matches(&context), negated.matches(&context));
    }
}
