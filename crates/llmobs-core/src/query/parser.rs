//! From text to tree, by recursive descent. It accepts what Datadog accepts, and where a text has
//! two readings it refuses rather than guesses: a caller that gets an error can mend its query, one
//! that gets the wrong spans cannot know.

use super::cursor::{Cursor, Word};
use super::{Comparison, Expr, Field, FreeText, Number, ParseError, Pattern, Query, Term};

/// How deep parentheses and negations may nest. It bounds every recursion over the tree.
pub const MAX_DEPTH: usize = 64;

/// Parses a query. An empty one holds for every span.
///
/// # Errors
///
/// The first place that cannot be read, what is wrong there, and a query that works.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    let mut parser = Parser {
        cursor: Cursor::new(text),
        depth: 0,
    };
    parser.cursor.skip_blanks();
    if parser.cursor.peek().is_none() {
        return Ok(Query { root: Expr::All });
    }
    let root = parser.disjunction()?;
    match parser.cursor.peek() {
        None => Ok(Query { root }),
        Some(c) => Err(ParseError::unopened_bracket(parser.cursor.position(), c)),
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
}

impl Parser<'_> {
    /// `a OR b`. Stops at the end of the text or before a `)`.
    fn disjunction(&mut self) -> Result<Expr, ParseError> {
        let mut parts = vec![self.conjunction()?];
        while self.cursor.eat_operator("OR") {
            parts.push(self.conjunction()?);
        }
        Ok(Expr::any_of(parts))
    }

    /// `a AND b` or `a b`. Stops at the end of the text, before a `)` or before an `OR`.
    fn conjunction(&mut self) -> Result<Expr, ParseError> {
        let mut parts = vec![self.unary()?];
        loop {
            self.cursor.skip_blanks();
            if self.cursor.eat_operator("AND") {
                parts.push(self.unary()?);
            } else if self.cursor.peek().is_none_or(|c| c == ')') || self.cursor.at_operator("OR") {
                return Ok(Expr::all_of(parts));
            } else {
                parts.push(self.unary()?);
            }
        }
    }

    /// A negation, a group or a term.
    fn unary(&mut self) -> Result<Expr, ParseError> {
        self.cursor.skip_blanks();
        let position = self.cursor.position();
        if self.cursor.eat("-") || self.cursor.eat_operator("NOT") {
            let inner = self.deeper(position, Self::unary)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.cursor.at_operator("AND") || self.cursor.at_operator("OR") {
            return Err(ParseError::new(
                position,
                "an operator stands where a search term is needed",
                "write a term on both sides, or quote the word to search for it: \
                 @status:error AND refund, \"OR\"",
            ));
        }
        match self.cursor.peek() {
            Some('(') => self.deeper(position, Self::group),
            Some('"') => {
                let phrase = self.cursor.quoted()?;
                self.end_of_term()?;
                Ok(Expr::Term(Term::Text(FreeText::Phrase(phrase))))
            }
            Some('[') => Err(ParseError::new(
                position,
                "`[` stands where a search term is needed",
                "a range follows a facet, text is quoted: @duration:[1s TO 5s], \"[INST]\"",
            )),
            Some(']') => Err(ParseError::unopened_bracket(position, ']')),
            None | Some(')') => Err(ParseError::new(
                position,
                "a search term is missing here",
                "write one, or remove the operator or parenthesis: @status:error AND refund",
            )),
            Some(_) => self.term(),
        }
    }

    /// `( … )`; the opening parenthesis comes next.
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

    /// A term that starts with a word.
    fn term(&mut self) -> Result<Expr, ParseError> {
        let word = self.cursor.word(&[':'])?;
        let term = if self.cursor.eat(":") {
            match word.raw {
                "_exists_" => Term::Exists(self.field_name()?),
                "_missing_" => Term::Missing(self.field_name()?),
                _ => {
                    let field = field(&word)?;
                    let pattern = self.pattern(&[])?;
                    field_term(field, pattern)
                }
            }
        } else if self.eat_in() {
            let field = field(&word)?;
            let pattern = self.bracket_list()?;
            field_term(field, pattern)
        } else if word.raw.starts_with('@') {
            return Err(ParseError::new(
                word.start,
                "an attribute stands here without a value",
                "give it one, ask for its presence, or quote it as text: @status:error, \
                 @session_id:*, \"@name\"",
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

    /// Takes `IN` if a list in brackets follows it.
    fn eat_in(&mut self) -> bool {
        let mut ahead = self.cursor;
        ahead.skip_blanks();
        if ahead.position() == self.cursor.position() || !ahead.eat_operator("IN") {
            return false;
        }
        ahead.skip_blanks();
        if ahead.peek() != Some('[') {
            return false;
        }
        self.cursor = ahead;
        true
    }

    /// The field that `_exists_:` or `_missing_:` asks for.
    fn field_name(&mut self) -> Result<Field, ParseError> {
        let position = self.cursor.position();
        if self.cursor.peek() == Some('"') {
            let name = self.cursor.quoted()?;
            return field_of(&name, &name, position);
        }
        let word = self.cursor.word(&[])?;
        field(&word)
    }

    /// A value after a colon or in a list; an unquoted one ends also at one of `stops`.
    fn pattern(&mut self, stops: &[char]) -> Result<Pattern, ParseError> {
        match self.cursor.peek() {
            Some('(') => self.list(1, stops),
            _ => self.single_pattern(stops),
        }
    }

    /// A value that is not a list.
    fn single_pattern(&mut self, stops: &[char]) -> Result<Pattern, ParseError> {
        match self.cursor.peek() {
            Some('"') => return Ok(Pattern::Literal(self.cursor.quoted()?)),
            Some('[') => return self.range(),
            _ => {}
        }
        for comparison in Comparison::ALL {
            if self.cursor.eat(comparison.as_str()) {
                let word = self.cursor.word(stops)?;
                return Ok(Pattern::Compare(comparison, number(&word)?));
            }
        }
        let word = self.cursor.word(stops)?;
        if word.pattern.is_empty() {
            return Err(ParseError::new(
                word.start,
                "a value is missing here",
                "write it right after the colon or comma, with quotes around blanks: \
                 @status:error, @ml_app:\"my app\", @session_id:*",
            ));
        }
        Ok(match word.pattern.as_literal() {
            Some(text) => Pattern::Literal(text),
            None => Pattern::Wildcard(word.pattern),
        })
    }

    /// `(a OR b)` after a colon; the opening parenthesis comes next.
    fn list(&mut self, level: usize, stops: &[char]) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        if level > MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.cursor.bump();
        let mut patterns = Vec::new();
        loop {
            self.cursor.skip_blanks();
            patterns.push(match self.cursor.peek() {
                Some('(') => self.list(level + 1, stops)?,
                _ => self.single_pattern(stops)?,
            });
            self.cursor.skip_blanks();
            if self.cursor.eat(")") {
                return Ok(Pattern::any_of(patterns));
            }
            if self.cursor.peek().is_none() {
                return Err(ParseError::unclosed_bracket(position, '('));
            }
            if !self.cursor.eat_operator("OR") {
                return Err(ParseError::new(
                    self.cursor.position(),
                    "values in parentheses are separated by OR, in capitals",
                    "write @session_id:(a OR b); a value with blanks is quoted: \
                     @ml_app:(\"my app\" OR other)",
                ));
            }
        }
    }

    /// `[a, b]` after `IN`; the opening bracket comes next.
    fn bracket_list(&mut self) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        self.cursor.bump();
        let mut patterns = Vec::new();
        loop {
            self.cursor.skip_blanks();
            patterns.push(self.pattern(&[','])?);
            self.cursor.skip_blanks();
            if self.cursor.eat("]") {
                return Ok(Pattern::any_of(patterns));
            }
            if self.cursor.peek().is_none() {
                return Err(ParseError::unclosed_bracket(position, '['));
            }
            if !self.cursor.eat(",") {
                return Err(ParseError::new(
                    self.cursor.position(),
                    "values after IN are separated by commas",
                    "write @meta.span.kind IN [llm, tool]; a value with blanks is quoted: \
                     @ml_app IN [\"my app\", other]",
                ));
            }
        }
    }

    /// `[a TO b]`; the opening bracket comes next.
    fn range(&mut self) -> Result<Pattern, ParseError> {
        let position = self.cursor.position();
        self.cursor.bump();
        let from = self.bound()?;
        self.cursor.skip_blanks();
        if !self.cursor.eat_operator("TO") {
            return Err(match self.cursor.peek() {
                None => ParseError::unclosed_bracket(position, '['),
                Some(_) => ParseError::new(
                    self.cursor.position(),
                    "the ends of a range are separated by TO, in capitals",
                    "write @duration:[1s TO 5s] for a range, @meta.span.kind IN [llm, tool] for a \
                     list",
                ),
            });
        }
        let to = self.bound()?;
        self.cursor.skip_blanks();
        if self.cursor.eat("]") {
            return Ok(Pattern::Range { from, to });
        }
        Err(match self.cursor.peek() {
            None => ParseError::unclosed_bracket(position, '['),
            Some(_) => ParseError::new(
                self.cursor.position(),
                "a range ends with `]` after its second number",
                "both ends belong to it: @duration:[1s TO 5s]",
            ),
        })
    }

    /// One end of a range; `*` is open.
    fn bound(&mut self) -> Result<Option<Number>, ParseError> {
        self.cursor.skip_blanks();
        let word = self.cursor.word(&[])?;
        if word.raw == "*" {
            return Ok(None);
        }
        number(&word).map(Some)
    }

    /// A term ends at a blank, before a `)` or with the text. Anything else right after it has two
    /// readings, a new term or more of this one.
    fn end_of_term(&self) -> Result<(), ParseError> {
        match self.cursor.peek() {
            None | Some(')') => Ok(()),
            Some(c) if c.is_whitespace() => Ok(()),
            Some(']') => Err(ParseError::unopened_bracket(self.cursor.position(), ']')),
            Some(c) => Err(ParseError::new(
                self.cursor.position(),
                format!("`{c}` stands right after a value"),
                "put a blank before it if it starts a new term, or quote the whole value: \
                 @name:\"get_user(id)\"",
            )),
        }
    }

    fn deeper(
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

/// `field:*` asks whether the field is there at all.
fn field_term(field: Field, pattern: Pattern) -> Term {
    match pattern {
        Pattern::Wildcard(wildcard) if wildcard.is_any_text() => Term::Exists(field),
        pattern => Term::Field { field, pattern },
    }
}

fn field(word: &Word<'_>) -> Result<Field, ParseError> {
    let Some(name) = word.pattern.as_literal() else {
        return Err(ParseError::new(
            word.start,
            "a wildcard cannot stand in the name of a facet",
            r"use it in the value, or escape it: @meta.model_name:gpt-4*, my\*tag:1",
        ));
    };
    field_of(&name, word.raw, word.start)
}

/// The field called `name`; `raw` is the name before escapes were taken, which tells a sigil from
/// an escaped one.
fn field_of(name: &str, raw: &str, position: usize) -> Result<Field, ParseError> {
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
            "the name of a facet is missing here",
            "write it before the colon, or quote the text: @status:error, env:prod, \":-)\"",
        ));
    }
    Ok(field)
}

fn number(word: &Word<'_>) -> Result<Number, ParseError> {
    Number::parse(word.raw).ok_or_else(|| {
        ParseError::new(
            word.start,
            "a number is needed here",
            "comparisons and ranges take numbers, with ns, us, ms, s, m or h for a time: \
             @duration:>5s, @metrics.input_tokens:[100 TO *]",
        )
    })
}

fn too_deep(position: usize) -> ParseError {
    ParseError::new(
        position,
        format!("parentheses or negations nest more than {MAX_DEPTH} deep here"),
        "remove those that change nothing; values of one facet share one list: \
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
    fn reads(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(parse(text).unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("a AND", 5, "search term is missing")]
    #[case("OR a", 0, "operator stands")]
    #[case("a AND OR b", 6, "operator stands")]
    #[case("()", 1, "search term is missing")]
    #[case("a)", 1, "closes nothing")]
    #[case("(a", 0, "never closed")]
    #[case("é (a", 3, "never closed")]
    #[case("@status: error", 8, "value is missing")]
    #[case("@status:", 8, "value is missing")]
    #[case("@status", 0, "without a value")]
    #[case(":x", 0, "name of a facet is missing")]
    #[case("@:x", 0, "name of a facet is missing")]
    #[case("@child.@:x", 0, "name of a facet is missing")]
    #[case("@meta.*:x", 0, "wildcard cannot")]
    #[case("@duration:>fast", 11, "number is needed")]
    #[case("@duration:> 5s", 11, "number is needed")]
    #[case("@x:[1 to 2]", 6, "separated by TO")]
    #[case("@x:[1 TO 2", 3, "never closed")]
    #[case("@x:[1 TO 2)", 10, "ends with `]`")]
    #[case("@x:[a TO b]", 4, "number is needed")]
    #[case("@x:(a or b)", 6, "separated by OR")]
    #[case("@x:(a b)", 6, "separated by OR")]
    #[case("@x:(a OR", 8, "value is missing")]
    #[case("@x IN []", 7, "value is missing")]
    #[case("@x IN [a b]", 9, "separated by commas")]
    #[case("f(x)", 1, "right after a value")]
    #[case("\"a\"b", 3, "right after a value")]
    #[case("5\" screen", 1, "right after a value")]
    #[case("a]", 1, "closes nothing")]
    #[case("[a]", 0, "`[` stands")]
    #[case("IN [1", 3, "`[` stands")]
    #[case("\"abc", 0, "never closed")]
    #[case("abc\\", 3, "backslash at the end")]
    fn refuses(#[case] text: &str, #[case] position: usize, #[case] words: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.position, position, "{error}");
        assert!(error.message.contains(words), "{error}");
    }

    #[test]
    fn the_example_in_every_hint_works() {
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
        let bad = [
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
        for text in bad.map(str::to_owned).into_iter().chain(["(".repeat(99)]) {
            let error = parse(&text).unwrap_err();
            let with_example = examples.iter().any(|example| error.hint.contains(example));
            assert!(with_example, "no example: {error}");
        }
        for example in examples {
            assert!(parse(example).is_ok(), "{example}");
        }
    }

    #[test]
    fn nesting_is_bounded_wherever_it_can_occur() {
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
            assert!(error.message.contains("64 deep"), "{error}");
        }
        // One level of children is all there is; the rest is a name.
        assert!(parse(children).is_ok());
        let flat = vec!["a"; n].join(" OR ");
        assert!(parse(&flat).is_ok());
        let just_right = "-(".repeat(MAX_DEPTH / 2) + "a b" + &")".repeat(MAX_DEPTH / 2);
        let query = parse(&just_right).unwrap();
        assert_eq!(parse(&query.to_string()), Ok(query));
    }
}
