//! LLM observability without I/O: the types, the span query language, and analysis.
//!
//! - [`model`]: spans, evaluations, experiments, ids and time windows, without wire forms.
//! - [`query`]: the span query language and the time grammar.
//! - [`json`]: the size of a value's JSON.
//! - [`page_token`]: opaque tokens for the next page of a list.
//! - [`analysis`]: pure functions over spans, experiments and evaluators.
//!
//! Nothing in this crate reads a clock, the network, the disk or a source of randomness. The
//! current time is an argument, and equal input gives equal output.

pub mod analysis;
pub mod json;
pub mod model;
pub mod page_token;
pub mod query;
