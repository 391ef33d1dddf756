//! The conventions that the intake reads, in order of precedence.
//!
//! A span may carry several conventions: instrumentation libraries add attributes of one to spans
//! of another. The first convention that supplies a field wins; attributes of the others stay on
//! the span as tags. Two fields have an order of their own, `kind_rank` and `message_rank` of
//! [`Convention`].
//!
//! To add a convention, write a file with a `CONVENTION` and add it to [`CONVENTIONS`].

mod datadog;
mod gen_ai;
mod open_inference;
mod open_llmetry;

use super::convention::Convention;

pub(super) static CONVENTIONS: [&Convention; 4] = [
    &gen_ai::CONVENTION,
    &open_inference::CONVENTION,
    &open_llmetry::CONVENTION,
    &datadog::CONVENTION,
];

/// The conventions sorted by a rank; equal ranks keep the order of the table.
pub(super) fn sorted_by_rank(rank: fn(&Convention) -> i8) -> [&'static Convention; 4] {
    let mut sorted = CONVENTIONS;
    sorted.sort_by_key(|convention| rank(convention));
    sorted
}
