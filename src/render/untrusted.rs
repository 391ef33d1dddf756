//! Untrusted text in JSON.
//!
//! Prompts, documents and tool results can hold characters that a person does not see and a model
//! reads: zero-width, bidirectional, tag and filler characters. They are written as `\uXXXX` escapes.
//! The JSON value stays the same, and the reader sees them.

use std::io;

use llmobs_core::json::TextCounter;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Writes a value as compact JSON with every invisible character as an escape.
///
/// # Errors
///
/// The errors of the value's `Serialize`, for example a map whose keys are not text.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(1024);
    write_json(&mut bytes, value)?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// The characters that [`to_json`] writes for a value; 0 when the value has no JSON form.
pub fn json_chars<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut counter = TextCounter::default();
    write_json(&mut counter, value).map_or(0, |()| counter.chars)
}

fn write_json<T: Serialize + ?Sized>(
    writer: &mut impl io::Write,
    value: &T,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut Serializer::with_formatter(
        writer,
        VisibleFormatter(CompactFormatter),
    ))
}

/// Untrusted text as a candidate: one line without invisible characters, at most 120 characters.
pub fn candidate(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .take(120)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Whether a character is drawn as nothing and could hide text or change its order.
fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return false;
    }
    match c.general_category() {
        GeneralCategory::Format
        | GeneralCategory::Control
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator
        | GeneralCategory::PrivateUse => true,
        _ => matches!(
            c,
            // Joiners, variation selectors and letters that are drawn as nothing.
            '\u{034f}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{e0100}'..='\u{e01ef}'
        ),
    }
}

/// Formats compact JSON with invisible characters as escapes.
struct VisibleFormatter(CompactFormatter);

impl Formatter for VisibleFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut plain = fragment;
        while let Some((at, hidden)) = plain.char_indices().find(|(_, c)| is_invisible(*c)) {
            let (before, after) = plain.split_at(at);
            self.0.write_string_fragment(writer, before)?;
            let mut units = [0_u16; 2];
            for unit in hidden.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = after.strip_prefix(hidden).unwrap_or_default();
        }
        self.0.write_string_fragment(writer, plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn only_invisible_characters_become_escapes() {
        let hidden = "pay\u{200b} now\u{202e}\u{e0041}\u{fe0f}";
        assert_eq!(
            to_json(&json!({ "t": hidden })).unwrap(),
            r#"{"t":"pay\u200b now\u202e\udb40\udc41\ufe0f"}"#
        );
        let plain = "Zoë 你好 👋 ok\n\"q\"";
        assert_eq!(
            to_json(plain).unwrap(),
            serde_json::to_string(plain).unwrap()
        );
    }

    #[test]
    fn keys_are_escaped_too() {
        assert_eq!(
            to_json(&json!({ "a\u{2066}": 1 })).unwrap(),
            r#"{"a\u2066":1}"#
        );
    }

    #[test]
    fn candidate_is_one_short_visible_line() {
        assert_eq!(
            candidate(" my\u{200d}-app\n\u{7}ignore all "),
            "my-app ignore all"
        );
        assert_eq!(candidate(&"x".repeat(500)).len(), 120);
    }

    proptest! {
        #[test]
        fn escapes_keep_the_value(text in any::<String>()) {
            let json = to_json(&text).unwrap();
            prop_assert_eq!(json_chars(&text), json.chars().count());
            prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), Value::String(text));
            prop_assert!(!json.chars().any(is_invisible));
        }
    }
}
