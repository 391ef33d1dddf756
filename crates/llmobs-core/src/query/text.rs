//! Free-text search: which texts are searched, and how they are split into tokens.
//!
//! An index must find exactly the spans that [`super::Query::matches`] finds. Three functions
//! define the search, and every index uses them: [`searched_texts`] returns the texts of a span,
//! [`tokens`] splits a text, and [`FreeText::tokens`] returns the tokens to find.

use std::borrow::Cow;

use super::json::plain_text;
use super::{FreeText, Wildcard, WildcardElement};
use crate::model::{Io, Span};

/// Searched characters of a span's input, and of its output: Datadog's documented limit.
pub const MAX_SEARCHED_CHARS: usize = 20_500;

/// The texts of a span that free text searches: its name, each tag, and the first
/// [`MAX_SEARCHED_CHARS`] of its input and of its output (values, message contents, tool calls and
/// results, document texts). A phrase never spans two texts.
pub fn searched_texts(span: &Span) -> Vec<Cow<'_, str>> {
    let mut texts = vec![Cow::Borrowed(span.name.as_str())];
    texts.extend(span.tags.iter().map(|tag| Cow::Borrowed(tag.as_str())));
    for io in [&span.input, &span.output] {
        content_texts(io, &mut texts);
    }
    texts
}

fn content_texts<'a>(io: &'a Io, texts: &mut Vec<Cow<'a, str>>) {
    let mut collector = TextCollector {
        remaining_chars: MAX_SEARCHED_CHARS,
        texts,
    };
    if let Some(value) = &io.value {
        collector.add_value(value);
    }
    for message in &io.messages {
        collector.add(message.text());
        for call in message.tool_calls() {
            collector.add(Cow::Borrowed(call.name));
            call.arguments
                .into_iter()
                .for_each(|v| collector.add_value(v));
        }
        for result in message.tool_results() {
            collector.add(Cow::Borrowed(result.name));
            result
                .result
                .into_iter()
                .for_each(|v| collector.add_value(v));
        }
    }
    for document in &io.documents {
        match document.get("text") {
            Some(text) => collector.add_value(text),
            None if document.is_string() => collector.add_value(document),
            None => {}
        }
    }
}

/// Collects the texts of an input or output, up to a number of characters.
struct TextCollector<'f, 'a> {
    remaining_chars: usize,
    texts: &'f mut Vec<Cow<'a, str>>,
}

impl<'a> TextCollector<'_, 'a> {
    fn add_value(&mut self, value: &'a serde_json::Value) {
        match value {
            serde_json::Value::String(text) => self.add(Cow::Borrowed(text)),
            other => self.add(Cow::Owned(plain_text(other, self.remaining_chars))),
        }
    }

    fn add(&mut self, text: Cow<'a, str>) {
        if self.remaining_chars == 0 || text.is_empty() {
            return;
        }
        // A text never has more characters than bytes.
        let end = if text.len() <= self.remaining_chars {
            None
        } else {
            text.char_indices()
                .nth(self.remaining_chars)
                .map(|(end, _)| end)
        };
        let text = match (end, text) {
            (None, text) => text,
            (Some(end), Cow::Borrowed(text)) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
            (Some(end), Cow::Owned(mut text)) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        };
        self.remaining_chars -= text.chars().count();
        self.texts.push(text);
    }
}

/// Splits a text into tokens: runs of letters and digits, in lower case. Each character of a
/// script that is written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a token,
/// so that a phrase finds any run of such characters.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// The tokens of a text; see [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        match self.next_slice()? {
            TokenSlice::Ascii(token) if token.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Some(Cow::Owned(token.to_ascii_lowercase()))
            }
            TokenSlice::Ascii(token) => Some(Cow::Borrowed(token)),
            TokenSlice::Unicode(token) => Some(lower_case(token)),
        }
    }
}

