//! The token budget, and what gives way when an answer is over it.

use serde::Serialize;
use serde_json::Value;

use super::squeeze::squeeze;
use super::untrusted::to_json;

/// What an answer may cost, in tokens of about four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    tokens: usize,
}

impl Budget {
    /// What a reading tool answers with when nothing is asked: about 32,000 characters, which
    /// Claude Code, Codex and Gemini show to their model whole.
    pub const DEFAULT_TOKENS: usize = 8_000;
    /// The most that a reading tool gives.
    pub const MAX_TOKENS: usize = 20_000;
    /// The most that the content of one field is given, when asked for.
    pub const MAX_CONTENT_TOKENS: usize = 100_000;
    /// The least: an answer needs room for its frame and one row.
    pub const MIN_TOKENS: usize = 200;

    /// The asked number of tokens, brought between the least and `most`; the default when none is.
    pub fn asked(tokens: Option<usize>, most: usize) -> Self {
        let tokens = tokens.unwrap_or(Self::DEFAULT_TOKENS);
        Self {
            tokens: tokens.clamp(Self::MIN_TOKENS, most),
        }
    }

    /// The budget in tokens.
    pub fn tokens(self) -> usize {
        self.tokens
    }

    /// The budget in characters of JSON.
    pub fn chars(self) -> usize {
        self.tokens * 4
    }
}

/// An answer that knows which of its parts can wait for the next page.
///
/// Parts are rows of a list or nodes of a tree, in the order in which they are worth keeping.
pub trait Shrink: Serialize {
    /// The size of each part, in characters of JSON, in the order of keeping. They are measured
    /// one by one, as far as they are needed.
    fn part_sizes(&self) -> impl Iterator<Item = usize>;

    /// Keeps the first `count` parts, and says in the answer where the others are.
    fn keep(&mut self, count: usize);
}

/// Room left for what `keep` adds: a cursor and a note.
const RESERVE: usize = 320;

/// Writes an answer within its budget: whole parts are left out first; when a single part alone is
/// too large, its long texts lose their middle.
///
/// # Errors
///
/// Only what the answer's own `Serialize` reports.
pub fn fit<A: Shrink>(mut answer: A, budget: Budget) -> Result<String, serde_json::Error> {
    let limit = budget.chars();
    let (sizes, all) = sizes_within(answer.part_sizes(), limit);
    if !all {
        answer.keep(sizes.len());
    }
    let mut text = to_json(&answer)?;
    let whole = text.chars().count();
    if whole <= limit {
        return Ok(text);
    }
    let frame = whole.saturating_sub(sizes.iter().sum()) + RESERVE;
    let mut room = limit.saturating_sub(frame);
    let mut count = 0;
    for size in &sizes {
        // One for the comma between parts.
        let Some(rest) = room.checked_sub(size + 1) else {
            break;
        };
        room = rest;
        count += 1;
    }
    // A page of at least one part, or paging would never end.
    count = count.max(1);
    while count < sizes.len() || count == 1 {
        answer.keep(count.min(sizes.len()));
        text = to_json(&answer)?;
        if text.chars().count() <= limit {
            return Ok(text);
        }
        if count <= 1 {
            break;
        }
        count -= (count / 10).max(1);
    }
    let value: Value = serde_json::from_str(&text)?;
    to_json(&squeeze(&value, limit).0)
}

/// The sizes of the first part and of those after it that have room beside it, and whether these
/// are all. What lies beyond is neither measured nor written, however long the answer is.
fn sizes_within(parts: impl Iterator<Item = usize>, limit: usize) -> (Vec<usize>, bool) {
    let mut sizes = Vec::new();
    let mut sum = 0_usize;
    for size in parts {
        sum = sum.saturating_add(size);
        if sum > limit && !sizes.is_empty() {
            return (sizes, false);
        }
        sizes.push(size);
    }
    (sizes, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    struct Rows {
        rows: Vec<String>,
        next: Option<usize>,
    }

    impl Shrink for Rows {
        fn part_sizes(&self) -> impl Iterator<Item = usize> {
            self.rows.iter().map(|row| row.len() + 2)
        }

        fn keep(&mut self, count: usize) {
            if count < self.rows.len() {
                self.rows.truncate(count);
                self.next = Some(count);
            }
        }
    }

    fn rows(count: usize, length: usize) -> Rows {
        Rows {
            rows: vec!["r".repeat(length); count],
            next: None,
        }
    }

    #[test]
    fn an_answer_within_its_budget_is_left_alone() {
        let text = fit(rows(3, 10), Budget::asked(None, Budget::MAX_TOKENS)).unwrap();
        assert_eq!(
            text,
            r#"{"rows":["rrrrrrrrrr","rrrrrrrrrr","rrrrrrrrrr"],"next":null}"#
        );
    }

    #[test]
    fn rows_are_left_out_whole_and_the_cursor_says_where() {
        let budget = Budget::asked(Some(500), Budget::MAX_TOKENS);
        let text = fit(rows(100, 100), budget).unwrap();
        assert!(text.len() <= budget.chars());
        let page: Rows = serde_json::from_str(&text).unwrap();
        assert_eq!(page.next, Some(page.rows.len()));
        assert!(page.rows.len() > 10 && page.rows.iter().all(|row| row.len() == 100));
    }

    #[test]
    fn parts_far_beyond_the_budget_are_not_even_measured() {
        let measured = std::cell::Cell::new(0);
        let parts = (0..1_000_000).map(|_| {
            measured.set(measured.get() + 1);
            100
        });
        let (sizes, all) = sizes_within(parts, 1_000);
        assert_eq!((sizes.len(), all, measured.get()), (10, false, 11));
        assert_eq!(
            sizes_within([5_000, 1].into_iter(), 1_000),
            (vec![5_000], false)
        );
    }

    #[test]
    fn one_part_too_large_for_any_page_loses_its_middle() {
        let budget = Budget::asked(Some(500), Budget::MAX_TOKENS);
        let text = fit(rows(2, 90_000), budget).unwrap();
        assert!(text.chars().count() <= budget.chars());
        let page: Rows = serde_json::from_str(&text).unwrap();
        assert_eq!((page.rows.len(), page.next), (1, Some(1)));
        assert!(page.rows[0].contains("characters left out"));
    }

    #[test]
    fn a_budget_is_brought_into_its_range() {
        assert_eq!(Budget::asked(None, Budget::MAX_TOKENS).tokens(), 8_000);
        assert_eq!(Budget::asked(Some(1), Budget::MAX_TOKENS).tokens(), 200);
        assert_eq!(
            Budget::asked(Some(9_999_999), Budget::MAX_TOKENS).tokens(),
            20_000
        );
    }
}
