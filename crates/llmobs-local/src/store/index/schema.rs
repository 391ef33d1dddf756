//! The fields of a document, and their tokenizers.

use std::borrow::Cow;
use std::fmt::Write as _;

use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, NumericOptions, Schema, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};

use llmobs_core::query::text;

/// Version of the fields and their content. An index of another version is rebuilt.
pub(super) const VERSION: u32 = 3;

pub(super) const START: &str = "start";
pub(super) const ID: &str = "id";
pub(super) const DURATION: &str = "duration";
pub(super) const FAILED: &str = "failed";
pub(super) const ROOT: &str = "root";
pub(super) const TRACE: &str = "trace";
pub(super) const CALL: &str = "call";
pub(super) const CALL_PARENT: &str = "call_parent";
pub(super) const NUMBERS: &str = "numbers";
pub(super) const GROUPS: &str = "groups";

const WORDS_TOKENIZER: &str = "llmobs_words";
const KEYS_TOKENIZER: &str = "llmobs_keys";
const RAW_TOKENIZER: &str = "raw";

/// The fields of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexFields {
    /// The key of the span's row.
    pub(super) id: Field,
    /// Start in nanoseconds since the Unix epoch.
    pub(super) start: Field,
    /// Duration in nanoseconds.
    pub(super) duration: Field,
    /// Whether the span's status is error.
    pub(super) failed: Field,
    /// Whether the span is a root span.
    pub(super) root: Field,
    /// The trace id.
    pub(super) trace: Field,
    /// The span id, if the span is a model call.
    pub(super) call: Field,
    /// The parent id, if the span is a model call and has a parent.
    pub(super) call_parent: Field,
    /// The exact keys, see `query::index`.
    pub(super) keys: Field,
    /// The words of the texts, with positions.
    pub(super) words: Field,
    /// The numbers, one column each.
    pub(super) numbers: Field,
    /// The values to group by, one column each.
    pub(super) groups: Field,
}

/// The schema of the index.
pub(super) fn schema() -> (Schema, IndexFields) {
    let mut builder = Schema::builder();
    let column = NumericOptions::default().set_fast();
    let text = |tokenizer: &str, option| {
        TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer(tokenizer)
                .set_index_option(option)
                .set_fieldnorms(false),
        )
    };
    let id = TextOptions::default().set_fast(RAW_TOKENIZER);
    let columns = JsonObjectOptions::default().set_fast(RAW_TOKENIZER);
    let fields = IndexFields {
        id: builder.add_i64_field(ID, column.clone().set_indexed()),
        start: builder.add_i64_field(START, column.clone()),
        duration: builder.add_i64_field(DURATION, column.clone()),
        failed: builder.add_bool_field(FAILED, column.clone()),
        root: builder.add_bool_field(ROOT, column),
        trace: builder.add_text_field(TRACE, id.clone()),
        call: builder.add_text_field(CALL, id.clone()),
        call_parent: builder.add_text_field(CALL_PARENT, id),
        keys: builder.add_text_field("keys", text(KEYS_TOKENIZER, IndexRecordOption::Basic)),
        words: builder.add_text_field(
            "words",
            text(WORDS_TOKENIZER, IndexRecordOption::WithFreqsAndPositions),
        ),
        numbers: builder.add_json_field(NUMBERS, columns.clone()),
        groups: builder.add_json_field(GROUPS, columns),
    };
    (builder.build(), fields)
}

/// The tokenizers of the fields: keys stay unchanged, texts are split as the query language defines.
pub(super) fn tokenizers() -> TokenizerManager {
    // tantivy also needs tokenizers for fields without text, so its defaults stay registered.
    let tokenizers = TokenizerManager::default();
    tokenizers.register(WORDS_TOKENIZER, TextAnalyzer::from(WordTokenizer));
    tokenizers.register(KEYS_TOKENIZER, TextAnalyzer::from(KeyTokenizer));
    tokenizers
}

/// The name of a column in a field of columns. Dots and control characters have a meaning for
/// tantivy, so they are replaced by private-use characters.
pub(super) fn column_name(name: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '.' | '\\' | '\0'..='\u{1f}');
    if !name.contains(special) {
        return Cow::Borrowed(name);
    }
    let escape = |c: char| match c {
        c if special(c) => char::from_u32(0xf0000 + u32::from(c)).unwrap_or(c),
        c => c,
    };
    Cow::Owned(name.chars().map(escape).collect())
}

/// Joins keys to one text, which is far cheaper than one text per key. Each key is prefixed with its
/// length, so it may contain any character. [`KeyTokenizer`] splits the text.
pub(super) fn join_keys<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::with_capacity(4_096);
    for key in keys {
        // Writing to a string does not fail.
        let _ = write!(text, "{}:", key.len());
        text.push_str(key);
    }
    text
}

/// Splits texts of [`join_keys`].
#[derive(Clone)]
struct KeyTokenizer;

/// Iterates over joined keys.
struct JoinedKeys<'a> {
    rest: &'a str,
}

impl<'a> Iterator for JoinedKeys<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (length, rest) = self.rest.split_once(':')?;
        let (key, rest) = rest.split_at_checked(length.parse().ok()?)?;
        self.rest = rest;
        Some(key)
    }
}

impl Tokenizer for KeyTokenizer {
    type TokenStream<'a> = SourceTokenStream<JoinedKeys<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        SourceTokenStream::new(JoinedKeys { rest: text })
    }
}

/// Splits text as [`text::tokens`] does.
#[derive(Clone)]
struct WordTokenizer;

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = SourceTokenStream<text::Tokens<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        SourceTokenStream::new(text::tokens(text))
    }
}

/// Yields the tokens of a text.
trait TokenSource {
    /// Replaces `token` with the next token. `false` at the end.
    fn next_into(&mut self, token: &mut String) -> bool;
}

impl TokenSource for JoinedKeys<'_> {
    fn next_into(&mut self, token: &mut String) -> bool {
        let next = self.next();
        if let Some(key) = next {
            token.clear();
            token.push_str(key);
        }
        next.is_some()
    }
}

impl TokenSource for text::Tokens<'_> {
    fn next_into(&mut self, token: &mut String) -> bool {
        text::Tokens::next_into(self, token)
    }
}

/// The tokens of a source with their positions, in the form that tantivy reads.
struct SourceTokenStream<S> {
    source: S,
    token: Token,
}

impl<S> SourceTokenStream<S> {
    fn new(source: S) -> Self {
        Self {
            source,
            token: Token::default(),
        }
    }
}

impl<S: TokenSource> TokenStream for SourceTokenStream<S> {
    fn advance(&mut self) -> bool {
        // The position of the default token is the largest number.
        self.token.position = self.token.position.wrapping_add(1);
        self.source.next_into(&mut self.token.text)
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_keys_split_to_the_same_keys(keys in proptest::collection::vec(any::<String>(), 0..8)) {
            let text = join_keys(keys.iter().map(String::as_str));
            let mut split = Vec::new();
            let mut tokenizer = KeyTokenizer;
            let mut stream = tokenizer.token_stream(&text);
            while stream.advance() {
                split.push(stream.token().text.clone());
            }
            prop_assert_eq!(split, keys);
        }

        #[test]
        fn column_names_contain_no_special_characters(name in "[a-c.\\\\\u{1}é]{0,8}", other in "[a-c.\\\\\u{1}é]{0,8}") {
            let column = column_name(&name);
            let is_escaped = !column.contains(['.', '\\', '\u{1}']);
            prop_assert!(is_escaped);
            prop_assert_eq!(column == column_name(&other), name == other);
        }
    }
}
