//! Analysis without I/O: pure functions over spans, experiments and evaluators.
//!
//! - One trace: its tree, error origins, soft errors, agent loops, and the content of its spans.
//! - Many spans: aggregation into groups with measures.
//! - Experiments: statistics and comparison of their events.
//! - Evaluators: validation, the changes of an update, and the prompts that a judge receives.
//!
//! No function reads a clock, the network or the disk. Spans are untrusted: ids repeat, parents are
//! missing or form cycles, and chains are thousands of spans deep. So no function recurses along
//! the tree, and each takes at most O(n log n) time in the number of spans.

pub mod agent_loop;
pub mod aggregate;
pub mod candidates;
pub mod content;
pub mod errors;
pub mod evaluators;
pub mod experiment;
pub mod tree;

#[cfg(test)]
mod captures;

/// Estimates the number of tokens of a text: a quarter of its characters, rounded up.
pub fn estimate_tokens(chars: usize) -> usize {
    chars.div_ceil(4)
}

/// The first `max` characters of a text, and whether the text is longer.
pub fn truncate_chars(text: &str, max: usize) -> (&str, bool) {
    match text.char_indices().nth(max) {
        Some((end, _)) => (text.get(..end).unwrap_or(text), true),
        None => (text, false),
    }
}
