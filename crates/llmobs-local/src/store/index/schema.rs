//! The fields of a document, and how text is cut.

use std::borrow::Cow;
use std::fmt::Write as _;

use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, NumericOptions, Schema, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};

use llmobs_core::query::text;

/// Version of fields and facts: an index of another one is built anew.
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
pub(super) struct Fields {
    /// The key of the span's row.
    pub(super) id: Field,
    /// Start in nanoseconds since the Unix epoch.
    pub(super) start: Field,
    /// Length in nanoseconds.
    pub(super) duration: Field,
    /// Whether the span's status is error.
    pub(super) failed: Field,
    /// Whether no span encloses it.
    pub(super) root: Field,
    /// The id of its trace.
    pub(super) trace: Field,
    /// Its own id, if it is a call of a model.
    pub(super) call: Field,
    /// The id of its parent, if it is a call of a model and has one.
    pub(super) call_parent: Field,
    /// The exact keys of its facts.
    pub(super) keys: Field,
    /// The words of its texts, with their positions.
    pub(super) words: Field,
    /// The numbers of its facts, a column each.
    pub(super) numbers: Field,
    /// The values to group by, a column each.
    pub(super) groups: Field,
}

/// The schema of the index.
pub(super) fn schema() -> (Schema, Fields) {
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
    let fields = Fields {
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

/// How the fields are cut: keys stay whole, texts are cut as the query language says.
pub(super) fn tokenizers() -> TokenizerManager {
    // The engine also asks for a tokenizer of fields that hold no text: its default ones stay.
    let tokenizers = TokenizerManager::default();
    tokenizers.register(WORDS_TOKENIZER, TextAnalyzer::from(Words));
    tokenizers.register(KEYS_TOKENIZER, TextAnalyzer::from(Keys));
    tokenizers
}

/// The name of a column within a field of columns: dots and control characters mean something to
/// the engine, so they are written as characters that nobody sends.
pub(super) fn column_name(name: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '.' | '\\' | '\0'..='\u{1f}');
    if !name.contains(special) {
        return Cow::Borrowed(name);
    }
    let plain = |c: char| match c {
        c if special(c) => char::from_u32(0xf0000 + u32::from(c)).unwrap_or(c),
        c => c,
    };
    Cow::Owned(name.chars().map(plain).collect())
}

/// Many keys as one text, which is far cheaper than a text each: before every key stands its
/// length, so that a key may hold anything. [`Keys`] cuts it.
pub(super) fn joined<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::with_capacity(4_096);
    for key in keys {
        // Writing to a text does not fail.
        let _ = write!(text, "{}:", key.len());
        text.push_str(key);
    }
    text
}

/// Cuts what [`joined`] has joined.
#[derive(Clone)]
struct Keys;

/// The keys of a joined text.
struct Parted<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Parted<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (length, rest) = self.rest.split_once(':')?;
        let (key, rest) = rest.split_at_checked(length.parse().ok()?)?;
        self.rest = rest;
        Some(key)
    }
}

impl Tokenizer for Keys {
    type TokenStream<'a> = Pieces<Parted<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        Pieces::of(Parted { rest: text })
    }
}

/// Cuts text as [`text::tokens`] does.
#[derive(Clone)]
struct Words;

impl Tokenizer for Words {
    type TokenStream<'a> = Pieces<text::Tokens<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        Pieces::of(text::tokens(text))
    }
}

/// What cuts a text, piece by piece.
trait Pieced {
    /// Puts the next piece in the place of a text; whether there was one.
    fn next_into(&mut self, piece: &mut String) -> bool;
}

impl Pieced for Parted<'_> {
    fn next_into(&mut self, piece: &mut String) -> bool {
        let next = self.next();
        if let Some(key) = next {
            piece.clear();
            piece.push_str(key);
        }
        next.is_some()
    }
}

impl Pieced for text::Tokens<'_> {
    fn next_into(&mut self, piece: &mut String) -> bool {
        text::Tokens::next_into(self, piece)
    }
}

/// The pieces of a text as the engine reads them, at a position each.
struct Pieces<C> {
    cutter: C,
    token: Token,
}

impl<C> Pieces<C> {
    fn of(cutter: C) -> Self {
        Self {
            cutter,
            token: Token::default(),
        }
    }
}

impl<C: Pieced> TokenStream for Pieces<C> {
    fn advance(&mut self) -> bool {
        // That of the default token is the largest number.
        self.token.position = self.token.position.wrapping_add(1);
        self.cutter.next_into(&mut self.token.text)
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
        fn joined_keys_are_cut_as_they_were(keys in proptest::collection::vec(any::<String>(), 0..8)) {
            let text = joined(keys.iter().map(String::as_str));
            let mut cut = Vec::new();
            let mut stream = Keys;
            let mut stream = stream.token_stream(&text);
            while stream.advance() {
                cut.push(stream.token().text.clone());
            }
            prop_assert_eq!(cut, keys);
        }

        #[test]
        fn column_names_mean_nothing_to_the_engine(name in "[a-c.\\\\\u{1}é]{0,8}", other in "[a-c.\\\\\u{1}é]{0,8}") {
            let column = column_name(&name);
            let is_plain = !column.contains(['.', '\\', '\u{1}']);
            prop_assert!(is_plain);
            prop_assert_eq!(column == column_name(&other), name == other);
        }
    }
}
