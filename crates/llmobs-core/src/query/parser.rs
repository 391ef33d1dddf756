//! A recursive-descent parser for queries.
//!
//! It accepts the syntax that Datadog accepts. Ambiguous text is an error: a caller can correct a
//! refused query, but cannot notice that a query returned the wrong spans.

use super::cursor::{Cursor, Word};
use super::{Comparison, Expr, Field, FreeText, Number, ParseError, Pattern, Query, Term};

/// Maximum nesting of parentheses and negations. It bounds every recursion over the tree.
pub const MAX_DEPTH: usize = 64;

/// Parses a query. An empty query matches every span.
///
/// # Errors
///
/// The first syntax error, with its position and a hint.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    let mut parser = Parser {
        cursor: Cursor::new(text),
        depth: 0,
    };
    parser.cursor.skip_whitespace();
    if parser.cursor.peek().is_none() {
        return Ok(Query { root: Expr::All });
    }
    let root = parser.disjunction()?;
    match parser.cursor.peek() {
        None => Ok(Query { root }),
        Some(c) => Err(ParseError::unmatched_bracket(parser.cursor.position(), c)),
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
}

impl Parser<'_> {
    /// Parses `a OR b`. Stops at the end of the text or before a `)`.
    fn disjunction(&mut self) -> Result<Expr, ParseError> {
        let mut parts = vec![self.conjunction()?];
        while self.cursor.eat_operator("OR") {
            parts.push(self.conjunction()?);
        }
        Ok(Expr::any_of(parts))
    }

    /// Parses `a AND b` or `a b`. Stops at the end of the text, before a `)` or before an `OR`.
    fn conjunction(&mut self) -> Result<Expr, ParseError> {
        let mut parts = vec![self.unary()?];
        loop {
            self.cursor.skip_whitespace();
            if self.cursor.eat_operator("AND") {
                parts.push(self.unary()?);
            } else if self.cursor.peek().is_none_or(|c| c == ')') || self.cursor.at_operator("OR") {
                return Ok(Expr::all_of(parts));
            } else {
                parts.push(self.unary()?);
            }
        }
    }

    /// Parses a negation, a group or a term.
    fn unary(&mut self) -> Result<Expr, ParseError> {
        self.cursor.skip_whitespace();
        let position = self.cursor.position();
        if self.cursor.eat("-") || self.cursor.eat_operator("NOT") {
            let inner = self.nested(position, Self::unary)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.cursor.at_operator("AND") || self.cursor.at_operator("OR") {
            return Err(ParseError::new(
                position,
                "expected a search term, found an operator",
                "write a term on both sides of the operator, or quote the word to search for it: \
                 @status:error AND refund, \"OR\"",
            ));
        }
        match self.cursor.peek() {
            Some('(') => self.nested(position, Self::group),
            Some('"') => {
                let phrase = self.cursor.quoted()?;
                self.end_of_term()?;
                Ok(Expr::Term(Term::Text(FreeText::Phrase(phrase))))
            }
            Some('[') => Err(ParseError::new(
                position,
                "expected a search term, found `[`",
                "write a range after a facet, or quote the text: @duration:[1s TO 5s], \
                 \"[INST]\"",
            )),
            Some(']') => Err(ParseError::unmatched_bracket(position, ']')),
            None | Some(')') => Err(ParseError::new(
                position,
                "expected a search term",
                "add a term, or remove the operator or parenthesis: @status:error AND refund",
            )),
            Some(_) => self.term(),
        }
    }

    /// Parses `( … )`. The cursor is at the opening parenthesis.
    fn group(&mut self) -> Result<Expr, ParseError> {
        let position = self.cursor.position();
        self.cursor.bump();
        let inner = self.disjunction()?;
        if self.cursor.eat(")") {
            Ok(inner)
        } else {
            Err(ParseError::unclosed_bracket(position, '('))
        }
    }

    /// Parses a term that starts with a word.
    fn term(&mut self) -> Result<Expr, ParseError> {
        let word = self.cursor.word(&[':'])?;
        let term = if self.cursor.eat(":") {
            match word.raw {
                "_exists_" => Term::Exists(self.field_name()?),
                "_missing_" => Term::Missing(self.field_name()?),
                _ => {
                    let field = parse_field(&word)?;
                    let pattern = self.pattern(&[])?;
                    field_term(field, pattern)
                }
            }
        } else if self.eat_in() {
            let field = parse_field(&word)?;
            let pattern = self.bracket_list()?;
            field_term(field, pattern)
        } else if word.raw.starts_with('@') {
            return Err(ParseError::new(
                word.start,
                "the attribute has no value",
                "add a value after a colon, use `*` for any value, or quote it to search for the \
                 text: @status:error, @session_id:*, \"@name\"",
            ));
        } else if word.pattern.is_any_text() {
            self.end_of_term()?;
            return Ok(Expr::All);
        } else {
            Term::Text(FreeText::Word(word.pattern))
        };
        self.end_of_term()?;
        Ok(Expr::Term(term))
    }

    /// Consumes `IN` if a list in brackets follows it.
    fn eat_in(&mut self) -> bool {
        let mut ahead = self.cursor;
        ahead.skip_whitespace();
        if ahead.position() == self.cursor.position() || !ahead.eat_operator("IN") {
            return false;
        }
        ahead.skip_whitespace();
        if ahead.peek() != Some('[') {
            return false;
        }
        self.cursor = ahead;
        true
    }

    /// Parses the field after `_exists_:` or `_missing_:`.
    fn field_name(&mut self) -> Result<Field, ParseError> {
        let position = self.cursor.position();
        if self.cursor.peek() == Some('"') {
            let name = self.cursor.quoted()?;
            return field_from_name(&name, &name, position);
        }
        let word = self.cursor.word(&[])?;
        parse_field(&word)
    }

    /// Parses a value after a colon or in a list. An unquoted value also ends at one of `stops`.
    fn pattern(&mut self, stops: &[char]) -> Result<Pattern, ParseError> {
        match self.cursor.peek() {
            Some('(') => self.list(1, stops),
            _ => self.single_pattern(stops),
        }
    }

    /// Parses a value that is not a list.
    fn single_pattern(&mut self, stops: &[char]) -> Result<Pattern, ParseError> {
        match self.cursor.peek() {
            Some('"') => return Ok(Pattern::Literal(self.cursor.quoted()?)),
            Some('[') => return self.range(),
            _ => {}
        }
        for comparison in Comparison::ALL {
            if self.cursor.eat(comparison.as_str()) {
                let word = self.cursor.word(stops)?;
                return Ok(Pattern::Compare(comparison, parse_number(&word)?));
            }
        }
        let word = self.cursor.word(stops)?;
        if word.pattern.is_empty() {
            return Err(ParseError::new(
                word.start,
                "expected a value",
                "write the value directly after the colon or comma, and quote a value with \
                 spaces: @status:error, @ml_app:\"my app\", @session_id:*",
            ));
        }
        Ok(match word.pattern.as_literal() {
            Some(text) => Pattern::Literal(text),
            None => Pattern::Wildcard(word.pattern),
        })
    }

    /// Parses `(a OR b)` after a colon. The cursor is at the opening parenthesis.
    fn list(&mut self, level: usize, stops: &[char]) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        if level > MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.cursor.bump();
        let mut patterns = Vec::new();
        loop {
            self.cursor.skip_whitespace();
            patterns.push(match self.cursor.peek() {
                Some('(') => self.list(level + 1, stops)?,
                _ => self.single_pattern(stops)?,
            });
            self.cursor.skip_whitespace();
            if self.cursor.eat(")") {
                return Ok(Pattern::any_of(patterns));
            }
            if self.cursor.peek().is_none() {
                return Err(ParseError::unclosed_bracket(position, '('));
            }
            if !self.cursor.eat_operator("OR") {
                return Err(ParseError::new(
                    self.cursor.position(),
                    "expected `OR` in upper case between the values in parentheses",
                    "write @session_id:(a OR b), and quote a value with spaces: \
                     @ml_app:(\"my app\" OR other)",
                ));
            }
        }
    }

    /// Parses `[a, b]` after `IN`. The cursor is at the opening bracket.
    fn bracket_list(&mut self) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        self.cursor.bump();
        let mut patterns = Vec::new();
        loop {
            self.cursor.skip_whitespace();
            patterns.push(self.pattern(&[','])?);
            self.cursor.skip_whitespace();
            if self.cursor.eat("]") {
                return Ok(Pattern::any_of(patterns));
            }
            if self.cursor.peek().is_none() {
                return Err(ParseError::unclosed_bracket(position, '['));
            }
            if !self.cursor.eat(",") {
                return Err(ParseError::new(
                    self.cursor.position(),
                    "expected a comma between the values after `IN`",
                    "write @meta.span.kind IN [llm, tool], and quote a value with spaces: \
                     @ml_app IN [\"my app\", other]",
                ));
            }
        }
    }

    /// Parses `[a TO b]`. The cursor is at the opening bracket.
    fn range(&mut self) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        self.cursor.bump();
        let from = self.bound()?;
        self.cursor.skip_whitespace();
        if !self.cursor.eat_operator("TO") {
            return Err(match self.cursor.peek() {
                None => ParseError::unclosed_bracket(position, '['),
                Some(_) => ParseError::new(
                    self.cursor.position(),
                    "expected `TO` in upper case between the ends of the range",
                    "write @duration:[1s TO 5s] for a range, or @meta.span.kind IN [llm, tool] \
                     for a list",
                ),
            });
        }
        let to = self.bound()?;
        self.cursor.skip_whitespace();
        if self.cursor.eat("]") {
            return Ok(Pattern::Range { from, to });
        }
        Err(match self.cursor.peek() {
            None => ParseError::unclosed_bracket(position, '['),
            Some(_) => ParseError::new(
                self.cursor.position(),
                "expected `]` after the second number of the range",
                "close the range with `]`; both ends are inclusive: @duration:[1s TO 5s]",
            ),
        })
    }

    /// Parses one end of a range; `*` is an open end.
    fn bound(&mut self) -> Result<Option<Number>, ParseError> {
        self.cursor.skip_whitespace();
        let word = self.cursor.word(&[])?;
        if word.raw == "*" {
            return Ok(None);
        }
        parse_number(&word).map(Some)
    }

    /// Checks that a term ends at whitespace, before a `)` or with the text. Any other character
    /// is ambiguous: it could start a new term or continue this one.
    fn end_of_term(&self) -> Result<(), ParseError> {
        match self.cursor.peek() {
            None | Some(')') => Ok(()),
            Some(c) if c.is_whitespace() => Ok(()),
            Some(']') => Err(ParseError::unmatched_bracket(self.cursor.position(), ']')),
            Some(c) => Err(ParseError::new(
                self.cursor.position(),
                format!("unexpected `{c}` directly after a value"),
                "put a space before it if it starts a new term, or quote the complete value: \
                 @name:\"get_user(id)\"",
            )),
        }
    }

    /// Runs `inner` one level deeper.
    fn nested(
        &mut self,
        position: usize,
        inner: impl FnOnce(&mut Self) -> Result<Expr, ParseError>,
    ) -> Result<Expr, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.depth += 1;
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }
}

