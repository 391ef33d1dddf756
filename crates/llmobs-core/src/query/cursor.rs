//! A cursor over a query's text, and the lexical elements that it reads.

use super::{ParseError, Wildcard, WildcardElement};

/// A position in a text, which moves forward by characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

/// An unquoted word.
pub(super) struct Word<'a> {
    /// The source text with its escapes: an operator or a sigil counts only if not escaped.
    pub(super) raw: &'a str,
    /// The text without escapes, as a pattern.
    pub(super) pattern: Wildcard,
    /// The byte offset of its first character.
    pub(super) start: usize,
}

/// Whether a character ends an unquoted word in any context.
pub(super) fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '"')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// The byte offset; always on a character boundary.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    /// Consumes `text` if it comes next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let matches = self.rest().starts_with(text);
        if matches {
            self.position += text.len();
        }
        matches
    }

    pub(super) fn skip_whitespace(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    /// Whether the operator `name` comes next, in upper case and as a complete word.
    pub(super) fn at_operator(&self, name: &str) -> bool {
        let after = self.rest().strip_prefix(name);
        after.is_some_and(|after| after.chars().next().is_none_or(ends_word))
    }

    pub(super) fn eat_operator(&mut self, name: &str) -> bool {
        self.at_operator(name) && self.eat(name)
    }

    /// Reads a word up to whitespace, a bracket, a quote or one of `stops`. It may be empty.
    pub(super) fn word(&mut self, stops: &[char]) -> Result<Word<'a>, ParseError> {
        let start = self.position;
        let mut pattern = Wildcard::default();
        while let Some(c) = self.peek() {
            if ends_word(c) || stops.contains(&c) {
                break;
            }
            self.bump();
            pattern.push(match c {
                '*' => WildcardElement::AnyRun,
                '?' => WildcardElement::AnyChar,
                '\\' => WildcardElement::Char(self.escaped()?),
                c => WildcardElement::Char(c),
            });
        }
        let raw = self.text.get(start..self.position).unwrap_or_default();
        Ok(Word {
            raw,
            pattern,
            start,
        })
    }

    /// Reads a quoted text. The cursor is at the opening quote.
    pub(super) fn quoted(&mut self) -> Result<String, ParseError> {
        let start = self.position;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(c) => text.push(c),
                None => return Err(ParseError::unclosed_quote(start)),
            }
        }
    }

    /// Reads the character after a backslash. The cursor is just after the backslash.
    fn escaped(&mut self) -> Result<char, ParseError> {
        let backslash = self.position.saturating_sub(1);
        self.bump()
            .ok_or_else(|| ParseError::trailing_backslash(backslash))
    }
}
