//! Query plans for an index, independent of the engine.
//!
//! An index must find the spans that [`super::Query::matches`] finds. This module defines both
//! sides: an [`IndexDocument`] is what an index stores of a span, and an [`IndexPlan`] is a query
//! over such documents. A plan never misses a span that the query matches. Where the document
//! holds less than the span (the text of an input, a descendant), the plan also finds other spans
//! and is not `IndexPlan::exact`; the caller then evaluates the query on each span found. The
//! property tests check both guarantees.
//!
//! A document has three kinds of entries. *Keys* are exact texts: `ml_app` is `shop`; `env` is
//! present. *Numbers* are compared. *Groups* are values to group by. The tokens of the span's text
//! are stored separately; see [`super::text`].
//!
//! `@x` and `x` read attribute and tag in different order. Values that both return, which is the
//! usual case, are stored once; other values are stored under a name for each lookup.

mod document;
mod layout;
mod plan;

#[cfg(any(test, feature = "testing"))]
pub mod strategies;
#[cfg(test)]
mod tests;

pub use document::{IndexDocument, KeyList, index_document};
pub use layout::{evaluation_columns, metric_column};
pub use plan::{IndexCondition, IndexPlan, NumberTest, group_columns, plan_filters, plan_query};