/// The term for a field and a pattern; `field:*` tests presence.
fn field_term(field: Field, pattern: Pattern) -> Term {
    match pattern {
        Pattern::Wildcard(wildcard) if wildcard.is_any_text() => Term::Exists(field),
        pattern => Term::Field { field, pattern },
    }
}

fn parse_field(word: &Word<'_>) -> Result<Field, ParseError> {
    let Some(name) = word.pattern.as_literal() else {
        return Err(ParseError::new(
            word.start,
            "the name of a facet cannot contain a wildcard",
            r"use the wildcard in the value, or escape it: @meta.model_name:gpt-4*, my\*tag:1",
        ));
    };
    field_from_name(&name, word.raw, word.start)
}

/// The field with the given name. `raw` is the name with its escapes, in which an escaped sigil
/// differs from a sigil.
fn field_from_name(name: &str, raw: &str, position: usize) -> Result<Field, ParseError> {
    let field = if raw.starts_with("@child.") {
        let name = name.strip_prefix("@child.").unwrap_or_default();
        Field::Child(name.strip_prefix('@').unwrap_or(name).to_owned())
    } else if raw.starts_with('@') {
        Field::Attribute(name.strip_prefix('@').unwrap_or_default().to_owned())
    } else {
        Field::Tag(name.to_owned())
    };
    if field.name().is_empty() {
        return Err(ParseError::new(
            position,
            "expected the name of a facet",
            "write a name before the colon, or quote the text: @status:error, env:prod, \":-)\"",
        ));
    }
    Ok(field)
}

