//! Queries for an index: what it keeps of a span, and what it is asked.
//!
//! An index must find what [`super::Query::matches`] finds, or it lies. Both sides of that stand
//! here, free of any engine: [`IndexDocument`] are what an index keeps of a span, a [`IndexPlan`] is a query in
//! terms of them. A plan never misses a span that the query matches. Where facts say less than the
//! span does (a text in an input, a descendant), the plan finds too many and says that it is not
//! [`IndexPlan::exact`]; the spans found must then be looked at. The property tests hold both.
//!
//! IndexDocument are of three sorts. *KeyList* are exact texts (`ml_app` is `shop`; `env` is there).
//! *Numbers* are compared. *Groups* are the values to group by. Words of the span's text are kept
//! beside them, cut by [`super::text`].
//!
//! `@x` and `x` look at attribute and tag in different order. Where both lead to the same values,
//! as they mostly do, those are kept once; else under a name of their own each.

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

/// Attributes whose values are kept whole.
const EXACT: &[&str] = &[
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

/// Attributes of which it is kept whether they are there.
const PRESENT: &[&str] = &[
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

/// Attributes with nearly as many values as there are spans: nobody groups by them.
const UNGROUPED: &[&str] = &[
    "duration",
    "timestamp",
    "trace_id",
    "span_id",
    "parent_id",
    "apm_trace_id",
];

/// Beginnings of names that are attributes of a family. A tag of such a name is found through
/// [`Marker::Reserved`].
const RESERVED: &[&str] = &[
    "meta.",
    "metrics.",
    "evaluations.",
    "evaluation.",
    "feedback.",
    "trace.",
];

/// A longer value is not kept, only that there is one.
const MAX_VALUE: usize = 500;

/// How facts know the evaluations of a label, with and without `custom.` before it.
const EVALUATION: &str = "\u{5}e.";

/// How facts know feedback.
const FEEDBACK: &str = "\u{5}f.";

/// Where a name's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// `@name` and `name` lead to the same values.
    Both,
    /// Only `@name` does.
    Attribute,
    /// Only `name` does.
    Tag,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Side::Both => "",
            Side::Attribute => "\u{1}",
            Side::Tag => "\u{2}",
        }
    }

    fn of(self, name: &str) -> Cow<'_, str> {
        match self {
            Side::Both => Cow::Borrowed(name),
            side => Cow::Owned([side.prefix(), name].concat()),
        }
    }
}

/// A span of which not everything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// It has a tag whose name begins as an attribute's.
    Reserved,
    /// It has more metadata than is kept.
    Metadata,
    /// It has more tags or unknown attributes than are kept.
    Free,
    /// It has more in its evaluations than is kept.
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

/// The key of a text value, in parts. `name` carries its side.
fn text_key<'a>(name: &'a str, value: &'a str) -> [&'a str; 4] {
    ["=", name, "\0", value]
}

/// The key of a number as it is written, in parts.
fn number_key<'a>(name: &'a str, text: &'a str) -> [&'a str; 4] {
    ["~", name, "\0", text]
}

/// The key that a value is there, in parts.
fn present_key(name: &str) -> [&str; 2] {
    ["?", name]
}

/// The key that a value is there which is too long to be kept, in parts.
fn long_key(name: &str) -> [&str; 2] {
    ["^", name]
}

/// The column of values that are numbers.
fn number_column(name: &str) -> String {
    ["n", name].concat()
}

/// The column of texts that are read as numbers.
fn text_number_column(name: &str) -> String {
    ["t", name].concat()
}

/// The column of a metric.
pub fn metric_column(metric: &str) -> String {
    number_column(&Side::Both.of(&format!("metrics.{metric}")))
}

/// The columns of what spans were judged under a label: the score, and 1 if it passed, 0 if not.
pub fn evaluation_columns(kind: EventKind, label: &str) -> [String; 2] {
    let family = match kind {
        EventKind::Evaluation => EVALUATION,
        EventKind::Feedback => FEEDBACK,
    };
    [format!("s{family}{label}"), format!("a{family}{label}")]
}

/// Whether a number of this name is also kept as it is written, for wildcards.
fn keeps_number_text(name: &str) -> bool {
    let measured = ["metrics.", EVALUATION, FEEDBACK];
    !measured.iter().any(|family| name.starts_with(family)) && !UNGROUPED.contains(&name)
}

/// Whether values of this name are kept to group by.
fn is_grouped(name: &str) -> bool {
    let reserved = RESERVED.iter().any(|family| name.starts_with(family));
    let kept = [EVALUATION, FEEDBACK];
    !UNGROUPED.contains(&name)
        && (EXACT.contains(&name)
            || !reserved && !kept.iter().any(|family| name.starts_with(family)))
}
