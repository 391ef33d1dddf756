//! A span: one operation of an LLM application.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cost::cost_usd;
use super::{Evaluation, Io, Message, SpanId, TraceId};

/// One operation of an LLM application.
///
/// The pair `(trace_id, span_id)` identifies a span; a span id is unique within its trace only.
/// The JSON form, which the store writes, omits empty fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// The id of its trace.
    pub trace_id: TraceId,
    /// The span's id within its trace.
    pub span_id: SpanId,
    /// The parent's id; `None` for a root span. The parent may be missing from the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SpanId>,
    /// The id of the corresponding APM trace, if known; differs from `trace_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apm_trace_id: Option<String>,
    /// Operation name.
    pub name: String,
    /// The kind of operation.
    pub kind: SpanKind,
    /// The application, Datadog's `ml_app`.
    pub ml_app: String,
    /// The APM service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The id of its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Whether the operation failed.
    pub status: Status,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Tags as sent, `key:value`; values may contain colons, keys may contain dots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Numeric metrics: token counts, seconds to first token, costs (see [`super::cost`]).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Provider of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    /// Version of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_version: Option<String>,
    /// The error of a failed operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SpanError>,
    /// The input.
    #[serde(skip_serializing_if = "Io::is_empty")]
    pub input: Io,
    /// The output.
    #[serde(skip_serializing_if = "Io::is_empty")]
    pub output: Io,
    /// The expected output, on spans of experiments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The tools available to the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_definitions: Vec<Value>,
    /// The caller's reason for the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// The nearest enclosing agent, as the SDK reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentAttribution>,
    /// Links to other spans.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SpanLink>,
    /// Values that the intake changed or dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collection_errors: Vec<String>,
    /// `experiments` on spans of an experiment run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Keys of the span without a field, unchanged.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// Keys of the span's `meta` without a field, unchanged.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta_extra: Map<String, Value>,
    /// The newest evaluation of each label that is joined to this span.
    #[serde(skip)]
    pub evaluations: BTreeMap<String, Evaluation>,
    /// The newest end-user feedback of each label that is joined to this span.
    #[serde(skip)]
    pub feedback: BTreeMap<String, Evaluation>,
}

impl Span {
    /// Start in whole milliseconds since the Unix epoch.
    pub fn start_ms(&self) -> i64 {
        self.start_ns.div_euclid(1_000_000)
    }

    /// Duration in milliseconds, rounded to microseconds.
    pub fn duration_ms(&self) -> f64 {
        // Both divisions are exact below 2^53 µs, which is 285 years.
        (self.duration_ns as f64 / 1_000.0).round() / 1_000.0
    }

    /// End in nanoseconds since the Unix epoch; never before the start.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add(self.duration_ns.max(0))
    }

    /// Whether this is a root span.
    pub fn is_root(&self) -> bool {
        self.parent_id.is_none()
    }

    /// Whether the operation failed.
    pub fn is_error(&self) -> bool {
        self.status == Status::Error
    }

    /// The values of a tag, in the order sent. The key ends at the first colon.
    pub fn tag_values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.tags.iter().filter_map(move |tag| {
            let (k, v) = tag.split_once(':').unwrap_or((tag.as_str(), ""));
            (k == key).then_some(v)
        })
    }

    /// The first non-empty value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| {
            let (k, v) = tag.split_once(':')?;
            (k == key && !v.is_empty()).then_some(v)
        })
    }

    /// The value of a metric, if present.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// The cost in USD, if reported.
    pub fn cost_usd(&self) -> Option<f64> {
        cost_usd(
            self.metric("estimated_total_cost"),
            self.metric("total_cost"),
        )
    }

    /// The conversation: input messages, then output messages.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.input.messages.iter().chain(&self.output.messages)
    }

    /// The documents of the output (a retrieval) or, if there are none, of the input (an
    /// embedding).
    pub fn documents(&self) -> &[Value] {
        if self.output.documents.is_empty() {
            &self.input.documents
        } else {
            &self.output.documents
        }
    }
}