/// A token before its conversion to lower case.
enum TokenSlice<'a> {
    Ascii(&'a str),
    Unicode(&'a str),
}

impl<'a> Tokens<'a> {
    /// Writes the next token to `token`, which reuses its allocation. Returns false at the end.
    pub fn next_into(&mut self, token: &mut String) -> bool {
        let Some(slice) = self.next_slice() else {
            return false;
        };
        token.clear();
        match slice {
            TokenSlice::Ascii(text) => {
                token.push_str(text);
                token.make_ascii_lowercase();
            }
            TokenSlice::Unicode(text) => token.push_str(&lower_case(text)),
        }
        true
    }

    fn next_slice(&mut self) -> Option<TokenSlice<'a>> {
        let in_token = |byte: &u8| byte.is_ascii_alphanumeric();
        let bytes = self.rest.as_bytes();
        let start = bytes
            .iter()
            .position(|byte| in_token(byte) || !byte.is_ascii())?;
        self.rest = self.rest.get(start..)?;
        let bytes = self.rest.as_bytes();
        let end = bytes.iter().position(|byte| !in_token(byte));
        let end = end.unwrap_or(bytes.len());
        // Fast path: most tokens are ASCII.
        if end > 0 && bytes.get(end).is_none_or(u8::is_ascii) {
            return Some(TokenSlice::Ascii(self.split_off(end)?));
        }
        self.rest = self.rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let first = self.rest.chars().next()?;
        let end = if is_unspaced_script(first) {
            first.len_utf8()
        } else {
            self.rest
                .find(|c: char| !c.is_alphanumeric() || is_unspaced_script(c))
                .unwrap_or(self.rest.len())
        };
        Some(TokenSlice::Unicode(self.split_off(end)?))
    }

    /// Removes and returns the first `end` bytes.
    fn split_off(&mut self, end: usize) -> Option<&'a str> {
        let (token, tail) = self.rest.split_at_checked(end)?;
        self.rest = tail;
        Some(token)
    }
}

/// Converts each character separately, so that the lower case of a substring is a substring of
/// the result.
fn lower_case(token: &str) -> Cow<'_, str> {
    let is_lower = |c: char| !c.is_ascii_uppercase() && (c.is_ascii() || c.to_lowercase().eq([c]));
    if token.chars().all(is_lower) {
        Cow::Borrowed(token)
    } else {
        Cow::Owned(token.chars().flat_map(char::to_lowercase).collect())
    }
}

/// Whether a character belongs to a script that is written without spaces between words.
fn is_unspaced_script(c: char) -> bool {
    matches!(
        c,
        '\u{e00}'..='\u{eff}'           // Thai, Lao
            | '\u{1000}'..='\u{109f}'   // Burmese
            | '\u{1780}'..='\u{17ff}'   // Khmer
            | '\u{3040}'..='\u{30ff}'   // Hiragana, Katakana
            | '\u{31f0}'..='\u{31ff}'   // Katakana extensions
            | '\u{3400}'..='\u{4dbf}'   // Chinese characters, extension A
            | '\u{4e00}'..='\u{9fff}'   // Chinese characters
            | '\u{f900}'..='\u{faff}'   // Chinese characters, compatibility
            | '\u{ff66}'..='\u{ff9f}'   // Katakana, half width
            | '\u{20000}'..='\u{3ffff}' // Chinese characters, further extensions
    )
}

/// A pattern for one token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPattern {
    /// Exactly this text, in lower case.
    Exact(String),
    /// Text with wildcards, in lower case.
    Wildcard(Wildcard),
}

impl TokenPattern {
    /// Whether a token in lower case matches.
    pub fn matches(&self, token: &str) -> bool {
        match self {
            TokenPattern::Exact(text) => text == token,
            TokenPattern::Wildcard(wildcard) => wildcard.matches(token),
        }
    }

    /// The exact text, if it is ASCII.
    fn exact_ascii(&self) -> Option<&str> {
        match self {
            TokenPattern::Exact(text) if text.is_ascii() => Some(text),
            _ => None,
        }
    }
}

impl FreeText {
    /// The tokens to find consecutively in one text. Without tokens (a search for punctuation) the
    /// search matches nothing.
    ///
    /// A word is split like any text: `get_user*` means `get` followed by a token that starts with
    /// `user`. A wildcard matches within one token.
    pub fn tokens(&self) -> Vec<TokenPattern> {
        match self {
            FreeText::Phrase(phrase) => tokens(phrase)
                .map(|token| TokenPattern::Exact(token.into_owned()))
                .collect(),
            FreeText::Word(word) => word_tokens(word),
        }
    }

