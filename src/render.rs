//! Answers for models: one compact JSON object, within a token budget, with untrusted text made
//! visible.
//!
//! A model pays for every character and may obey every word, so two invariants hold:
//!
//! - The answer of a reading tool fits its budget. Whole rows or deeper nodes are left out, and a
//!   page token continues after them. JSON is never cut in the middle.
//! - Untrusted text arrives unchanged. Invisible characters are written as escapes, so that nothing
//!   hides in it.

mod budget;
mod links;
mod squeeze;
mod untrusted;

pub use budget::{Budget, fit};
pub use links::{experiment_url, trace_url};
pub use squeeze::{cut_end, cut_middle, squeeze};
pub use untrusted::{candidate, json_chars, to_json};
