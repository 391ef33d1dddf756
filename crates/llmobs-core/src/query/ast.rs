//! The syntax tree of a query.
//!
//! The tree is compiled to SQL or to an index query, or evaluated by [`Query::matches`]. It holds
//! meaning, not notation: `field:*` and `_exists_:field` are the same node, quotes that make no
//! difference are dropped, and nested ANDs and ORs are flat. The parser bounds its depth
//! ([`super::MAX_DEPTH`]), so recursion over it is safe.

use super::{Number, Wildcard};

/// A parsed query. Its `Display` output parses to the same tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The root of the tree.
    pub root: Expr,
}

/// A condition on a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Matches every span: `*`, or an empty query.
    All,
    /// Matches when all of two or more conditions match.
    And(Vec<Expr>),
    /// Matches when at least one of two or more conditions matches.
    Or(Vec<Expr>),
    /// Matches when the condition does not.
    Not(Box<Expr>),
    /// A single term.
    Term(Term),
}

/// A single condition on a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `field:pattern`: at least one value of the field matches.
    Field {
        /// The field to test.
        field: Field,
        /// The pattern that a value must match.
        pattern: Pattern,
    },
    /// `field:*` or `_exists_:field`: the field has a value.
    Exists(Field),
    /// `_missing_:field`: the field has no value.
    Missing(Field),
    /// Words in the span's text.
    Text(FreeText),
}

/// The field that a term tests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `@name`: an attribute, or the tag of that name where the span has no such attribute.
    Attribute(String),
    /// `name`: a tag, or the attribute of that name where the span has no such tag.
    Tag(String),
    /// `@child.@name`: an attribute of any descendant of the span.
    Child(String),
}

impl Field {
    /// The name without `@` or `@child.@`.
    pub fn name(&self) -> &str {
        match self {
            Field::Attribute(name) | Field::Tag(name) | Field::Child(name) => name,
        }
    }

    /// Whether the field reads evaluations or feedback, which must then be joined to the span.
    pub fn reads_evaluations(&self) -> bool {
        let families = ["evaluations.", "evaluation.", "feedback."];
        let name = self.name();
        name == "event_kind" || families.iter().any(|family| name.starts_with(family))
    }
}

/// A pattern for a field's value. Text is case-sensitive; numbers are compared by value.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Exactly this text.
    Literal(String),
    /// Text with `*` or `?`.
    Wildcard(Wildcard),
    /// Above or below a number. A value that is not a number does not match.
    Compare(Comparison, Number),
    /// Between two numbers, inclusive; `None` is an open end.
    Range {
        /// The lowest number that matches.
        from: Option<Number>,
        /// The highest number that matches.
        to: Option<Number>,
    },
    /// At least one of two or more patterns.
    AnyOf(Vec<Pattern>),
}

/// A comparison operator for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Comparison {
    /// All operators, with the longer ones before their prefixes.
    pub(super) const ALL: [Comparison; 4] = [
        Comparison::GreaterOrEqual,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::Less,
    ];

    /// The operator in query syntax.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
        }
    }

    /// Whether `left OPERATOR right` is true.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
        }
    }
}

/// Text to find anywhere in a span; [`super::text`] defines where and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FreeText {
    /// An unquoted word; `*` and `?` match letters and digits within one token.
    Word(Wildcard),
    /// A quoted phrase: consecutive words.
    Phrase(String),
}

impl Expr {
    /// The conjunction of `parts`. Flattens nested ANDs; a single part is returned unchanged.
    pub(super) fn all_of(parts: Vec<Expr>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Expr::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        single_or(flat, Expr::And)
    }

    /// The disjunction of `parts`. Flattens nested ORs; a single part is returned unchanged.
    pub(super) fn any_of(parts: Vec<Expr>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Expr::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        single_or(flat, Expr::Or)
    }

    /// Every term of the expression, in query order.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        let mut stack = vec![self];
        std::iter::from_fn(move || {
            loop {
                match stack.pop()? {
                    Expr::All => {}
                    Expr::And(parts) | Expr::Or(parts) => stack.extend(parts.iter().rev()),
                    Expr::Not(inner) => stack.push(inner),
                    Expr::Term(term) => return Some(term),
                }
            }
        })
    }
}

impl Pattern {
    /// A pattern that matches any of `patterns`. Flattens nested lists; a single pattern is
    /// returned unchanged.
    pub(super) fn any_of(patterns: Vec<Pattern>) -> Self {
        let mut flat = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            match pattern {
                Pattern::AnyOf(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        single_or(flat, Pattern::AnyOf)
    }
}

/// The only item, or all items wrapped by `group`.
fn single_or<T>(mut items: Vec<T>, group: impl FnOnce(Vec<T>) -> T) -> T {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        Some(last) => {
            items.push(last);
            group(items)
        }
        None => group(items),
    }
}

impl Term {
    /// The field that the term tests; `None` for free text.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Term::Field { field, .. } | Term::Exists(field) | Term::Missing(field) => Some(field),
            Term::Text(_) => None,
        }
    }
}

impl Query {
    /// Whether the query uses a `@trace.…` facet, which needs [`super::SpanContext::rollup`].
    pub fn needs_rollup(&self) -> bool {
        self.root
            .terms()
            .filter_map(Term::field)
            .any(|field| !matches!(field, Field::Child(_)) && field.name().starts_with("trace."))
    }

    /// Whether the query reads evaluations or feedback, which must then be joined to the span.
    pub fn needs_evaluations(&self) -> bool {
        let mut fields = self.root.terms().filter_map(Term::field);
        fields.any(Field::reads_evaluations)
    }

    /// Whether the query uses a `@child.…` facet, which needs
    /// [`super::SpanContext::descendants`].
    pub fn needs_descendants(&self) -> bool {
        self.root
            .terms()
            .any(|term| matches!(term.field(), Some(Field::Child(_))))
    }
}

#[cfg(test)]
mod tests {
    use crate::query::parse;

    #[test]
    fn reports_the_context_that_a_query_needs() {
        let needs = |text: &str| {
            let query = parse(text).unwrap();
            (query.needs_rollup(), query.needs_descendants())
        };
        assert_eq!(needs("@status:error refund"), (false, false));
        assert_eq!(needs("x OR -(a _missing_:@trace.llm_calls)"), (true, false));
        assert_eq!(needs("trace.tool_calls:>3"), (true, false));
        assert_eq!(needs("-@child.@status:error"), (false, true));
        // Only root spans have a rollup, and a descendant is never a root span.
        assert_eq!(needs("@child.@trace.llm_calls:>1"), (false, true));
        let reads = |text: &str| parse(text).unwrap().needs_evaluations();
        assert!(reads("x OR -@evaluation.tone.value:>1") && reads("@child.@feedback.done:*"));
        assert!(reads("event_kind:feedback") && reads("evaluations.custom.tone:*"));
        assert!(!reads("@status:error evaluation"));
    }
}
