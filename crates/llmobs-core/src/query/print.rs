//! `Display` for queries.
//!
//! The output has as few parentheses as possible, so that a tree of the maximum depth prints as
//! text that the parser accepts.

use std::fmt::{self, Display, Formatter, Write as _};

use super::cursor::ends_word;
use super::{Expr, Field, FreeText, Pattern, Query, Term, Wildcard, WildcardElement};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::All => f.write_str("*"),
            Expr::Or(parts) => write_joined(f, parts, " OR ", Expr::is_or),
            Expr::And(parts) => write_joined(f, parts, " AND ", Expr::is_group),
            Expr::Not(inner) => {
                f.write_str("-")?;
                inner.write_grouped(f, inner.is_group())
            }
            Expr::Term(term) => term.fmt(f),
        }
    }
}

impl Expr {
    fn is_or(&self) -> bool {
        matches!(self, Expr::Or(_))
    }

    fn is_group(&self) -> bool {
        matches!(self, Expr::Or(_) | Expr::And(_))
    }

    fn write_grouped(&self, f: &mut Formatter<'_>, parentheses: bool) -> fmt::Result {
        if parentheses {
            write!(f, "({self})")
        } else {
            self.fmt(f)
        }
    }
}

fn write_joined(
    f: &mut Formatter<'_>,
    parts: &[Expr],
    operator: &str,
    needs_parentheses: impl Fn(&Expr) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        part.write_grouped(f, needs_parentheses(part))?;
    }
    Ok(())
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Term::Field { field, pattern } => write!(f, "{field}:{pattern}"),
            Term::Exists(field) => write!(f, "{field}:*"),
            Term::Missing(field) => write!(f, "_missing_:{field}"),
            Term::Text(FreeText::Phrase(phrase)) => f.write_str(&quoted(phrase)),
            Term::Text(FreeText::Word(word)) => write_word(f, word),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Field::Child(name) => {
                f.write_str("@child.@")?;
                write_name(f, name, false)
            }
            Field::Attribute(name) => {
                f.write_str("@")?;
                write_name(f, name, name.starts_with("child."))
            }
            Field::Tag(name) => {
                let special = matches!(name.as_str(), "_exists_" | "_missing_");
                write_name(f, name, special || name.starts_with(['@', '-']))
            }
        }
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Literal(text) => f.write_str(&value(text)),
            Pattern::Wildcard(wildcard) => {
                let escape_first = matches!(
                    wildcard.elements().first(),
                    Some(WildcardElement::Char('<' | '>'))
                );
                write_elements(f, wildcard, escape_first)
            }
            Pattern::Compare(comparison, number) => write!(f, "{}{number}", comparison.as_str()),
            Pattern::Range { from, to } => {
                f.write_str("[")?;
                match from {
                    Some(number) => number.fmt(f)?,
                    None => f.write_str("*")?,
                }
                f.write_str(" TO ")?;
                match to {
                    Some(number) => number.fmt(f)?,
                    None => f.write_str("*")?,
                }
                f.write_str("]")
            }
            Pattern::AnyOf(patterns) => {
                f.write_str("(")?;
                for (index, pattern) in patterns.iter().enumerate() {
                    if index > 0 {
                        f.write_str(" OR ")?;
                    }
                    pattern.fmt(f)?;
                }
                f.write_str(")")
            }
        }
    }
}

/// A text as a quoted value, which parses to exactly that text.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A text as a value, quoted only where necessary.
pub(super) fn value(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@');
    let operator = matches!(text, "AND" | "OR" | "NOT" | "TO");
    if text.is_empty() || operator || !text.chars().all(plain) {
        quoted(text)
    } else {
        text.to_owned()
    }
}

fn write_name(f: &mut Formatter<'_>, name: &str, escape_first: bool) -> fmt::Result {
    for (index, c) in name.chars().enumerate() {
        if needs_escape(c) || (index == 0 && escape_first) {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    Ok(())
}

/// Writes an unquoted word, escaped so that it does not parse as an operator, a negation or an
/// attribute.
fn write_word(f: &mut Formatter<'_>, word: &Wildcard) -> fmt::Result {
    let sigil = matches!(
        word.elements().first(),
        Some(WildcardElement::Char('@' | '-'))
    );
    let operator = matches!(word.as_literal().as_deref(), Some("AND" | "OR" | "NOT"));
    write_elements(f, word, sigil || operator)
}

fn write_elements(f: &mut Formatter<'_>, word: &Wildcard, escape_first: bool) -> fmt::Result {
    for (index, element) in word.elements().iter().enumerate() {
        match element {
            WildcardElement::AnyRun => f.write_char('*')?,
            WildcardElement::AnyChar => f.write_char('?')?,
            WildcardElement::Char(c) => {
                if needs_escape(*c) || (index == 0 && escape_first) {
                    f.write_char('\\')?;
                }
                f.write_char(*c)?;
            }
        }
    }
    Ok(())
}

/// Whether a character has a special meaning in an unquoted word in any context.
fn needs_escape(c: char) -> bool {
    ends_word(c) || matches!(c, '\\' | ':' | ',' | '*' | '?')
}
