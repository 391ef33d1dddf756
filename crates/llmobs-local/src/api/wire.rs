//! A span as the documented attributes, and the undocumented ones that fill their gaps.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use llmobs_core::model::{Evaluation, Io, ROOT_PARENT, Span};

/// Content above this size is an attachment, which is left out on request.
const ATTACHMENT_BYTES: usize = 25 * 1024;

/// How much of a span is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Documented attributes only.
    pub(super) documented_only: bool,
    /// Content that counts as an attachment stands in place.
    pub(super) attachments: bool,
}

/// One entry of `data`. It is written straight into the answer: a page may hold thousands.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) span: &'a Span,
    pub(super) shape: Shape,
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        // A span id is unique within its trace only.
        let id = format_args!("{}-{}", self.span.trace_id, self.span.span_id);
        map.serialize_entry("id", &id)?;
        map.serialize_entry("type", "span")?;
        map.serialize_entry("attributes", &Attributes(*self))?;
        map.end()
    }
}

struct Attributes<'a>(Item<'a>);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Item { span, shape } = self.0;
        let mut map = Filled(serializer.serialize_map(None)?);
        map.put("span_id", &span.span_id)?;
        map.put("trace_id", &span.trace_id)?;
        let parent = span.parent_id.as_ref();
        map.put("parent_id", parent.map_or(ROOT_PARENT, |id| id.as_str()))?;
        map.put("name", &span.name)?;
        map.put("span_kind", span.kind.as_str())?;
        map.put("status", span.status.as_str())?;
        map.put("ml_app", &span.ml_app)?;
        map.put("start_ns", &span.start_ns)?;
        map.put("duration", &span.duration_ns)?;
        map.list("tags", &span.tags)?;
        map.object("metadata", &span.metadata)?;
        map.put_if(!span.metrics.is_empty(), "metrics", &span.metrics)?;
        map.option("model_name", span.model_name.as_ref())?;
        map.option("model_provider", span.model_provider.as_ref())?;
        map.option("intent", span.intent.as_ref())?;
        for (name, io) in [("input", &span.input), ("output", &span.output)] {
            let content = Content { io, shape };
            if content.is_attachment() {
                let key = format!("{}/{}/{name}", span.trace_id, span.span_id);
                map.put(name, &json!({"attachment_key": key}))?;
            } else {
                map.put_if(!content.is_empty(), name, &content)?;
            }
        }
        map.list("tool_definitions", &span.tool_definitions)?;
        map.judgements("evaluation", &span.evaluations, shape)?;
        if !shape.documented_only {
            undocumented(&mut map, span, shape)?;
        }
        map.0.end()
    }
}

fn undocumented<M: SerializeMap>(
    map: &mut Filled<M>,
    span: &Span,
    shape: Shape,
) -> Result<(), M::Error> {
    map.judgements("feedback", &span.feedback, shape)?;
    map.put_if(span.error.is_some(), "error", &error(span))?;
    map.option("session_id", span.session_id.as_ref())?;
    map.option("service", span.service.as_ref())?;
    map.option("apm_trace_id", span.apm_trace_id.as_ref())?;
    map.option("model_version", span.model_version.as_ref())?;
    let expected = span.expected_output.as_ref();
    map.option(
        "expected_output",
        expected.filter(|value| !is_hollow(value)),
    )?;
    map.option("scope", span.scope.as_ref())?;
    map.list("collection_errors", &span.collection_errors)?;
    map.list("span_links", &span.links)?;
    if let Some(agent) = &span.agent {
        let agent = json!({"pagent_name": agent.name, "pagent_span_id": agent.span_id});
        map.put("agent_attribution", &agent)?;
    }
    map.object("extra", &span.extra)?;
    map.object("meta_extra", &span.meta_extra)
}

/// An object without the keys that have nothing to say.
struct Filled<M>(M);

