//! The tree that a query is parsed to.
//!
//! Every backend compiles this tree (to SQL, to an index query, or by [`Query::matches`] on a span
//! at hand), so it holds meaning only: `field:*` and `_exists_:field` are the same node, quotes are
//! gone where they make no difference, and nested ANDs and ORs are flat. Its depth is bounded by
//! the parser ([`super::MAX_DEPTH`]), which is why recursion over it is safe.

use super::{Number, Wildcard};

/// A parsed query. Prints as text that parses to the same tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The top of the tree.
    pub root: Expr,
}

/// A condition on a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Holds for every span: `*`, or an empty query.
    All,
    /// All of two or more conditions hold.
    And(Vec<Expr>),
    /// At least one of two or more conditions holds.
    Or(Vec<Expr>),
    /// The condition does not hold.
    Not(Box<Expr>),
    /// A single test.
    Term(Term),
}

/// A single test of a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `field:pattern`: some value of the field matches.
    Field {
        /// What is looked at.
        field: Field,
        /// What it must be.
        pattern: Pattern,
    },
    /// `field:*` or `_exists_:field`: the field has a value.
    Exists(Field),
    /// `_missing_:field`: it has none.
    Missing(Field),
    /// Words in the text of the span.
    Text(FreeText),
}

/// What a test looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `@name`: an attribute, else the tag of that name.
    Attribute(String),
    /// `name`: a tag, else the attribute of that name.
    Tag(String),
    /// `@child.@name`: an attribute of any descendant of the span.
    Child(String),
}

impl Field {
    /// The name without its sigil.
    pub fn name(&self) -> &str {
        match self {
            Field::Attribute(name) | Field::Tag(name) | Field::Child(name) => name,
        }
    }

    /// Whether it is about evaluations or feedback, so that they must stand on the span.
    pub fn reads_evaluations(&self) -> bool {
        let families = ["evaluations.", "evaluation.", "feedback."];
        let name = self.name();
        name == "event_kind" || families.iter().any(|family| name.starts_with(family))
    }
}

/// What a value must be. Text is compared with case; numbers by value.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Exactly this.
    Literal(String),
    /// Text with `*` or `?` in it.
    Wildcard(Wildcard),
    /// Above or below a number. A value that is no number does not match.
    Compare(Comparison, Number),
    /// Between two numbers, both included; `None` is an open end.
    Range {
        /// The lowest number that matches.
        from: Option<Number>,
        /// The highest number that matches.
        to: Option<Number>,
    },
    /// Any of two or more patterns.
    AnyOf(Vec<Pattern>),
}

/// How a number is compared.
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
    /// All comparisons, an operator before its own prefix.
    pub(super) const ALL: [Comparison; 4] = [
        Comparison::GreaterOrEqual,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::Less,
    ];

    /// The comparison as a query writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
        }
    }

    /// Whether `left` stands so to `right`.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
        }
    }
}

/// Text to be found anywhere in a span; [`super::text`] says where and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FreeText {
    /// An unquoted word; `*` and `?` stand for letters and digits of one token.
    Word(Wildcard),
    /// A quoted phrase: its words, one right after the other.
    Phrase(String),
}

impl Expr {
    /// All of `parts`. Nested ANDs become flat, a single part stays itself.
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

    /// Any of `parts`. Nested ORs become flat, a single part stays itself.
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

    /// Every term of the condition, in the order written.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            loop {
                match open.pop()? {
                    Expr::All => {}
                    Expr::And(parts) | Expr::Or(parts) => open.extend(parts.iter().rev()),
                    Expr::Not(inner) => open.push(inner),
                    Expr::Term(term) => return Some(term),
                }
            }
        })
    }
}

impl Pattern {
    /// Any of `patterns`. Nested lists become flat, a single pattern stays itself.
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

/// The only one of `items`, or all of them under `group`.
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
    /// What the test looks at; `None` for free text.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Term::Field { field, .. } | Term::Exists(field) | Term::Missing(field) => Some(field),
            Term::Text(_) => None,
        }
    }
}

impl Query {
    /// Whether a `@trace.…` facet is used, so that [`super::SpanContext::rollup`] must be filled.
    pub fn needs_rollup(&self) -> bool {
        self.root
            .terms()
            .filter_map(Term::field)
            .any(|field| !matches!(field, Field::Child(_)) && field.name().starts_with("trace."))
    }

    /// Whether evaluations or feedback are asked for, so that they must stand on the span.
    pub fn needs_evaluations(&self) -> bool {
        let mut fields = self.root.terms().filter_map(Term::field);
        fields.any(Field::reads_evaluations)
    }

    /// Whether an `@child.…` facet is used, so that [`super::SpanContext::descendants`] must be
    /// filled.
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
    fn a_query_says_what_must_be_loaded_to_evaluate_it() {
        let needs = |text: &str| {
            let query = parse(text).unwrap();
            (query.needs_rollup(), query.needs_descendants())
        };
        assert_eq!(needs("@status:error refund"), (false, false));
        assert_eq!(needs("x OR -(a _missing_:@trace.llm_calls)"), (true, false));
        assert_eq!(needs("trace.tool_calls:>3"), (true, false));
        assert_eq!(needs("-@child.@status:error"), (false, true));
        // Rollups stand on roots only, and a descendant is none.
        assert_eq!(needs("@child.@trace.llm_calls:>1"), (false, true));
        let judged = |text: &str| parse(text).unwrap().needs_evaluations();
        assert!(judged("x OR -@evaluation.tone.value:>1") && judged("@child.@feedback.done:*"));
        assert!(judged("event_kind:feedback") && judged("evaluations.custom.tone:*"));
        assert!(!judged("@status:error evaluation"));
    }
}
