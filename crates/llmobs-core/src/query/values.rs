//! Facets as group keys: parsing a facet's name, and reading its values on a span.

use super::facets::{self, FacetValue};
use super::{Expr, Field, ParseError, SpanContext, Term, parse};

impl Field {
    /// Parses the name of a facet in query syntax: `@meta.model_name`, `env`.
    ///
    /// # Errors
    ///
    /// A text that is not exactly one name.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let not_a_name = || {
            let hint = "give one name as a query writes it before the colon: @meta.model_name, \
                        @status, env";
            ParseError::new(0, "expected the name of one facet or tag", hint)
        };
        match parse(&format!("{text}:*"))?.root {
            Expr::Term(Term::Exists(field)) => Ok(field),
            _ => Err(not_a_name()),
        }
    }
}

/// The distinct values of a facet on a span, as text: several for a repeated tag or a list, none
/// where the facet is absent or empty. A value that is neither text nor a number is `(present)`.
pub fn facet_values(field: &Field, context: &SpanContext<'_>) -> Vec<String> {
    let facet_values = match field {
        Field::Attribute(name) => facets::attribute_values(name, context),
        Field::Tag(name) => facets::tag_values(name, context),
        Field::Child(name) => {
            let descendants = context.descendants.iter();
            descendants
                .flat_map(|span| facets::attribute_values(name, &SpanContext::without_trace(span)))
                .collect()
        }
    };
    let mut values: Vec<String> = Vec::new();
    for value in facet_values.into_iter().filter(FacetValue::is_present) {
        let text = match value {
            FacetValue::Text(text) => text.into_owned(),
            FacetValue::Number { number, .. } => number.to_string(),
            FacetValue::Present => "(present)".to_owned(),
        };
        if !values.contains(&text) {
            values.push(text);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Io, Span};
    use serde_json::json;

    fn values(facet: &str, span: &Span) -> Vec<String> {
        facet_values(
            &Field::parse(facet).unwrap(),
            &SpanContext::without_trace(span),
        )
    }

    #[test]
    fn returns_every_value_of_a_facet() {
        let span = Span {
            name: "answer".into(),
            duration_ns: 5,
            tags: vec!["team:a".into(), "team:b".into(), "team:a".into()],
            input: Io {
                prompt: Some(json!({"id": "p", "version": 3, "variables": {"q": "x"}})),
                ..Io::default()
            },
            ..Span::default()
        };
        assert_eq!(values("team", &span), ["a", "b"]);
        assert_eq!(values("@name", &span), ["answer"]);
        assert_eq!(values("@duration", &span), ["5"]);
        assert_eq!(values("@meta.input.prompt.version", &span), ["3"]);
        assert_eq!(values("@meta.input.prompt.variables", &span), ["(present)"]);
        assert_eq!(values("@meta.model_name", &span), [""; 0]);
        assert_eq!(values("@child.@name", &span), [""; 0]);
    }

    #[test]
    fn refuses_text_that_is_not_one_name() {
        for text in ["", "@a:b", "a b", "(a", "a OR b", "\"a\""] {
            assert!(Field::parse(text).is_err(), "{text}");
        }
    }
}
