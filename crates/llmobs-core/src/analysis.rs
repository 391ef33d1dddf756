//! Pure functions: over the spans of one trace (the tree, the origins of errors, failures that no
//! status shows, the agent's loop, the content of a span), over many spans (groups and figures),
//! over the events of experiments, and over evaluators (what a valid one is, what a write would
//! change, what its judge would read).
//!
//! Nothing here reads a clock, the network or the disk. The spans come from strangers: ids repeat,
//! parents are missing or go in circles, chains are thousands deep. So nothing here recurses along
//! the tree, and all of it is linear, or n log n, in the number of spans.

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

/// About how many tokens a text of so many characters is: a quarter of them, rounded up.
pub fn estimate_tokens(chars: usize) -> usize {
    chars.div_ceil(4)
}

/// The first `max` characters of a text, and whether that left something out.
pub fn truncate_chars(text: &str, max: usize) -> (&str, bool) {
    match text.char_indices().nth(max) {
        Some((end, _)) => (text.get(..end).unwrap_or(text), true),
        None => (text, false),
    }
}
