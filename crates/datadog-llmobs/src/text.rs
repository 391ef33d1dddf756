//! Text that others wrote, made fit to stand in a message: one line, no invisible characters,
//! bounded.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Removes what could disturb a terminal or hide from a reader: control and format characters
/// (bidirectional overrides, zero-width ones) become a space or nothing, runs of space shrink.
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

/// At most `bytes` bytes of a text, whole characters, with an ellipsis if some are gone.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}…", head(text, bytes))
}

/// Cleaned and cut.
pub(crate) fn excerpt(text: &str, bytes: usize) -> String {
    // Cut first at a generous multiple, so that a huge text is not cleaned whole.
    cut(&clean(head(text, bytes.saturating_mul(8))), bytes)
}

/// The longest start of a text that has at most `bytes` bytes.
fn head(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_invisible_characters_go_and_lines_become_one() {
        assert_eq!(
            clean("a\u{1b}[31m\r\n\tb\u{202e}c\u{200b}d \0"),
            "a [31m bcd"
        );
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        assert_eq!(cut("ééé", 3), "é…");
        assert_eq!(excerpt("  abc  ", 10), "abc");
    }
}
