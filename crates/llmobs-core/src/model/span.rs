//! A span: one operation of an LLM application.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cost::cost_usd;
use super::{Evaluation, Io, Message, SpanId, TraceId};

/// One operation of an LLM application, with what came along about it.
///
/// The pair `(trace_id, span_id)` identifies a span; the same span id in two traces is two spans.
/// As JSON, which is how the store keeps it, it leaves out what is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// The trace this span belongs to.
    pub trace_id: TraceId,
    /// This span within its trace.
    pub span_id: SpanId,
    /// The enclosing span; `None` on a root. May name a span that nobody ever sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SpanId>,
    /// The APM trace that ran at the same time, if known: a different id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apm_trace_id: Option<String>,
    /// Operation name.
    pub name: String,
    /// What kind of operation this is.
    pub kind: SpanKind,
    /// The application, Datadog's `ml_app`.
    pub ml_app: String,
    /// The service that ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The conversation it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Whether it failed.
    pub status: Status,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Length in nanoseconds.
    pub duration_ns: i64,
    /// Tags as sent, `key:value`; a value may hold colons, a key dots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Numeric metrics: token counts, seconds to first token, costs in USD.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Who served the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    /// Version of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_version: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SpanError>,
    /// What went in.
    #[serde(skip_serializing_if = "Io::is_empty")]
    pub input: Io,
    /// What came out.
    #[serde(skip_serializing_if = "Io::is_empty")]
    pub output: Io,
    /// What should have come out (experiments).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The tools that the model was offered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_definitions: Vec<Value>,
    /// Why the operation was done, in the caller's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// The nearest enclosing agent, as the SDK saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentAttribution>,
    /// Links to other spans.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SpanLink>,
    /// What the intake could not take as it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collection_errors: Vec<String>,
    /// `experiments` for spans of an experiment run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Keys of the span that this type has no field for, kept as they came.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// Keys of the span's `meta` that this type has no field for, kept as they came.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta_extra: Map<String, Value>,
    /// Evaluations joined to this span, by label; the newest of each label.
    #[serde(skip)]
    pub evaluations: BTreeMap<String, Evaluation>,
    /// End-user feedback joined to this span, by label; the newest of each label.
    #[serde(skip)]
    pub feedback: BTreeMap<String, Evaluation>,
}

impl Span {
    /// Start in whole milliseconds since the Unix epoch.
    pub fn start_ms(&self) -> i64 {
        self.start_ns.div_euclid(1_000_000)
    }

    /// Length in milliseconds, with microseconds kept as decimals.
    pub fn duration_ms(&self) -> f64 {
        // Both steps are exact below 2^53 µs, which is 285 years.
        (self.duration_ns as f64 / 1_000.0).round() / 1_000.0
    }

    /// End in nanoseconds since the Unix epoch; never before the start.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add(self.duration_ns.max(0))
    }

    /// Whether no other span encloses this one.
    pub fn is_root(&self) -> bool {
        self.parent_id.is_none()
    }

    /// Whether the span ended in an error.
    pub fn is_error(&self) -> bool {
        self.status == Status::Error
    }

    /// The values of a tag, in the order sent. `key` stands before the first colon.
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

    /// One metric, if sent.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// The cost in USD, if any was sent.
    pub fn cost_usd(&self) -> Option<f64> {
        cost_usd(
            self.metric("estimated_total_cost"),
            self.metric("total_cost"),
        )
    }

    /// Input messages, then output messages: the conversation as one list.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.input.messages.iter().chain(&self.output.messages)
    }

    /// Documents: those that came out (a retrieval), else those that went in (an embedding).
    pub fn documents(&self) -> &[Value] {
        if self.output.documents.is_empty() {
            &self.input.documents
        } else {
            &self.output.documents
        }
    }
}

/// What kind of operation a span is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SpanKind {
    /// An agent deciding what to do.
    Agent,
    /// A fixed sequence of steps; also what unknown operations become.
    #[default]
    Workflow,
    /// A call of a language model.
    Llm,
    /// A call of a tool.
    Tool,
    /// A step without a call to the outside.
    Task,
    /// A call of an embedding model.
    Embedding,
    /// A look-up of documents.
    Retrieval,
    /// The root of one record's run in an experiment.
    Experiment,
    /// One inference step of a coding agent.
    Step,
    /// A kind this version does not know, kept as sent.
    Other(String),
}

impl SpanKind {
    /// The kinds that a caller may name, in the order of the documentation.
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

    /// The kind as the wire writes it.
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
    /// It returned.
    #[default]
    Ok,
    /// It raised.
    Error,
}

impl Status {
    /// The status as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Error => "error",
        }
    }
}

/// What a failed span said of its failure. Each part may be empty.
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
    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.error_type.is_empty() && self.message.is_empty() && self.stack.is_empty()
    }
}

/// The nearest enclosing agent, as the SDK saw it. Match by id: the name may be a class name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentAttribution {
    /// Name of the agent.
    pub name: String,
    /// Its span.
    pub span_id: Option<SpanId>,
}

/// A link to another span. Resolve it by span id alone: the trace id may be the APM one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanLink {
    /// The span linked to; `undefined` when the SDK did not know it.
    pub span_id: String,
    /// A trace id, of either sort.
    pub trace_id: String,
    /// For example `from: output`, `to: input`.
    pub attributes: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_value_may_hold_colons_and_be_repeated() {
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
    fn an_unknown_kind_is_kept_under_its_name() {
        assert_eq!(SpanKind::from("step"), SpanKind::Step);
        assert_eq!(SpanKind::from("reranker").as_str(), "reranker");
    }

    #[test]
    fn milliseconds_floor_before_the_epoch_too() {
        let span = Span {
            start_ns: -1,
            duration_ns: 1_500,
            ..Span::default()
        };
        assert_eq!(span.start_ms(), -1);
        assert!((span.duration_ms() - 0.002).abs() < 1e-12);
    }
}
