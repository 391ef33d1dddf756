//! What free text is searched in, and what a word is.
//!
//! An index must find exactly what [`super::Query::matches`] finds. So it takes the texts of
//! [`searched_texts`], cuts them with [`tokens`], and looks for what [`FreeText::tokens`] asks: these
//! three, and nothing else, define the search.

use std::borrow::Cow;

use super::json::plain_text;
use super::{FreeText, Wildcard, WildcardElement};
use crate::model::{Io, Span};

/// How many characters of a span's input, and of its output, free text is searched in. Datadog's
/// documented limit.
pub const MAX_SEARCHED_CHARS: usize = 20_500;

/// The texts of a span that free text is searched in: its name, each tag, and the first
/// [`MAX_SEARCHED_CHARS`] of its input and of its output (values, message contents, tool calls and
/// results, document texts). A phrase never reaches from one text into the next.
pub fn searched_texts(span: &Span) -> Vec<Cow<'_, str>> {
    let mut found = vec![Cow::Borrowed(span.name.as_str())];
    found.extend(span.tags.iter().map(|tag| Cow::Borrowed(tag.as_str())));
    for io in [&span.input, &span.output] {
        content_texts(io, &mut found);
    }
    found
}

fn content_texts<'a>(io: &'a Io, found: &mut Vec<Cow<'a, str>>) {
    let mut side = Side {
        left: MAX_SEARCHED_CHARS,
        found,
    };
    if let Some(value) = &io.value {
        side.add_value(value);
    }
    for message in &io.messages {
        side.add(message.text());
        for call in message.tool_calls() {
            side.add(Cow::Borrowed(call.name));
            call.arguments.into_iter().for_each(|v| side.add_value(v));
        }
        for result in message.tool_results() {
            side.add(Cow::Borrowed(result.name));
            result.result.into_iter().for_each(|v| side.add_value(v));
        }
    }
    for document in &io.documents {
        match document.get("text") {
            Some(text) => side.add_value(text),
            None if document.is_string() => side.add_value(document),
            None => {}
        }
    }
}

/// Collects the texts of one side of a span until its characters are used up.
struct Side<'f, 'a> {
    left: usize,
    found: &'f mut Vec<Cow<'a, str>>,
}

impl<'a> Side<'_, 'a> {
    fn add_value(&mut self, value: &'a serde_json::Value) {
        match value {
            serde_json::Value::String(text) => self.add(Cow::Borrowed(text)),
            other => self.add(Cow::Owned(plain_text(other, self.left))),
        }
    }

    fn add(&mut self, text: Cow<'a, str>) {
        if self.left == 0 || text.is_empty() {
            return;
        }
        // No text has more characters than bytes.
        let end = if text.len() <= self.left {
            None
        } else {
            text.char_indices().nth(self.left).map(|(end, _)| end)
        };
        let text = match (end, text) {
            (None, text) => text,
            (Some(end), Cow::Borrowed(text)) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
            (Some(end), Cow::Owned(mut text)) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        };
        self.left -= text.chars().count();
        self.found.push(text);
    }
}

/// Cuts a text into words: runs of letters and digits, in lower case. A character of a script that
/// is written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word by itself, so
/// that a phrase finds it anywhere.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// The words of a text; see [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        match self.cut()? {
            Cut::Ascii(token) if token.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Some(Cow::Owned(token.to_ascii_lowercase()))
            }
            Cut::Ascii(token) => Some(Cow::Borrowed(token)),
            Cut::Other(token) => Some(lower_case(token)),
        }
    }
}

/// A word as it stands in the text.
enum Cut<'a> {
    Ascii(&'a str),
    Other(&'a str),
}

impl<'a> Tokens<'a> {
    /// Puts the next word in the place of a text, which saves making one; whether there was one.
    pub fn next_into(&mut self, word: &mut String) -> bool {
        let Some(cut) = self.cut() else {
            return false;
        };
        word.clear();
        match cut {
            Cut::Ascii(token) => {
                word.push_str(token);
                word.make_ascii_lowercase();
            }
            Cut::Other(token) => word.push_str(&lower_case(token)),
        }
        true
    }

    fn cut(&mut self) -> Option<Cut<'a>> {
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric();
        let bytes = self.rest.as_bytes();
        let start = bytes
            .iter()
            .position(|byte| in_word(byte) || !byte.is_ascii())?;
        self.rest = self.rest.get(start..)?;
        let bytes = self.rest.as_bytes();
        let end = bytes.iter().position(|byte| !in_word(byte));
        let end = end.unwrap_or(bytes.len());
        // Nearly all words of nearly all texts are of ASCII.
        if end > 0 && bytes.get(end).is_none_or(u8::is_ascii) {
            return Some(Cut::Ascii(self.take(end)?));
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
        Some(Cut::Other(self.take(end)?))
    }

    fn take(&mut self, end: usize) -> Option<&'a str> {
        let (token, tail) = self.rest.split_at_checked(end)?;
        self.rest = tail;
        Some(token)
    }
}

/// Lower case character by character, so that a part of a word becomes the part of the result.
fn lower_case(token: &str) -> Cow<'_, str> {
    let is_lower = |c: char| !c.is_ascii_uppercase() && (c.is_ascii() || c.to_lowercase().eq([c]));
    if token.chars().all(is_lower) {
        Cow::Borrowed(token)
    } else {
        Cow::Owned(token.chars().flat_map(char::to_lowercase).collect())
    }
}

/// Whether a character belongs to a script that is written without blanks between words.
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

/// What one token must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPattern {
    /// Exactly this, in lower case.
    Exact(String),
    /// Text with wildcards, in lower case.
    Wildcard(Wildcard),
}