    /// Whether one of the texts contains the tokens.
    pub(super) fn found_in(&self, texts: &[Cow<'_, str>]) -> bool {
        let patterns = self.tokens();
        let single = match patterns.as_slice() {
            [] => return false,
            [only] => Some(only),
            _ => None,
        };
        let exact: Vec<&str> = patterns
            .iter()
            .filter_map(TokenPattern::exact_ascii)
            .collect();
        // Skips most texts without splitting them. A non-ASCII letter can have an ASCII lower case,
        // so only ASCII texts can be skipped.
        let may_match = |text: &&Cow<'_, str>| {
            if exact.is_empty() || !text.is_ascii() {
                return true;
            }
            let lower = text.to_ascii_lowercase();
            exact.iter().all(|token| lower.contains(token))
        };
        texts.iter().filter(may_match).any(|text| match single {
            Some(pattern) => tokens(text).any(|token| pattern.matches(&token)),
            None => {
                let tokens: Vec<_> = tokens(text).collect();
                tokens.windows(patterns.len()).any(|run| {
                    run.iter()
                        .zip(&patterns)
                        .all(|(token, pattern)| pattern.matches(token))
                })
            }
        })
    }
}

fn word_tokens(word: &Wildcard) -> Vec<TokenPattern> {
    let mut builder = PatternBuilder::default();
    for element in word.elements() {
        match element {
            WildcardElement::Char(c) if !c.is_alphanumeric() => builder.end_token(),
            WildcardElement::Char(c) if is_unspaced_script(*c) => builder.push_character_token(*c),
            WildcardElement::Char(c) => c
                .to_lowercase()
                .for_each(|lower| builder.current.push(WildcardElement::Char(lower))),
            // A `*` directly after a one-character token adds no condition.
            WildcardElement::AnyRun
                if builder.after_character_token && builder.current.is_empty() => {}
            WildcardElement::AnyRun | WildcardElement::AnyChar => builder.current.push(*element),
        }
    }
    builder.end_token();
    builder.patterns
}

/// Builds token patterns from the elements of a word.
#[derive(Default)]
struct PatternBuilder {
    patterns: Vec<TokenPattern>,
    /// The token being built.
    current: Wildcard,
    /// Whether the last element was a one-character token of a script without spaces.
    after_character_token: bool,
}

impl PatternBuilder {
    fn push_character_token(&mut self, c: char) {
        // A `*` directly before a one-character token adds no condition either.
        if self.current.is_any_text() {
            self.current = Wildcard::default();
        }
        self.end_token();
        self.patterns.push(TokenPattern::Exact(c.to_string()));
        self.after_character_token = true;
    }