/// The kind of a span's operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SpanKind {
    /// An agent, which decides on its next operation.
    Agent,
    /// A fixed sequence of operations; the default for operations without a kind.
    #[default]
    Workflow,
    /// A call to a language model.
    Llm,
    /// A call to a tool.
    Tool,
    /// An operation without calls to external services.
    Task,
    /// A call to an embedding model.
    Embedding,
    /// A search for documents.
    Retrieval,
    /// The root span of one record's run in an experiment.
    Experiment,
    /// One inference step of a coding agent.
    Step,
    /// Any other kind, unchanged.
    Other(String),
}

impl SpanKind {
    /// The kinds that a filter accepts, in the order of Datadog's documentation.
    pub const NAMED: [SpanKind; 9] = [
        SpanKind::Agent,
        SpanKind::Workflow,
        SpanKind::Llm,
        SpanKind::Tool,
        SpanKind::Task,
        SpanKind::Embedding,
        SpanKind::Retrieval,
        SpanKind::Experiment,
        SpanKind::Step,
    ];

    /// The wire form.
    pub fn as_str(&self) -> &str {
        match self {
            SpanKind::Agent => "agent",
            SpanKind::Workflow => "workflow",
            SpanKind::Llm => "llm",
            SpanKind::Tool => "tool",
            SpanKind::Task => "task",
            SpanKind::Embedding => "embedding",
            SpanKind::Retrieval => "retrieval",
            SpanKind::Experiment => "experiment",
            SpanKind::Step => "step",
            SpanKind::Other(text) => text,
        }
    }
}

impl From<&str> for SpanKind {
    fn from(text: &str) -> Self {
        Self::NAMED
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .unwrap_or_else(|| SpanKind::Other(text.to_owned()))
    }
}

impl From<String> for SpanKind {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<SpanKind> for String {
    fn from(kind: SpanKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for SpanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether an operation failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The operation succeeded.
    #[default]
    Ok,
    /// The operation failed.
    Error,
}

impl Status {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Error => "error",
        }
    }
}

/// The error of a failed span. Each field may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanError {
    /// The class of the error, for example `builtins.ConnectionError`.
    pub error_type: String,
    /// The message.
    pub message: String,
    /// The stack trace.
    pub stack: String,
}

impl SpanError {
    /// Whether all fields are empty.
    pub fn is_empty(&self) -> bool {
        self.error_type.is_empty() && self.message.is_empty() && self.stack.is_empty()
    }
}

/// The nearest enclosing agent, as the SDK reports it. Match by id: the name may be a class name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentAttribution {
    /// Name of the agent.
    pub name: String,
    /// Id of the agent's span.
    pub span_id: Option<SpanId>,
}

/// A link to another span. Resolve it by span id alone: the trace id may be an APM trace id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanLink {
    /// Id of the linked span; `undefined` when the SDK does not know it.
    pub span_id: String,
    /// An LLM Observability or APM trace id.
    pub trace_id: String,
    /// The ends of the link, for example `from: output`, `to: input`.
    pub attributes: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_values_may_contain_colons_and_repeat() {
        let span = Span {
            tags: vec![
                "url:http://a:1".into(),
                "k:".into(),
                "k:2".into(),
                "bare".into(),
            ],
            ..Span::default()
        };
        assert_eq!(span.tag("url"), Some("http://a:1"));
        assert_eq!(span.tag("k"), Some("2"));
        assert_eq!(span.tag_values("k").collect::<Vec<_>>(), ["", "2"]);
        assert_eq!(span.tag_values("bare").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn unknown_kind_is_kept() {
        assert_eq!(SpanKind::from("step"), SpanKind::Step);
        assert_eq!(SpanKind::from("reranker").as_str(), "reranker");
    }

    #[test]
    fn start_before_the_epoch_is_rounded_down() {
        let span = Span {
            start_ns: -1,
            duration_ns: 1_500,
            ..Span::default()
        };
        assert_eq!(span.start_ms(), -1);
        assert!((span.duration_ms() - 0.002).abs() < 1e-12);
    }
}
