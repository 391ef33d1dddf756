//! The declaration of an OpenTelemetry convention: its attribute keys, grouped by meaning.
//!
//! A convention is data only. [`super::map`] and [`super::content`] apply the declarations; they
//! contain no attribute key of a convention.

use llmobs_core::model::SpanKind;

use super::decoded::OtelEvent;

/// Input or output of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// One value for the input of a span and one for its output.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerSide<T> {
    pub(super) input: T,
    pub(super) output: T,
}

impl<T: Copy> PerSide<T> {
    pub(super) const fn new(input: T, output: T) -> Self {
        Self { input, output }
    }

    pub(super) fn get(&self, side: Side) -> T {
        match side {
            Side::Input => self.input,
            Side::Output => self.output,
        }
    }
}

/// An attribute that names the span kind, with its values. Values are compared without case; an
/// unlisted value means `workflow`.
pub(super) struct KindAttribute {
    pub(super) key: &'static str,
    pub(super) values: &'static [(&'static str, SpanKind)],
}

/// The finish reasons of a model call.
pub(super) enum FinishReasons {
    /// A list of reasons.
    List(&'static str),
    /// A single reason.
    Single(&'static str),
}

/// The tools that a model was offered.
pub(super) enum ToolDefinitions {
    /// One attribute with JSON.
    Json(&'static str),
    /// Indexed keys with this prefix.
    Indexed(&'static str),
}

/// Numeric attributes that become metrics.
pub(super) struct MetricFamily {
    pub(super) prefix: &'static str,
    /// Appended to the rest of the key to form the name of the metric.
    pub(super) suffix: &'static str,
    /// Exceptions: the rest of the key and the name of the metric.
    pub(super) renames: &'static [(&'static str, &'static str)],
}

/// Messages read from span events, one event per message.
pub(super) type ReadMessageEvents = fn(&mut Vec<OtelEvent>) -> PerSide<Vec<serde_json::Value>>;

/// One convention. [`Convention::EMPTY`] supplies the fields that a convention does not use.
pub(super) struct Convention {
    /// Prefixes of attribute keys by which a span belongs to LLM Observability.
    pub(super) marks: &'static [&'static str],
    /// Prefixes of event names by which a span belongs to LLM Observability.
    pub(super) event_marks: &'static [&'static str],
    /// Order among the conventions when a span has several kind attributes: lower ranks are read
    /// first, equal ranks in the order of the table.
    pub(super) kind_rank: i8,
    /// The same for indexed messages.
    pub(super) message_rank: i8,

    /// Attributes that name the span kind.
    pub(super) kinds: &'static [KindAttribute],
    /// Attributes that replace the name of the span.
    pub(super) names: &'static [&'static str],
    /// Attributes copied into the metadata: attribute key and metadata key.
    pub(super) metadata: &'static [(&'static str, &'static str)],
    /// Prefix of attributes copied into the metadata without the prefix.
    pub(super) metadata_prefix: Option<&'static str>,
    /// Attributes that hold an object, or its JSON text, merged into the metadata.
    pub(super) metadata_objects: &'static [&'static str],
    /// Attributes that hold a list of tags, or its JSON text.
    pub(super) tag_lists: &'static [&'static str],
    /// Prefix removed from keys of attributes that become tags.
    pub(super) tag_prefix: Option<&'static str>,
    pub(super) finish_reasons: Option<FinishReasons>,
    pub(super) providers: &'static [&'static str],
    /// The provider attribute that message events repeat.
    pub(super) event_provider: Option<&'static str>,
    pub(super) models: &'static [&'static str],
    /// The requested model. It is also copied into the metadata.
    pub(super) requested_model: Option<&'static str>,
    /// The conversation, which also becomes metadata and a tag.
    pub(super) conversation: Option<&'static str>,
    pub(super) sessions: &'static [&'static str],
    pub(super) metrics: &'static [MetricFamily],

    pub(super) tool_definitions: Option<ToolDefinitions>,
    /// System instructions as JSON.
    pub(super) system_instructions: Option<&'static str>,
    /// Messages as JSON.
    pub(super) messages: Option<PerSide<&'static str>>,
    /// The event that may carry `system_instructions` and `messages` instead of the span.
    pub(super) message_event: Option<&'static str>,
    /// Earlier versions of a convention record one event per message.
    pub(super) read_message_events: Option<ReadMessageEvents>,
    /// Prefixes of indexed messages.
    pub(super) indexed_messages: &'static [PerSide<&'static str>],
    /// Arguments and result of a tool.
    pub(super) tool_values: Option<PerSide<&'static str>>,
    /// Plain values, read when a span has no other content on that side.
    pub(super) values: &'static [PerSide<&'static str>],
    /// Prefixes of indexed documents.
    pub(super) documents: &'static [(&'static str, Side)],
    /// Prefix of indexed embeddings.
    pub(super) embeddings: Option<&'static str>,
    /// The query of a retrieval.
    pub(super) retrieval_query: Option<&'static str>,
    /// Parts of a prompt template: attribute key and name of the part.
    pub(super) prompt: &'static [(&'static str, &'static str)],
}

impl Convention {
    pub(super) const EMPTY: Convention = Convention {
        marks: &[],
        event_marks: &[],
        kind_rank: 0,
        message_rank: 0,
        kinds: &[],
        names: &[],
        metadata: &[],
        metadata_prefix: None,
        metadata_objects: &[],
        tag_lists: &[],
        tag_prefix: None,
        finish_reasons: None,
        providers: &[],
        event_provider: None,
        models: &[],
        requested_model: None,
        conversation: None,
        sessions: &[],
        metrics: &[],
        tool_definitions: None,
        system_instructions: None,
        messages: None,
        message_event: None,
        read_message_events: None,
        indexed_messages: &[],
        tool_values: None,
        values: &[],
        documents: &[],
        embeddings: None,
        retrieval_query: None,
        prompt: &[],
    };
}
