//! Answers for agents: one compact JSON object, within a token budget, safe to show.
//!
//! A model pays for every character and acts on every word, so two rules hold for each answer of a
//! reading tool. It fits its budget: whole rows or deeper nodes are left out and a cursor says
//! where they are; JSON is never cut in the middle. And text that came from traces is data: it
//! arrives unchanged, with invisible characters written as escapes so that nothing hides in it.

mod budget;
mod links;
mod squeeze;
mod untrusted;

pub use budget::{Budget, Shrink, fit};
pub use links::{experiment_url, trace_url};
pub use squeeze::{cut_middle, squeeze};
pub use untrusted::{candidate, json_chars, to_json};