impl TokenPattern {
    /// Whether a token, in lower case, is meant.
    pub fn matches(&self, token: &str) -> bool {
        match self {
            TokenPattern::Exact(text) => text == token,
            TokenPattern::Wildcard(wildcard) => wildcard.matches(token),
        }
    }

    /// What the token must be, if it is one text of ASCII.
    fn as_ascii(&self) -> Option<&str> {
        match self {
            TokenPattern::Exact(text) if text.is_ascii() => Some(text),
            _ => None,
        }
    }
}

impl FreeText {
    /// The tokens to be found, one right after the other, in one text. No token (a search for
    /// punctuation) is found nowhere.
    ///
    /// A word is cut like any text, so `get_user*` asks for `get` followed by a token that starts
    /// with `user`; a wildcard stays within its token.
    pub fn tokens(&self) -> Vec<TokenPattern> {
        match self {
            FreeText::Phrase(phrase) => tokens(phrase)
                .map(|token| TokenPattern::Exact(token.into_owned()))
                .collect(),
            FreeText::Word(word) => word_tokens(word),
        }
    }

    /// Whether the text is found in one of `searched_texts`.
    pub(super) fn found_in(&self, searched_texts: &[Cow<'_, str>]) -> bool {
        let wanted = self.tokens();
        let first = match wanted.as_slice() {
            [] => return false,
            [only] => Some(only),
            _ => None,
        };
        let sought: Vec<&str> = wanted.iter().filter_map(TokenPattern::as_ascii).collect();
        // Passes over most texts without cutting them. Beyond ASCII, other letters may have these
        // as their lower case.
        let may_hold = |segment: &&Cow<'_, str>| {
            if sought.is_empty() || !segment.is_ascii() {
                return true;
            }
            let lower = segment.to_ascii_lowercase();
            sought.iter().all(|token| lower.contains(token))
        };
        searched_texts
            .iter()
            .filter(may_hold)
            .any(|segment| match first {
                Some(only) => tokens(segment).any(|token| only.matches(&token)),
                None => {
                    let tokens: Vec<_> = tokens(segment).collect();
                    tokens.windows(wanted.len()).any(|run| {
                        run.iter()
                            .zip(&wanted)
                            .all(|(token, want)| want.matches(token))
                    })
                }
            })
    }
}

fn word_tokens(word: &Wildcard) -> Vec<TokenPattern> {
    let mut cutter = Cutter::default();
    for element in word.elements() {
        match element {
            WildcardElement::Char(c) if !c.is_alphanumeric() => cutter.cut(),
            WildcardElement::Char(c) if is_unspaced_script(*c) => cutter.add_alone(*c),
            WildcardElement::Char(c) => c
                .to_lowercase()
                .for_each(|lower| cutter.current.push(WildcardElement::Char(lower))),
            // `*` right after a character that is a token by itself asks for nothing more.
            WildcardElement::AnyRun if cutter.after_alone && cutter.current.is_empty() => {}
            WildcardElement::AnyRun | WildcardElement::AnyChar => cutter.current.push(*element),
        }
    }
    cutter.cut();
    cutter.done
}

#[derive(Default)]
struct Cutter {
    done: Vec<TokenPattern>,
    current: Wildcard,
    /// Whether the last character was a token by itself.
    after_alone: bool,
}

impl Cutter {
    fn add_alone(&mut self, c: char) {
        // Likewise `*` right before it.
        if self.current.is_any_text() {
            self.current = Wildcard::default();
        }
        self.cut();
        self.done.push(TokenPattern::Exact(c.to_string()));
        self.after_alone = true;
    }

    fn cut(&mut self) {
        self.after_alone = false;
        let current = std::mem::take(&mut self.current);
        if !current.is_empty() {
            self.done.push(match current.as_literal() {
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

    fn found(query: &str, text: &str) -> bool {
        match parse(query).unwrap().root {
            Expr::Term(Term::Text(free)) => free.found_in(&[Cow::Borrowed(text)]),
            other => panic!("not free text: {other:?}"),
        }
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
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
    fn a_word_is_found_as_tokens_in_a_row(
        #[case] query: &str,
        #[case] text: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(found(query, text), expected);
    }

    #[test]
    fn every_text_of_a_span_is_searched_and_none_runs_into_the_next() {
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
    fn each_side_is_searched_up_to_the_documented_limit() {
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

    /// The definition, character by character.
    fn cut(text: &str) -> Vec<String> {
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
        fn words_are_cut_as_they_are_defined(text in text()) {
            prop_assert_eq!(words(&text), cut(&text));
            let (mut tokens, mut word) = (tokens(&text), String::new());
            let again = std::iter::from_fn(|| tokens.next_into(&mut word).then(|| word.clone()));
            prop_assert_eq!(again.collect::<Vec<_>>(), cut(&text));
        }

        #[test]
        fn a_phrase_is_found_where_its_tokens_stand_in_a_row(phrase in text(), text in text()) {
            let (wanted, there) = (cut(&phrase), cut(&text));
            let found = !wanted.is_empty() && there.windows(wanted.len()).any(|run| run == wanted);
            let phrase = FreeText::Phrase(phrase);
            prop_assert_eq!(phrase.found_in(&[Cow::Borrowed(&text)]), found);
        }

        #[test]
        fn a_text_is_found_in_itself(text in any::<String>()) {
            let phrase = FreeText::Phrase(text.clone());
            let has_words = tokens(&text).next().is_some();
            prop_assert_eq!(phrase.found_in(&[Cow::Borrowed(&text)]), has_words);
        }

        #[test]
        fn a_word_without_wildcards_is_cut_like_a_text(text in any::<String>()) {
            let word = FreeText::Word(text.chars().map(WildcardElement::Char).collect());
            prop_assert_eq!(word.tokens(), FreeText::Phrase(text).tokens());
        }
    }
}
