//! Text patterns with `*` (any run of characters) and `?` (exactly one character).

use std::str::Chars;

/// A text pattern. Consecutive `*` are stored as one, so that equal patterns are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wildcard {
    elements: Vec<WildcardElement>,
}

/// One element of a text pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WildcardElement {
    /// A literal character.
    Char(char),
    /// `?`: any one character.
    AnyChar,
    /// `*`: any run of characters, including none.
    AnyRun,
}

impl Wildcard {
    /// Appends an element.
    pub fn push(&mut self, element: WildcardElement) {
        if element != WildcardElement::AnyRun
            || self.elements.last() != Some(&WildcardElement::AnyRun)
        {
            self.elements.push(element);
        }
    }

    /// The elements in order.
    pub fn elements(&self) -> &[WildcardElement] {
        &self.elements
    }

    /// Whether the pattern has no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Whether this is `*` alone.
    pub fn is_any_text(&self) -> bool {
        self.elements == [WildcardElement::AnyRun]
    }

    /// The text, if the pattern has no wildcards.
    pub fn as_literal(&self) -> Option<String> {
        let character = |element: &WildcardElement| match element {
            WildcardElement::Char(c) => Some(*c),
            WildcardElement::AnyChar | WildcardElement::AnyRun => None,
        };
        self.elements.iter().map(character).collect()
    }

    /// Whether the pattern matches the complete text, case-sensitively.
    ///
    /// On a mismatch, the last `*` is extended by one character. Extending an earlier `*` could
    /// not help, so the match needs no recursion and no allocation.
    pub fn matches(&self, text: &str) -> bool {
        let mut elements = self.elements.as_slice();
        let mut rest = text.chars();
        let mut retry: Option<(&[WildcardElement], Chars<'_>)> = None;
        loop {
            match elements.split_first() {
                Some((WildcardElement::AnyRun, [])) => return true,
                Some((WildcardElement::AnyRun, tail)) => {
                    elements = tail;
                    retry = Some((tail, rest.clone()));
                    continue;
                }
                Some((element, tail)) => match rest.next() {
                    Some(c) if element.matches_char(c) => {
                        elements = tail;
                        continue;
                    }
                    // Every remaining element except `*` needs a character.
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
            elements = tail;
            rest = from.clone();
        }
    }
}

impl WildcardElement {
    fn matches_char(self, c: char) -> bool {
        match self {
            WildcardElement::Char(expected) => expected == c,
            WildcardElement::AnyChar | WildcardElement::AnyRun => true,
        }
    }
}

impl FromIterator<WildcardElement> for Wildcard {
    fn from_iter<I: IntoIterator<Item = WildcardElement>>(elements: I) -> Self {
        let mut wildcard = Self::default();
        for element in elements {
            wildcard.push(element);
        }
        wildcard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wildcard(pattern: &str) -> Wildcard {
        let element = |c| match c {
            '*' => WildcardElement::AnyRun,
            '?' => WildcardElement::AnyChar,
            c => WildcardElement::Char(c),
        };
        pattern.chars().map(element).collect()
    }

    #[test]
    fn matches_any_run_and_one_character() {
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

    /// The definition of a match, by recursion.
    fn matches_by_definition(elements: &[WildcardElement], text: &[char]) -> bool {
        match (elements, text) {
            ([], []) => true,
            ([WildcardElement::AnyRun, tail @ ..], _) => {
                (0..=text.len()).any(|n| matches_by_definition(tail, &text[n..]))
            }
            ([element, tail @ ..], [c, rest @ ..]) => {
                element.matches_char(*c) && matches_by_definition(tail, rest)
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
                matches_by_definition(wildcard.elements(), &characters)
            );
        }
    }
}
