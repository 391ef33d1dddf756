//! The check that quotes, brackets and escapes of a query are balanced.
//!
//! A caller's text is put in parentheses, unchanged, in front of other filters. If the text could
//! close the parentheses, or left a quote or an escape open, it would disable those filters, and
//! the search would return spans of other applications.

use super::ParseError;
use super::cursor::Cursor;

/// Checks only the quotes, brackets and escapes of a query. If it succeeds, the text cannot affect
/// the filters in `(text) AND filters`. Every text that [`super::parse`] accepts passes.
///
/// # Errors
///
/// The first unbalanced quote or bracket, or a backslash at the end.
pub fn check_balance(text: &str) -> Result<(), ParseError> {
    let mut cursor = Cursor::new(text);
    let mut open: Vec<(usize, char)> = Vec::new();
    while let Some(c) = cursor.peek() {
        let position = cursor.position();
        if c == '"' {
            cursor.quoted()?;
            continue;
        }
        cursor.bump();
        match c {
            '\\' if cursor.bump().is_none() => {
                return Err(ParseError::trailing_backslash(position));
            }
            '(' | '[' => open.push((position, c)),
            ')' | ']' => {
                let opening = if c == ')' { '(' } else { '[' };
                if open.pop().is_none_or(|(_, bracket)| bracket != opening) {
                    return Err(ParseError::unmatched_bracket(position, c));
                }
            }
            _ => {}
        }
    }
    match open.pop() {
        Some((position, bracket)) => Err(ParseError::unclosed_bracket(position, bracket)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_brackets_in_quotes_and_after_escapes() {
        for text in [
            "",
            "(a OR b) @x:[1 TO 2]",
            r#""a ) b""#,
            r"a\)",
            r#""a \" ) b""#,
            r#"\" a"#,
            r"\\",
            "what's up",
        ] {
            assert_eq!(check_balance(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn reports_position_of_unbalanced_character() {
        for (text, position) in [
            ("a) OR (b", 1),
            ("x (a", 2),
            ("x [1 TO 2)", 9),
            (r#"a "b"#, 2),
            (r#"a "b\""#, 2),
            (r#"a "b\"#, 4),
            (r"é a\", 4),
            (r"a\\\", 3),
            ("\"a\" ] b", 4),
        ] {
            assert_eq!(
                check_balance(text).unwrap_err().position,
                position,
                "{text}"
            );
        }
    }

    #[test]
    fn accepts_any_depth() {
        let deep = "(".repeat(100_000) + &")".repeat(100_000);
        assert_eq!(check_balance(&deep), Ok(()));
    }
}