impl<M: SerializeMap> Filled<M> {
    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), M::Error> {
        self.0.serialize_entry(key, value)
    }

    fn put_if<T: Serialize>(&mut self, wanted: bool, key: &str, value: &T) -> Result<(), M::Error> {
        if wanted { self.put(key, value) } else { Ok(()) }
    }

    fn option<T: Serialize>(&mut self, key: &str, value: Option<&T>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(key, value))
    }

    fn list<T: Serialize>(&mut self, key: &str, items: &[T]) -> Result<(), M::Error> {
        if items.is_empty() {
            Ok(())
        } else {
            self.put(key, items)
        }
    }

    fn object(&mut self, key: &str, entries: &Map<String, Value>) -> Result<(), M::Error> {
        self.put_if(!entries.is_empty(), key, entries)
    }

    fn judgements(
        &mut self,
        key: &str,
        entries: &BTreeMap<String, Evaluation>,
        shape: Shape,
    ) -> Result<(), M::Error> {
        self.put_if(!entries.is_empty(), key, &Judgements(entries, shape))
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Input or output.
///
/// The documented `value` is text. A value of another type is given as its JSON text, and as it
/// is under the undocumented `raw_value`.
struct Content<'a> {
    io: &'a Io,
    shape: Shape,
}

impl Content<'_> {
    fn value(&self) -> Option<&Value> {
        self.io.value.as_ref().filter(|value| !value.is_null())
    }

    fn is_empty(&self) -> bool {
        let documented = self.value().is_none() && self.io.messages.is_empty();
        documented && (self.shape.documented_only || self.io.is_empty())
    }

    /// Whether it is left out because attachments are not wanted and it is large enough for one.
    fn is_attachment(&self) -> bool {
        !self.shape.attachments && serde_json::to_writer(Allowance(ATTACHMENT_BYTES), self).is_err()
    }
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let io = self.io;
        let documented_only = self.shape.documented_only;
        let mut map = Filled(serializer.serialize_map(None)?);
        match self.value() {
            None => {}
            Some(Value::String(text)) => map.put("value", text)?,
            Some(other) => {
                map.put("value", &other.to_string())?;
                map.put_if(!documented_only, "raw_value", other)?;
            }
        }
        map.list("messages", &io.messages)?;
        if documented_only {
            return map.0.end();
        }
        map.list("documents", &io.documents)?;
        map.option("prompt", io.prompt.as_ref())?;
        for (key, value) in &io.extra {
            let stands = match key.as_str() {
                "value" => self.value().is_some(),
                "raw_value" => self.value().is_some_and(|value| !value.is_string()),
                "messages" => !io.messages.is_empty(),
                "documents" => !io.documents.is_empty(),
                "prompt" => io.prompt.is_some(),
                _ => false,
            };
            map.put_if(!stands, key, value)?;
        }
        map.0.end()
    }
}

/// Takes so many bytes to nowhere, and fails at the next one.
struct Allowance(usize);

impl std::io::Write for Allowance {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What went wrong, as the private endpoints write it too; null when nothing is known.
pub(super) fn error(span: &Span) -> Value {
    span.error.as_ref().map_or(
        Value::Null,
        |error| json!({"type": error.error_type, "message": error.message, "stack": error.stack}),
    )
}

struct Judgements<'a>(&'a BTreeMap<String, Evaluation>, Shape);

impl Serialize for Judgements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter();
        serializer.collect_map(entries.map(|(label, one)| (label, judgement(one, self.1))))
    }
}

fn judgement(evaluation: &Evaluation, shape: Shape) -> Value {
    let mut map = Map::new();
    map.insert(
        "eval_metric_type".to_owned(),
        json!(evaluation.metric_type.as_str()),
    );
    map.insert("status".to_owned(), json!(evaluation.status.as_str()));
    let assessment = evaluation.assessment.map(|verdict| verdict.as_str());
    let optional = [
        ("value", json!(evaluation.value)),
        ("assessment", json!(assessment)),
        ("reasoning", json!(evaluation.reasoning)),
        ("error", json!(evaluation.error)),
    ];
    for (key, value) in optional {
        if !value.is_null() {
            map.insert(key.to_owned(), value);
        }
    }
    if !evaluation.tags.is_empty() {
        map.insert("tags".to_owned(), json!(evaluation.tags));
    }
    if !evaluation.metadata.is_empty() {
        map.insert(
            "eval_metric_metadata".to_owned(),
            json!(evaluation.metadata),
        );
    }
    if !shape.documented_only {
        map.insert("timestamp_ms".to_owned(), json!(evaluation.timestamp_ms));
        if !evaluation.extra.is_empty() {
            map.insert("extra".to_owned(), json!(evaluation.extra));
        }
    }
    Value::Object(map)
}
