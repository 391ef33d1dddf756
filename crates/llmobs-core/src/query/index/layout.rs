//! The layout of index documents: which attributes are stored, and the names of keys and columns.

use std::borrow::Cow;

use crate::model::EventKind;

/// Attributes whose values are stored.
pub(super) const EXACT_ATTRIBUTES: &[&str] = &[
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
pub(super) const PRESENCE_ATTRIBUTES: &[&str] = &[
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
pub(super) const UNGROUPED_ATTRIBUTES: &[&str] = &[
    "duration",
    "timestamp",
    "trace_id",
    "span_id",
    "parent_id",
    "apm_trace_id",
];

/// Prefixes of attribute names. A tag with such a name is found through [`Marker::Reserved`].
pub(super) const RESERVED_PREFIXES: &[&str] = &[
    "meta.",
    "metrics.",
    "evaluations.",
    "evaluation.",
    "feedback.",
    "trace.",
];

/// Longest stored value in bytes. Of a longer value, only the presence is stored.
pub(super) const MAX_VALUE_BYTES: usize = 500;

/// Prefix of the stored names of evaluations. The label follows, without `custom.`.
pub(super) const EVALUATION_PREFIX: &str = "\u{5}e.";

/// Prefix of the stored names of feedback.
pub(super) const FEEDBACK_PREFIX: &str = "\u{5}f.";

/// The lookup that returns a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Both `@name` and `name`.
    Both,
    /// Only `@name`.
    Attribute,
    /// Only `name`.
    Tag,
}

impl Lookup {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Lookup::Both => "",
            Lookup::Attribute => "\u{1}",
            Lookup::Tag => "\u{2}",
        }
    }

    /// The name under which values of this lookup are stored.
    pub(super) fn stored_name(self, name: &str) -> Cow<'_, str> {
        match self {
            Lookup::Both => Cow::Borrowed(name),
            lookup => Cow::Owned([lookup.prefix(), name].concat()),
        }
    }
}

/// Marks a span whose document is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
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
    pub(super) fn key(self) -> &'static str {
        match self {
            Marker::Reserved => "!reserved",
            Marker::Metadata => "!metadata",
            Marker::Free => "!free",
            Marker::Evaluations => "!evaluations",
        }
    }
}

/// The key of a text value, in parts. `name` is a stored name.
pub(super) fn text_key<'a>(name: &'a str, value: &'a str) -> [&'a str; 4] {
    ["=", name, "\0", value]
}

/// The key of a number's text, in parts.
pub(super) fn number_key<'a>(name: &'a str, text: &'a str) -> [&'a str; 4] {
    ["~", name, "\0", text]
}

/// The key of a present value, in parts.
pub(super) fn present_key(name: &str) -> [&str; 2] {
    ["?", name]
}

/// The key of a value that is too long to store, in parts.
pub(super) fn long_key(name: &str) -> [&str; 2] {
    ["^", name]
}

/// The column of values that are numbers.
pub(super) fn number_column(name: &str) -> String {
    ["n", name].concat()
}

/// The column of numeric texts.
pub(super) fn text_number_column(name: &str) -> String {
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
pub(super) fn stores_number_text(name: &str) -> bool {
    let measurements = ["metrics.", EVALUATION_PREFIX, FEEDBACK_PREFIX];
    !measurements.iter().any(|prefix| name.starts_with(prefix))
        && !UNGROUPED_ATTRIBUTES.contains(&name)
}

/// Whether values of this name are stored as groups.
pub(super) fn is_grouped(name: &str) -> bool {
    let excluded = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    !UNGROUPED_ATTRIBUTES.contains(&name)
        && (EXACT_ATTRIBUTES.contains(&name)
            || !excluded(RESERVED_PREFIXES) && !excluded(&[EVALUATION_PREFIX, FEEDBACK_PREFIX]))
}
