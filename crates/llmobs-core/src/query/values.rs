//! A facet as something to group by: its name read, and its values on a span.

use super::facets::{self, FacetValue};
use super::{Expr, Field, ParseError, SpanContext, Term, parse};

impl Field {
    /// Reads the name of a facet as a query writes it before the colon: `@meta.model_name`, `env`.
    ///
    /// # Errors
    ///
    /// A text that is no name, or is more than one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let wrong = || {
            let hint = "write one name as before a colon: @meta.model_name, @status, env";
            ParseError::new(0, "this is not the name of a facet or a tag", hint)
        };
        match parse(&format!("{text}:*"))?.root {
            Expr::Term(Term::Exists(field)) => Ok(field),
            _ => Err(wrong()),
        }
    }
}

/// The values of a facet on a span as text, each once: several where a tag is repeated or a list
/// is looked through, none where it is absent or empty. Something that is no text and no number
/// reads as `(present)`.
pub fn facet_values(field: &Field, context: &SpanContext<'_>) -> Vec<String> {
    let found = match field {
        Field::Attribute(name) => facets::of_attribute(name, context),
        Field::Tag(name) => facets::of_tag(name, context),
        Field::Child(name) => {
            let below = context.descendants.iter();
            below
                .flat_map(|span| facets::of_attribute(name, &SpanContext::without_trace(span)))
                .collect()
        }
    };
    let mut values: Vec<String> = Vec::new();
    for value in found.into_iter().filter(FacetValue::is_present) {
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
    fn a_facet_has_none_one_or_several_values() {
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
    fn what_is_no_name_is_refused() {
        for text in ["", "@a:b", "a b", "(a", "a OR b", "\"a\""] {
            assert!(Field::parse(text).is_err(), "{text}");
        }
    }
}
