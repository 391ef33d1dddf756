//! Whether quotes and brackets are balanced: the one thing that must hold before a text is sent.
//!
//! A text goes into a larger query verbatim, in parentheses. If it could close them, or leave a
//! quote or an escape open, it would swallow or loosen the filters after it, and another
//! application's spans would come back.

use super::ParseError;
use super::cursor::Cursor;

/// Checks quotes, brackets and escapes of a query and nothing else: `(text) AND filters` means what
/// it says exactly if this succeeds. Every text that [`super::parse`] reads passes.
///
/// # Errors
///
/// The first quote or bracket that has no partner, or a backslash at the end.
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
                return Err(ParseError::dangling_backslash(position));
            }
            '(' | '[' => open.push((position, c)),
            ')' | ']' => {
                let opening = if c == ')' { '(' } else { '[' };
                if open.pop().is_none_or(|(_, bracket)| bracket != opening) {
                    return Err(ParseError::unopened_bracket(position, c));
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
    fn quotes_and_escapes_hide_brackets() {
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
    fn what_has_no_partner_is_named_by_its_place() {
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
    fn depth_is_no_matter() {
        let deep = "(".repeat(100_000) + &")".repeat(100_000);
        assert_eq!(check_balance(&deep), Ok(()));
    }
}
