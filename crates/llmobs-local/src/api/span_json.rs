//! A span as JSON: the documented attributes, and undocumented ones for their gaps.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use llmobs_core::json::json_exceeds;
use llmobs_core::model::{Evaluation, Io, ROOT_PARENT, Span};

/// Largest content that is not an attachment.
const MAX_INLINE_BYTES: usize = 25 * 1024;

/// One entry of `data`. It is serialized directly into the response: a page may have thousands.
#[derive(Clone, Copy)]
pub(super) struct SpanItem<'a> {
    pub(super) span: &'a Span,
    /// Whether to write attachments. Otherwise a key takes their place.
    pub(super) with_attachments: bool,
}

impl Serialize for SpanItem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        // A span id is unique within its trace only.
        let id = format_args!("{}-{}", self.span.trace_id, self.span.span_id);
        map.serialize_entry("id", &id)?;
        map.serialize_entry("type", "span")?;
        map.serialize_entry("attributes", &SpanAttributes(*self))?;
        map.end()
    }
}

struct SpanAttributes<'a>(SpanItem<'a>);

impl Serialize for SpanAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SpanItem {
            span,
            with_attachments,
        } = self.0;
        let mut map = NonEmptyMap(serializer.serialize_map(None)?);
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
            let content = IoJson {
                io,
                with_attachments,
            };
            if content.is_omitted() {
                let key = format!("{}/{}/{name}", span.trace_id, span.span_id);
                map.put(name, &json!({"attachment_key": key}))?;
            } else {
                map.put_if(!content.is_empty(), name, &content)?;
            }
        }
        map.list("tool_definitions", &span.tool_definitions)?;
        map.evaluations("evaluation", &span.evaluations)?;
        write_undocumented(&mut map, span)?;
        map.0.end()
    }
}

fn write_undocumented<M: SerializeMap>(
    map: &mut NonEmptyMap<M>,
    span: &Span,
) -> Result<(), M::Error> {
    map.evaluations("feedback", &span.feedback)?;
    map.put_if(span.error.is_some(), "error", &error_json(span))?;
    map.option("session_id", span.session_id.as_ref())?;
    map.option("service", span.service.as_ref())?;
    map.option("apm_trace_id", span.apm_trace_id.as_ref())?;
    map.option("model_version", span.model_version.as_ref())?;
    let expected = span.expected_output.as_ref();
    map.option(
        "expected_output",
        expected.filter(|value| !is_empty_value(value)),
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

/// Writes an object without empty entries.
struct NonEmptyMap<M>(M);

impl<M: SerializeMap> NonEmptyMap<M> {
    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), M::Error> {
        self.0.serialize_entry(key, value)
    }

    fn put_if<T: Serialize>(
        &mut self,
        condition: bool,
        key: &str,
        value: &T,
    ) -> Result<(), M::Error> {
        if condition {
            self.put(key, value)
        } else {
            Ok(())
        }
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

    fn evaluations(
        &mut self,
        key: &str,
        entries: &BTreeMap<String, Evaluation>,
    ) -> Result<(), M::Error> {
        self.put_if(!entries.is_empty(), key, &EvaluationMap(entries))
    }
}

fn is_empty_value(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Input or output.
///
/// The documented `value` is text. A value of another type is written as JSON text, and unchanged
/// under the undocumented `raw_value`.
struct IoJson<'a> {
    io: &'a Io,
    with_attachments: bool,
}

impl IoJson<'_> {
    fn value(&self) -> Option<&Value> {
        self.io.value.as_ref().filter(|value| !value.is_null())
    }

    fn is_empty(&self) -> bool {
        self.value().is_none() && self.io.messages.is_empty() && self.io.is_empty()
    }

    /// Whether the content is an attachment to leave out.
    fn is_omitted(&self) -> bool {
        !self.with_attachments && json_exceeds(self, MAX_INLINE_BYTES)
    }
}

impl Serialize for IoJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let io = self.io;
        let mut map = NonEmptyMap(serializer.serialize_map(None)?);
        match self.value() {
            None => {}
            Some(Value::String(text)) => map.put("value", text)?,
            Some(other) => {
                map.put("value", &other.to_string())?;
                map.put("raw_value", other)?;
            }
        }
        map.list("messages", &io.messages)?;
        map.list("documents", &io.documents)?;
        map.option("prompt", io.prompt.as_ref())?;
        for (key, value) in &io.extra {
            let is_written = match key.as_str() {
                "value" => self.value().is_some(),
                "raw_value" => self.value().is_some_and(|value| !value.is_string()),
                "messages" => !io.messages.is_empty(),
                "documents" => !io.documents.is_empty(),
                "prompt" => io.prompt.is_some(),
                _ => false,
            };
            map.put_if(!is_written, key, value)?;
        }
        map.0.end()
    }
}

/// The error of a span, or null.
pub(super) fn error_json(span: &Span) -> Value {
    span.error.as_ref().map_or(
        Value::Null,
        |error| json!({"type": error.error_type, "message": error.message, "stack": error.stack}),
    )
}

struct EvaluationMap<'a>(&'a BTreeMap<String, Evaluation>);

impl Serialize for EvaluationMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter();
        serializer
            .collect_map(entries.map(|(label, evaluation)| (label, evaluation_json(evaluation))))
    }
}

fn evaluation_json(evaluation: &Evaluation) -> Value {
    let mut map = Map::new();
    map.insert(
        "eval_metric_type".to_owned(),
        json!(evaluation.metric_type.as_str()),
    );
    map.insert("status".to_owned(), json!(evaluation.status.as_str()));
    let assessment = evaluation.assessment.map(|assessment| assessment.as_str());
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
    map.insert("timestamp_ms".to_owned(), json!(evaluation.timestamp_ms));
    if !evaluation.extra.is_empty() {
        map.insert("extra".to_owned(), json!(evaluation.extra));
    }
    Value::Object(map)
}
