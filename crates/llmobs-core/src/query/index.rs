//! Query plans for an index, independent of the engine.
//!
//! An index must find the spans that [`super::Query::matches`] finds. This module defines both
//! sides: an [`IndexDocument`] is what an index stores of a span, and an [`IndexPlan`] is a query
//! over such documents. A plan never misses a span that the query matches. Where the document
//! holds less than the span (the text of an input, a descendant), the plan also finds other spans
//! and is not [`IndexPlan::exact`]; the caller then evaluates the query on each span found. The
//! property tests check both guarantees.
//!
//! A document has three kinds of entries. *Keys* are exact texts: `ml_app` is `shop`; `env` is
//! present. *Numbers* are compared. *Groups* are values to group by. The tokens of the span's text
//! are stored separately; see [`super::text`].
//!
//! `@x` and `x` read attribute and tag in different order. Values that both return, which is the
//! usual case, are stored once; other values are stored under a name for each lookup.

mod document;
mod plan;

#[cfg(any(test, feature = "testing"))]
pub mod strategies;
#[cfg(test)]
mod tests;

pub use document::{IndexDocument, KeyList, index_document};
pub use plan::{IndexCondition, IndexPlan, NumberTest, group_columns, plan_filters, plan_query};

use std::borrow::Cow;

use crate::model::EventKind;

/// Attributes whose values are stored.
const EXACT_ATTRIBUTES: &[&str] = &[
    "ml_app",
    "name",
    "status",
    "duration",
    "timestamp",
    "trace_id",
    "span_id",
    "parent_id",
    "apm_trace_id",
    "session_id",
    "session.id",
    "service",
    "event_kind",
    "meta.span.kind",
    "meta.kind",
    "meta.model_name",
    "meta.model_provider",
    "meta.model_version",
    "meta.error.type",
    "meta.input.prompt.id",
    "meta.input.prompt.version",
];

/// Attributes of which only the presence is stored.
const PRESENCE_ATTRIBUTES: &[&str] = &[
    "event_type",
    "collection_errors",
    "tags",
    "meta.span.name",
    "meta.intent",
    "meta.error",
    "meta.error.message",
    "meta.error.stack",
    "meta.input",
    "meta.output",
    "meta.expected_output",
    "meta.tool_definitions",
    "meta.agent_attribution.pagent_name",
    "meta.agent_attribution.pagent_span_id",
];

/// Attributes that are not stored as groups, because they have nearly as many values as spans.
const UNGROUPED_ATTRIBUTES: &[&str] = &[
    "duration",
    "timestamp",
    "trace_id",
    "span_id",
    "parent_id",
    "apm_trace_id",
];

/// Prefixes of attribute names. A tag with such a name is found through [`Marker::Reserved`].
const RESERVED_PREFIXES: &[&str] = &[
    "meta.",
    "metrics.",
    "evaluations.",
    "evaluation.",
    "feedback.",
    "trace.",
];

/// Longest stored value in bytes. Of a longer value, only the presence is stored.
const MAX_VALUE_BYTES: usize = 500;

/// Prefix of the stored names of evaluations. The label follows, without `custom.`.
const EVALUATION_PREFIX: &str = "\u{5}e.";

/// Prefix of the stored names of feedback.
const FEEDBACK_PREFIX: &str = "\u{5}f.";

/// The lookup that returns a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// Both `@name` and `name`.
    Both,
    /// Only `@name`.
    Attribute,
    /// Only `name`.
    Tag,
}

impl Lookup {
    fn prefix(self) -> &'static str {
        match self {
            Lookup::Both => "",
            Lookup::Attribute => "\u{1}",
            Lookup::Tag => "\u{2}",
        }
    }

    /// The name under which values of this lookup are stored.
    fn stored_name(self, name: &str) -> Cow<'_, str> {
        match self {
            Lookup::Both => Cow::Borrowed(name),
            lookup => Cow::Owned([lookup.prefix(), name].concat()),
        }
    }
}

/// Marks a span whose document is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// The span has a tag whose name starts like an attribute's name.
    Reserved,
    /// The span has more metadata than the document stores.
    Metadata,
    /// The span has more tags or unknown attributes than the document stores.
    Free,
    /// The span has larger evaluations than the document stores.
    Evaluations,
}

impl Marker {
    fn key(self) -> &'static str {
        match self {
            Marker::Reserved => "!reserved",
            Marker::Metadata => "!metadata",
            Marker::Free => "!free",
            Marker::Evaluations => "!evaluations",
        }
    }
}

/// The key of a text value, in parts. `name` is a stored name.
fn text_key<'a>(name: &'a str, value: &'a str) -> [&'a str; 4] {
    ["=", name, "\0", value]
}

/// The key of a number's text, in parts.
fn number_key<'a>(name: &'a str, text: &'a str) -> [&'a str; 4] {
    ["~", name, "\0", text]
}

/// The key of a present value, in parts.
fn present_key(name: &str) -> [&str; 2] {
    ["?", name]
}

/// The key of a value that is too long to store, in parts.
fn long_key(name: &str) -> [&str; 2] {
    ["^", name]
}

/// The column of values that are numbers.
fn number_column(name: &str) -> String {
    ["n", name].concat()
}

/// The column of numeric texts.
fn text_number_column(name: &str) -> String {
    ["t", name].concat()
}

/// The column of a metric.
pub fn metric_column(metric: &str) -> String {
    number_column(&Lookup::Both.stored_name(&format!("metrics.{metric}")))
}

/// The columns of the evaluations with a label: the score, and the assessment (1 for pass, 0 for
/// fail).
pub fn evaluation_columns(kind: EventKind, label: &str) -> [String; 2] {
    let family = match kind {
        EventKind::Evaluation => EVALUATION_PREFIX,
        EventKind::Feedback => FEEDBACK_PREFIX,
    };
    [format!("s{family}{label}"), format!("a{family}{label}")]
}

/// Whether the text of numbers with this name is stored too, for wildcards.
fn stores_number_text(name: &str) -> bool {
    let measurements = ["metrics.", EVALUATION_PREFIX, FEEDBACK_PREFIX];
    !measurements.iter().any(|prefix| name.starts_with(prefix))
        && !UNGROUPED_ATTRIBUTES.contains(&name)
}

/// Whether values of this name are stored as groups.
fn is_grouped(name: &str) -> bool {
    let excluded = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    !UNGROUPED_ATTRIBUTES.contains(&name)
        && (EXACT_ATTRIBUTES.contains(&name)
            || !excluded(RESERVED_PREFIXES) && !excluded(&[EVALUATION_PREFIX, FEEDBACK_PREFIX]))
}
