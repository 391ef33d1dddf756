//! Text patterns with `*` (any run of characters) and `?` (exactly one).

use std::str::Chars;

/// A text pattern. Equal patterns are equal values: runs of `*` are one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wildcard {
    glyphs: Vec<Glyph>,
}

/// One element of a text pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Glyph {
    /// This character.
    Char(char),
    /// `?`: any one character.
    One,
    /// `*`: any run of characters, also none.
    Any,
}

impl Wildcard {
    /// Adds an element at the end.
    pub fn push(&mut self, glyph: Glyph) {
        if glyph != Glyph::Any || self.glyphs.last() != Some(&Glyph::Any) {
            self.glyphs.push(glyph);
        }
    }

    /// The elements in order.
    pub fn glyphs(&self) -> &[Glyph] {
        &self.glyphs
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.glyphs.is_empty()
    }

    /// Whether this is `*` alone.
    pub fn is_any(&self) -> bool {
        self.glyphs == [Glyph::Any]
    }

    /// The text, if no wildcard is in it.
    pub fn as_literal(&self) -> Option<String> {
        let character = |glyph: &Glyph| match glyph {
            Glyph::Char(c) => Some(*c),
            Glyph::One | Glyph::Any => None,
        };
        self.glyphs.iter().map(character).collect()
    }

    /// Whether the pattern matches the whole of `text`, with case.
    ///
    /// On a mismatch the last `*` takes one character more, which suffices: an earlier one taking
    /// more could never help. No recursion, no allocation.
    pub fn matches(&self, text: &str) -> bool {
        let mut glyphs = self.glyphs.as_slice();
        let mut rest = text.chars();
        let mut retry: Option<(&[Glyph], Chars<'_>)> = None;
        loop {
            match glyphs.split_first() {
                Some((Glyph::Any, [])) => return true,
                Some((Glyph::Any, tail)) => {
                    glyphs = tail;
                    retry = Some((tail, rest.clone()));
                    continue;
                }
                Some((glyph, tail)) => match rest.next() {
                    Some(c) if glyph.accepts(c) => {
                        glyphs = tail;
                        continue;
                    }
                    // Every glyph left but `*` needs a character.
                    None => return false,
                    Some(_) => {}
                },
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((tail, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            glyphs = tail;
            rest = from.clone();
        }
    }
}

impl Glyph {
    fn accepts(self, c: char) -> bool {
        match self {
            Glyph::Char(own) => own == c,
            Glyph::One | Glyph::Any => true,
        }
    }
}

impl FromIterator<Glyph> for Wildcard {
    fn from_iter<I: IntoIterator<Item = Glyph>>(glyphs: I) -> Self {
        let mut wildcard = Self::default();
        for glyph in glyphs {
            wildcard.push(glyph);
        }
        wildcard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wildcard(pattern: &str) -> Wildcard {
        let glyph = |c| match c {
            '*' => Glyph::Any,
            '?' => Glyph::One,
            c => Glyph::Char(c),
        };
        pattern.chars().map(glyph).collect()
    }

    #[test]
    fn star_is_any_run_and_question_mark_one_character() {
        for (pattern, text, matches) in [
            ("gpt-4*", "gpt-4o-mini", true),
            ("*mini", "gpt-4o-mini", true),
            ("*4o*", "gpt-4o-mini", true),
            ("gpt-?o*", "gpt-4o", true),
            ("gpt-4?", "gpt-4", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*ab", "aab", true),
            ("a?", "aé", true),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("GPT*", "gpt-4", false),
        ] {
            assert_eq!(
                wildcard(pattern).matches(text),
                matches,
                "{pattern} on {text}"
            );
        }
    }

    /// The definition, as slow as it is plain.
    fn matches_by_definition(glyphs: &[Glyph], text: &[char]) -> bool {
        match (glyphs, text) {
            ([], []) => true,
            ([Glyph::Any, tail @ ..], _) => {
                (0..=text.len()).any(|n| matches_by_definition(tail, &text[n..]))
            }
            ([glyph, tail @ ..], [c, rest @ ..]) => {
                glyph.accepts(*c) && matches_by_definition(tail, rest)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let wildcard = wildcard(&pattern);
            let characters: Vec<char> = text.chars().collect();
            prop_assert_eq!(
                wildcard.matches(&text),
                matches_by_definition(wildcard.glyphs(), &characters)
            );
        }
    }
}
