//! The token budget of an answer, and how an answer is fitted into it.

use serde_json::Value;

use super::squeeze::squeeze;
use super::untrusted::to_json;

/// The upper bound of an answer, in tokens of about four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    tokens: usize,
}

impl Budget {
    /// The default of a reading tool: about 32,000 characters, which Claude Code, Codex and Gemini
    /// pass to their model uncut.
    pub const DEFAULT_TOKENS: usize = 8_000;
    /// The maximum of a reading tool.
    pub const MAX_TOKENS: usize = 20_000;
    /// The maximum for the content of one field.
    pub const MAX_CONTENT_TOKENS: usize = 100_000;
    /// The minimum: room for the frame of an answer and one row.
    pub const MIN_TOKENS: usize = 200;

    /// The requested number of tokens, within the minimum and `max`; the default without a request.
    pub fn within(tokens: Option<usize>, max: usize) -> Self {
        let tokens = tokens.unwrap_or(Self::DEFAULT_TOKENS);
        Self {
            tokens: tokens.clamp(Self::MIN_TOKENS, max),
        }
    }

    /// The budget of a reading tool, from its argument `max_tokens`.
    pub fn of_answer(max_tokens: Option<usize>) -> Self {
        Self::within(max_tokens, Self::MAX_TOKENS)
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

/// Characters reserved for a page token and a note.
const RESERVED_CHARS: usize = 320;

/// Writes an answer within its budget.
///
/// The answer consists of parts (rows of a list, nodes of a tree) in the order in which they are
/// worth keeping. `sizes` are the characters of JSON of each part, `write` writes the answer with
/// its first parts. Whole parts are left out first; when a single part exceeds the budget, its long
/// texts lose their middle.
///
/// # Errors
///
/// The errors of `write`.
pub fn fit(
    sizes: impl Iterator<Item = usize>,
    budget: Budget,
    write: impl Fn(usize) -> Result<String, serde_json::Error>,
) -> Result<String, serde_json::Error> {
    let limit = budget.chars();
    let sizes = sizes_within(sizes, limit);
    let mut text = write(sizes.len())?;
    let total = text.chars().count();
    if total <= limit {
        return Ok(text);
    }
    let frame = total.saturating_sub(sizes.iter().sum()) + RESERVED_CHARS;
    let mut room = limit.saturating_sub(frame);
    let mut count = 0;
    for size in &sizes {
        // One character for the comma between parts.
        let Some(rest) = room.checked_sub(size + 1) else {
            break;
        };
        room = rest;
        count += 1;
    }
    // At least one part, or paging would never end.
    count = count.clamp(1, sizes.len().max(1));
    while count < sizes.len() {
        text = write(count)?;
        if text.chars().count() <= limit {
            return Ok(text);
        }
        if count == 1 {
            break;
        }
        count -= (count / 10).max(1);
    }
    let value: Value = serde_json::from_str(&text)?;
    to_json(&squeeze(&value, limit).0)
}

/// The sizes of the first part and of those after it that fit beside it. Parts beyond the limit are
/// not measured, however long the answer is.
fn sizes_within(parts: impl Iterator<Item = usize>, limit: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut sum = 0_usize;
    for size in parts {
        sum = sum.saturating_add(size);
        if sum > limit && !sizes.is_empty() {
            break;
        }
        sizes.push(size);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Writes `count` rows of `length` characters within `tokens`.
    fn fit_rows(count: usize, length: usize, tokens: usize) -> Value {
        let rows = vec!["r".repeat(length); count];
        let budget = Budget::of_answer(Some(tokens));
        let sizes = rows.iter().map(|row| row.len() + 2);
        let text = fit(sizes, budget, |shown| {
            to_json(&json!({"rows": rows[..shown], "next": (shown < count).then_some(shown)}))
        });
        let text = text.unwrap();
        assert!(text.chars().count() <= budget.chars());
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn answer_within_its_budget_is_unchanged() {
        let page = fit_rows(3, 10, 8_000);
        assert_eq!(page, json!({"rows": vec!["r".repeat(10); 3], "next": null}));
    }

    #[test]
    fn rows_are_left_out_whole() {
        let page = fit_rows(100, 100, 500);
        let rows = page["rows"].as_array().unwrap();
        assert_eq!(page["next"], rows.len());
        assert!(rows.len() > 10 && rows.iter().all(|row| row.as_str().unwrap().len() == 100));
    }

    #[test]
    fn parts_beyond_the_budget_are_not_measured() {
        let measured = std::cell::Cell::new(0);
        let parts = (0..1_000_000).map(|_| {
            measured.set(measured.get() + 1);
            100
        });
        assert_eq!(sizes_within(parts, 1_000).len(), 10);
        assert_eq!(measured.get(), 11);
        assert_eq!(sizes_within([5_000, 1].into_iter(), 1_000), [5_000]);
    }

    #[test]
    fn single_part_beyond_the_budget_loses_its_middle() {
        let page = fit_rows(2, 90_000, 500);
        assert_eq!(page["next"], 1);
        let row = page["rows"][0].as_str().unwrap();
        assert!(row.contains("characters left out"), "{row}");
    }

    #[test]
    fn budget_stays_in_its_range() {
        for (requested, tokens) in [(None, 8_000), (Some(1), 200), (Some(9_999_999), 20_000)] {
            assert_eq!(Budget::of_answer(requested).tokens(), tokens);
        }
    }
}