    fn end_token(&mut self) {
        self.after_character_token = false;
        let current = std::mem::take(&mut self.current);
        if !current.is_empty() {
            self.patterns.push(match current.as_literal() {
                Some(text) => TokenPattern::Exact(text),
                None => TokenPattern::Wildcard(current),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;
    use crate::query::{Expr, Term, parse};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn words(text: &str) -> Vec<String> {
        tokens(text).map(Cow::into_owned).collect()
    }

    fn finds(query: &str, text: &str) -> bool {
        match parse(query).unwrap().root {
            Expr::Term(Term::Text(free)) => free.found_in(&[Cow::Borrowed(text)]),
            other => panic!("not free text: {other:?}"),
        }
    }

    #[test]
    fn splits_text_into_lower_case_tokens() {
        assert_eq!(
            words("What's UP, get_user(42)?"),
            ["what", "s", "up", "get", "user", "42"]
        );
        assert_eq!(words("GPT-4o"), ["gpt", "4o"]);
        assert_eq!(words("Ünï ÉCOLE"), ["ünï", "école"]);
        assert_eq!(words("退款abc 한국어"), ["退", "款", "abc", "한국어"]);
        assert_eq!(words("--- ..."), Vec::<String>::new());
    }

    #[rstest]
    #[case("refund", "Please REFUND me", true)]
    #[case("Refund", "refunds", false)]
    #[case("refund*", "refunds", true)]
    #[case("*fund", "a refund", true)]
    #[case("re?und", "refund", true)]
    #[case("\"please refund\"", "Please, refund me", true)]
    #[case("\"refund please\"", "Please, refund me", false)]
    #[case("\"re*\"", "refund", false)]
    #[case("get_user*", "called get_users(1)", true)]
    #[case("get_user*", "get the user", false)]
    #[case("what's", "What's up", true)]
    #[case("gpt-4*", "model gpt-4o", true)]
    #[case("...", "a...b", false)]
    #[case("退款", "我要退款吗", true)]
    #[case("退款*", "我要退款吗", true)]
    #[case("*退款", "我要退款", true)]
    #[case("款退", "我要退款吗", false)]
    #[case("退?吗", "我要退款吗", true)]
    fn finds_words_as_consecutive_tokens(
        #[case] query: &str,
        #[case] text: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(finds(query, text), expected);
    }

    #[test]
    fn searched_texts_cover_the_whole_span() {
        let span = Span {
            name: "answer".into(),
            tags: vec!["env:prod".into()],
            input: Io {
                messages: vec![Message(json!({
                    "role": "assistant",
                    "content": "let me look",
                    "tool_calls": [{"name": "get_order", "arguments": {"city": "A\nB"}}],
                    "tool_results": [{"name": "get_order", "result": "shipped"}],
                }))],
                ..Io::default()
            },
            output: Io {
                value: Some(json!({"note": ["done", 7]})),
                documents: vec![json!({"text": "policy", "name": "unsearched"})],
                ..Io::default()
            },
            ..Span::default()
        };
        assert_eq!(
            searched_texts(&span),
            [
                "answer",
                "env:prod",
                "let me look",
                "get_order",
                "city A\nB",
                "get_order",
                "shipped",
                "note done 7",
                "policy"
            ]
        );
    }

    #[test]
    fn input_and_output_are_each_searched_up_to_the_limit() {
        let long = "é".repeat(MAX_SEARCHED_CHARS - 4);
        let io = Io {
            value: Some(json!(long)),
            messages: vec![
                Message(json!({"content": "abcdefgh"})),
                Message(json!({"content": "x"})),
            ],
            ..Io::default()
        };
        let span = Span {
            input: io.clone(),
            output: io,
            ..Span::default()
        };
        let searched_texts = searched_texts(&span);
        assert_eq!(
            searched_texts,
            ["", long.as_str(), "abcd", long.as_str(), "abcd"]
        );
    }

    /// The definition of tokens, character by character.
    fn tokens_by_definition(text: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for c in text.chars() {
            if is_unspaced_script(c) && c.is_alphanumeric() {
                words.extend([c.to_lowercase().collect(), String::new()]);
            } else if c.is_alphanumeric() {
                words.last_mut().unwrap().extend(c.to_lowercase());
            } else {
                words.push(String::new());
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    fn text() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            "a", "B", "refund", "REFUND", "7", " ", "_", "é", "É", "K", "İ", "退", "한", "—",
            "x退y",
        ]);
        let pieces = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        prop_oneof![pieces, any::<String>()]
    }

    proptest! {
        #[test]
        fn tokens_agree_with_the_definition(text in text()) {
            prop_assert_eq!(words(&text), tokens_by_definition(&text));
            let (mut tokens, mut token) = (tokens(&text), String::new());
            let reused = std::iter::from_fn(|| tokens.next_into(&mut token).then(|| token.clone()));
            prop_assert_eq!(reused.collect::<Vec<_>>(), tokens_by_definition(&text));
        }

        #[test]
        fn finds_phrase_where_its_tokens_are_consecutive(phrase in text(), text in text()) {
            let (words, all) = (tokens_by_definition(&phrase), tokens_by_definition(&text));
            let found = !words.is_empty() && all.windows(words.len()).any(|run| run == words);
            let phrase = FreeText::Phrase(phrase);
            prop_assert_eq!(phrase.found_in(&[Cow::Borrowed(&text)]), found);
        }

        #[test]
        fn finds_every_text_in_itself(text in any::<String>()) {
            let phrase = FreeText::Phrase(text.clone());
            let has_words = tokens(&text).next().is_some();
            prop_assert_eq!(phrase.found_in(&[Cow::Borrowed(&text)]), has_words);
        }

        #[test]
        fn splits_word_without_wildcards_like_a_text(text in any::<String>()) {
            let word = FreeText::Word(text.chars().map(WildcardElement::Char).collect());
            prop_assert_eq!(word.tokens(), FreeText::Phrase(text).tokens());
        }
    }
}
