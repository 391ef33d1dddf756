//! Evaluation of a query on a span.

use super::facets::{self, FacetValue};
use super::number::decimal;
use super::{Expr, Field, Pattern, Query, SpanContext, Term, TimeUnit, text};

impl Query {
    /// Whether the span matches the query.
    pub fn matches(&self, context: &SpanContext<'_>) -> bool {
        self.root.matches(context)
    }
}

impl Expr {
    /// Whether the span matches the expression.
    pub fn matches(&self, context: &SpanContext<'_>) -> bool {
        match self {
            Expr::All => true,
            Expr::And(parts) => parts.iter().all(|part| part.matches(context)),
            Expr::Or(parts) => parts.iter().any(|part| part.matches(context)),
            Expr::Not(inner) => !inner.matches(context),
            Expr::Term(term) => term.matches(context),
        }
    }
}

impl Term {
    /// Whether the span matches the term.
    pub fn matches(&self, context: &SpanContext<'_>) -> bool {
        match self {
            Term::Field { field, pattern } => {
                any_value(field, context, |value| pattern.matches_value(value))
            }
            Term::Exists(field) => exists(field, context),
            Term::Missing(field) => !exists(field, context),
            Term::Text(free) => free.found_in(&text::searched_texts(context.span)),
        }
    }
}

fn exists(field: &Field, context: &SpanContext<'_>) -> bool {
    any_value(field, context, |value| value.is_present())
}

fn any_value(
    field: &Field,
    context: &SpanContext<'_>,
    test: impl Fn(&FacetValue<'_>) -> bool,
) -> bool {
    match field {
        Field::Attribute(name) => facets::attribute_values(name, context).iter().any(test),
        Field::Tag(name) => facets::tag_values(name, context).iter().any(test),
        Field::Child(name) => context.descendants.iter().any(|span| {
            let descendant = SpanContext {
                rollup: context.rollup,
                ..SpanContext::without_trace(span)
            };
            facets::attribute_values(name, &descendant)
                .iter()
                .any(&test)
        }),
    }
}

impl Pattern {
    fn matches_value(&self, value: &FacetValue<'_>) -> bool {
        match self {
            Pattern::Literal(literal) => equals(literal, value),
            Pattern::Wildcard(wildcard) => match value {
                FacetValue::Text(text) => wildcard.matches(text),
                FacetValue::Number { number, .. } => wildcard.matches(&number.to_string()),
                FacetValue::Present => wildcard.is_any_text(),
            },
            Pattern::Compare(comparison, number) => numeric(value)
                .is_some_and(|(value, unit)| comparison.holds(value, number.in_unit(unit))),
            Pattern::Range { from, to } => numeric(value).is_some_and(|(value, unit)| {
                from.is_none_or(|from| from.in_unit(unit) <= value)
                    && to.is_none_or(|to| value <= to.in_unit(unit))
            }),
            Pattern::AnyOf(patterns) => patterns.iter().any(|pattern| pattern.matches_value(value)),
        }
    }
}

/// Text is compared as text: ids are longer than a float can represent exactly. Numbers are
/// compared as numbers: `5`, `5.0` and, for a time, `5ns` are equal.
fn equals(literal: &str, value: &FacetValue<'_>) -> bool {
    match value {
        FacetValue::Text(text) => literal == text,
        FacetValue::Number { number, unit } => {
            if let Ok(literal) = literal.parse::<i128>()
                && let Ok(integer) = number.to_string().parse::<i128>()
            {
                return literal == integer;
            }
            super::Number::parse(literal)
                .is_some_and(|literal| literal.in_unit(*unit) == number.value())
        }
        FacetValue::Present => false,
    }
}

/// The value as a number in its unit. Tag values are always text, so numeric text counts as a
/// number.
fn numeric(value: &FacetValue<'_>) -> Option<(f64, TimeUnit)> {
    match value {
        FacetValue::Number { number, unit } => Some((number.value(), *unit)),
        FacetValue::Text(text) => Some((decimal(text)?, TimeUnit::Nanoseconds)),
        FacetValue::Present => None,
    }
}