fn parse_number(word: &Word<'_>) -> Result<Number, ParseError> {
    Number::parse(word.raw).ok_or_else(|| {
        ParseError::new(
            word.start,
            "expected a number",
            "comparisons and ranges take numbers, with ns, us, ms, s, m or h for durations: \
             @duration:>5s, @metrics.input_tokens:[100 TO *]",
        )
    })
}

fn too_deep(position: usize) -> ParseError {
    ParseError::new(
        position,
        format!("parentheses or negations are nested more than {MAX_DEPTH} levels deep"),
        "remove redundant ones, and write alternative values of one facet as one list: \
         @session_id:(a OR b OR c)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "*")]
    #[case("  ", "*")]
    #[case("a b AND c", "a AND b AND c")]
    #[case("a OR b c", "a OR b AND c")]
    #[case("(a OR b) c", "(a OR b) AND c")]
    #[case("((a) AND (b AND c))", "a AND b AND c")]
    #[case("NOT a -b --c - d", "-a AND -b AND --c AND -d")]
    #[case("NOT(a OR b)OR(c)", "-(a OR b) OR c")]
    #[case("-@status:ok", "-@status:ok")]
    #[case(
        "_exists_:@session_id _missing_:env",
        "@session_id:* AND _missing_:env"
    )]
    #[case("_missing_:\"first name\"", r"_missing_:first\ name")]
    #[case(
        "@meta.span.kind IN [llm, \"tool\" ,a*]",
        "@meta.span.kind:(llm OR tool OR a*)"
    )]
    #[case("@x IN [a]", "@x:a")]
    #[case("@x:(a OR (b OR \"c d\"))", "@x:(a OR b OR \"c d\")")]
    #[case("@x:(*)", "@x:*")]
    #[case("@x:[1 TO 2.50]", "@x:[1 TO 2.5]")]
    #[case("@x:[ * TO 5s ]", "@x:[* TO 5s]")]
    #[case("@duration:>=1.5μs", "@duration:>=1.5us")]
    #[case(
        "@child.@meta.span.name:a @child.b:c",
        "@child.@meta.span.name:a AND @child.@b:c"
    )]
    #[case("url:http://a:1/b?c", "url:http\\://a\\:1/b?c")]
    #[case(r#"@user.first\ name:"a b""#, r#"@user.first\ name:"a b""#)]
    #[case(r"@url:*user\=Jane*", "@url:*user=Jane*")]
    #[case(r"\-a \@b \AND \*", r"\-a AND \@b AND \AND AND \*")]
    #[case("AND:1 NOT:2", "AND:1 AND NOT:2")]
    #[case("what's up", "what's AND up")]
    #[case("a and b", "a AND and AND b")]
    #[case("ANDROID ORdinary NOTE", "ANDROID AND ORdinary AND NOTE")]
    fn parses(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(parse(text).unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("a AND", 5, "expected a search term")]
    #[case("OR a", 0, "found an operator")]
    #[case("a AND OR b", 6, "found an operator")]
    #[case("()", 1, "expected a search term")]
    #[case("a)", 1, "no matching opening bracket")]
    #[case("(a", 0, "never closed")]
    #[case("é (a", 3, "never closed")]
    #[case("@status: error", 8, "expected a value")]
    #[case("@status:", 8, "expected a value")]
    #[case("@status", 0, "has no value")]
    #[case(":x", 0, "expected the name of a facet")]
    #[case("@:x", 0, "expected the name of a facet")]
    #[case("@child.@:x", 0, "expected the name of a facet")]
    #[case("@meta.*:x", 0, "cannot contain a wildcard")]
    #[case("@duration:>fast", 11, "expected a number")]
    #[case("@duration:> 5s", 11, "expected a number")]
    #[case("@x:[1 to 2]", 6, "expected `TO`")]
    #[case("@x:[1 TO 2", 3, "never closed")]
    #[case("@x:[1 TO 2)", 10, "expected `]`")]
    #[case("@x:[a TO b]", 4, "expected a number")]
    #[case("@x:(a or b)", 6, "expected `OR`")]
    #[case("@x:(a b)", 6, "expected `OR`")]
    #[case("@x:(a OR", 8, "expected a value")]
    #[case("@x IN []", 7, "expected a value")]
    #[case("@x IN [a b]", 9, "expected a comma")]
    #[case("f(x)", 1, "directly after a value")]
    #[case("\"a\"b", 3, "directly after a value")]
    #[case("5\" screen", 1, "directly after a value")]
    #[case("a]", 1, "no matching opening bracket")]
    #[case("[a]", 0, "found `[`")]
    #[case("IN [1", 3, "found `[`")]
    #[case("\"abc", 0, "never closed")]
    #[case("abc\\", 3, "backslash at the end")]
    fn reports_error_with_position(
        #[case] text: &str,
        #[case] position: usize,
        #[case] words: &str,
    ) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.position, position, "{error}");
        assert!(error.message.contains(words), "{error}");
    }

    #[test]
    fn every_hint_has_an_example_that_parses() {
        let examples = [
            "@status:error AND refund",
            "\"OR\"",
            "@duration:[1s TO 5s]",
            "\"[INST]\"",
            "@session_id:*",
            "\"@name\"",
            "@ml_app:\"my app\"",
            "@session_id:(a OR b)",
            "@ml_app:(\"my app\" OR other)",
            "@meta.span.kind IN [llm, tool]",
            "@ml_app IN [\"my app\", other]",
            "@name:\"get_user(id)\"",
            "@meta.model_name:gpt-4*",
            r"my\*tag:1",
            "env:prod",
            "\":-)\"",
            "@duration:>5s",
            "@metrics.input_tokens:[100 TO *]",
            "@session_id:(a OR b OR c)",
            "(@status:error OR @status:ok)",
            "\"f(x\"",
            "\"timed out\"",
            r#"5\""#,
            r"C:\\logs\\",
        ];
        let invalid = [
            "a AND",
            "OR a",
            "[",
            "@a",
            "@a:",
            "@x:(a b)",
            "@x IN [a b]",
            "f(x",
            "f*:1",
            ":x",
            "@x:>y",
            "(a",
            "a)",
            "\"a",
            "a\\",
            "@x:[1 2]",
            "@x:[1 TO 2)",
        ];
        for text in invalid
            .map(str::to_owned)
            .into_iter()
            .chain(["(".repeat(99)])
        {
            let error = parse(&text).unwrap_err();
            let has_example = examples.iter().any(|example| error.hint.contains(example));
            assert!(has_example, "no example: {error}");
        }
        for example in examples {
            assert!(parse(example).is_ok(), "{example}");
        }
    }

    #[test]
    fn bounds_every_kind_of_nesting() {
        let n = 10_000;
        let deep = [
            "(".repeat(n) + "a" + &")".repeat(n),
            "-".repeat(n) + "a",
            "NOT ".repeat(n) + "a",
            "-(".repeat(n) + "a" + &")".repeat(n),
            "@x:".to_owned() + &"(".repeat(n) + "a" + &")".repeat(n),
            "@x IN [".to_owned() + &"(".repeat(n) + "a" + &")".repeat(n) + "]",
            "@child.".repeat(n) + "a:b",
        ];
        let (children, too_deep) = deep.split_last().unwrap();
        for text in too_deep {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains("64 levels deep"), "{error}");
        }
        // `@child.` does not nest; the rest is a name.
        assert!(parse(children).is_ok());
        let flat = vec!["a"; n].join(" OR ");
        assert!(parse(&flat).is_ok());
        let deepest = "-(".repeat(MAX_DEPTH / 2) + "a b" + &")".repeat(MAX_DEPTH / 2);
        let query = parse(&deepest).unwrap();
        assert_eq!(parse(&query.to_string()), Ok(query));
    }
}
