//! Structured filters as query terms.
//!
//! Datadog's search ignores its structured filters when a query is given, and then returns spans
//! of other applications. A search with a query therefore writes all filters into the query.

use super::print::{quoted, value};
use super::{Field, balance};
use crate::model::ROOT_PARENT;

/// The structured filters of a span search. A span must match all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanFilters {
    /// The application.
    pub ml_app: Option<String>,
    /// The span kind in its wire form.
    pub span_kind: Option<String>,
    /// The span name.
    pub span_name: Option<String>,
    /// The trace id.
    pub trace_id: Option<String>,
    /// The span id.
    pub span_id: Option<String>,
    /// The session id.
    pub session_id: Option<String>,
    /// Tags as pairs of key and value.
    pub tags: Vec<(String, String)>,
    /// Whether to match root spans only.
    pub root_spans_only: bool,
}

impl SpanFilters {
    /// The filters as query terms, in a fixed order.
    fn terms(&self) -> Vec<String> {
        let mut terms = Vec::new();
        let quoted_fields = [
            ("ml_app", &self.ml_app),
            ("session_id", &self.session_id),
            ("name", &self.span_name),
        ];
        for (name, text) in quoted_fields {
            terms.extend(text.iter().map(|text| format!("@{name}:{}", quoted(text))));
        }
        let plain_fields = [
            ("meta.span.kind", &self.span_kind),
            ("trace_id", &self.trace_id),
            ("span_id", &self.span_id),
        ];
        for (name, text) in plain_fields {
            terms.extend(text.iter().map(|text| format!("@{name}:{}", value(text))));
        }
        terms.extend(self.tags.iter().map(|(key, text)| tag_term(key, text)));
        if self.root_spans_only {
            terms.push(format!("@parent_id:{ROOT_PARENT}"));
        }
        terms
    }
}

fn tag_term(key: &str, text: &str) -> String {
    if key.is_empty() {
        // A tag term needs a key; match the complete tag instead.
        return format!("tags:{}", quoted(&format!(":{text}")));
    }
    format!("{}:{}", Field::Tag(key.to_owned()), quoted(text))
}

/// Combines a caller's query and structured filters into one query: the text, unchanged and in
/// parentheses, AND the filters. Every filter value parses back to itself.
///
/// The caller checks the text with [`check_balance`](super::check_balance) first. Unbalanced text
/// could close the parentheses, so it is searched for as a phrase instead.
pub fn combine(query: Option<&str>, filters: &SpanFilters) -> String {
    let mut terms = filters.terms();
    if let Some(text) = query.filter(|text| !text.trim().is_empty()) {
        let text = match balance::check_balance(text) {
            Ok(()) if terms.is_empty() => return text.to_owned(),
            Ok(()) => format!("({text})"),
            Err(_) => quoted(text),
        };
        terms.insert(0, text);
    }
    if terms.is_empty() {
        return "*".to_owned();
    }
    terms.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Expr, Pattern, Term, check_balance, parse};
    use proptest::prelude::*;

    #[test]
    fn puts_query_in_parentheses_before_filters() {
        let filters = SpanFilters {
            ml_app: Some("my app".into()),
            span_kind: Some("llm".into()),
            span_name: Some("a:b".into()),
            trace_id: Some("abc123".into()),
            span_id: Some("17".into()),
            session_id: Some("s-1".into()),
            tags: vec![("env".into(), "prod".into()), ("a b".into(), "\"".into())],
            root_spans_only: true,
        };
        assert_eq!(
            combine(Some("@status:error OR refund"), &filters),
            "(@status:error OR refund) AND @ml_app:\"my app\" AND @session_id:\"s-1\" AND \
             @name:\"a:b\" AND @meta.span.kind:llm AND @trace_id:abc123 AND @span_id:17 AND \
             env:\"prod\" AND a\\ b:\"\\\"\" AND @parent_id:undefined"
        );
    }

    #[test]
    fn omits_absent_filters() {
        let app = SpanFilters {
            ml_app: Some("x".into()),
            ..SpanFilters::default()
        };
        assert_eq!(combine(None, &app), "@ml_app:\"x\"");
        assert_eq!(combine(Some("  "), &app), "@ml_app:\"x\"");
        assert_eq!(combine(Some("a OR b"), &SpanFilters::default()), "a OR b");
        assert_eq!(combine(None, &SpanFilters::default()), "*");
    }

    #[test]
    fn query_cannot_close_its_parentheses() {
        let app = SpanFilters {
            ml_app: Some("mine".into()),
            ..SpanFilters::default()
        };
        for text in ["a) OR (b", "a \"", "a\\", "x]", "(x"] {
            let combined = combine(Some(text), &app);
            let Expr::And(parts) = parse(&combined).unwrap().root else {
                panic!("{combined}");
            };
            assert_eq!(parts.len(), 2, "{combined}");
        }
    }

    fn filter_value() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a-z\"\\\\:*() @-]{0,6}"]
    }

    proptest! {
        #[test]
        fn filter_values_round_trip(
            key in filter_value().prop_filter("a key", |key| !key.is_empty()),
            texts in prop::array::uniform7(filter_value()),
        ) {
            let [ml_app, span_kind, span_name, trace_id, span_id, session_id, tag] = texts;
            let filters = SpanFilters {
                ml_app: Some(ml_app.clone()),
                span_kind: Some(span_kind.clone()),
                span_name: Some(span_name.clone()),
                trace_id: Some(trace_id.clone()),
                span_id: Some(span_id.clone()),
                session_id: Some(session_id.clone()),
                tags: vec![(key.clone(), tag.clone())],
                root_spans_only: false,
            };
            let term = |field, text| Expr::Term(Term::Field {
                field,
                pattern: Pattern::Literal(text),
            });
            let attribute = |name: &str, text| term(Field::Attribute(name.to_owned()), text);
            prop_assert_eq!(parse(&combine(None, &filters)).unwrap().root, Expr::And(vec![
                attribute("ml_app", ml_app),
                attribute("session_id", session_id),
                attribute("name", span_name),
                attribute("meta.span.kind", span_kind),
                attribute("trace_id", trace_id),
                attribute("span_id", span_id),
                term(Field::Tag(key), tag),
            ]));
        }

        #[test]
        fn filters_apply_to_any_query(text in "[ab()\\[\\]\"\\\\: @*<>-]{0,12}") {
            let filters = SpanFilters { root_spans_only: true, ..SpanFilters::default() };
            let combined = combine(Some(&text), &filters);
            prop_assert_eq!(check_balance(&combined), Ok(()));
            prop_assert!(combined.ends_with("@parent_id:undefined"));
            if let (Ok(alone), Ok(query)) = (parse(&text), parse(&combined)) {
                let root = parse("@parent_id:undefined").unwrap().root;
                let expected = match alone.root {
                    _ if text.trim().is_empty() => root,
                    alone => Expr::all_of(vec![alone, root]),
                };
                prop_assert_eq!(query.root, expected);
            }
        }
    }
}
