//! A place in a query's text, and the smallest things that can be read from it.

use super::{ParseError, Wildcard, WildcardElement};

/// Reads a text from left to right, by characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

/// An unquoted word.
pub(super) struct Word<'a> {
    /// As written, escapes included: an operator or sigil counts only when it was not escaped.
    pub(super) raw: &'a str,
    /// What it means.
    pub(super) pattern: Wildcard,
    /// Where it starts, in bytes.
    pub(super) start: usize,
}

/// Characters that end a word wherever it stands.
pub(super) fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '"')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// In bytes from the start; always at the start of a character or at the end.
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

    /// Takes `text` if it comes next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.position += text.len();
        }
        found
    }

    pub(super) fn skip_blanks(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    /// Whether the operator `name` comes next: upper-case, and a whole word.
    pub(super) fn at_operator(&self, name: &str) -> bool {
        let after = self.rest().strip_prefix(name);
        after.is_some_and(|after| after.chars().next().is_none_or(ends_word))
    }

    pub(super) fn eat_operator(&mut self, name: &str) -> bool {
        self.at_operator(name) && self.eat(name)
    }

    /// Reads a word up to a blank, a bracket, a quote or one of `stops`; it may be empty.
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

    /// Reads a quoted text; the opening quote comes next.
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

    /// The character after a backslash that was just read.
    fn escaped(&mut self) -> Result<char, ParseError> {
        let backslash = self.position.saturating_sub(1);
        self.bump()
            .ok_or_else(|| ParseError::dangling_backslash(backslash))
    }
}
