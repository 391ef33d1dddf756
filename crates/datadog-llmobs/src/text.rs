//! Untrusted text for messages: one line, without invisible characters, of bounded length.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Replaces control characters and runs of white space by one space, and removes format characters
/// (bidirectional overrides, zero-width characters).
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() || c.general_category() == GeneralCategory::Control {
            if !cleaned.is_empty() && !cleaned.ends_with(' ') {
                cleaned.push(' ');
            }
        } else if !matches!(
            c.general_category(),
            GeneralCategory::Format | GeneralCategory::Surrogate | GeneralCategory::PrivateUse
        ) {
            cleaned.push(c);
        }
    }
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

/// Truncates a text to `max_bytes` bytes at a character boundary and marks the cut by an ellipsis.
pub(crate) fn truncate(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    format!("{}…", prefix(text, max_bytes))
}

/// Cleans and truncates a text.
pub(crate) fn excerpt(text: &str, max_bytes: usize) -> String {
    // Bounds the work on a huge text: cleaning rarely shortens a text to an eighth.
    truncate(&clean(prefix(text, max_bytes.saturating_mul(8))), max_bytes)
}

/// The longest prefix of at most `max_bytes` bytes that ends at a character boundary.
fn prefix(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_removes_invisible_characters_and_line_breaks() {
        assert_eq!(
            clean("a\u{1b}[31m\r\n\tb\u{202e}c\u{200b}d \0"),
            "a [31m bcd"
        );
    }

    #[test]
    fn truncates_at_character_boundary() {
        assert_eq!(truncate("ééé", 3), "é…");
        assert_eq!(excerpt("  abc  ", 10), "abc");
    }
}
