//! The values of a facet on a span.
//!
//! `@x` reads the attribute, or the tag `x` where there is no such attribute; `x` reads the tag,
//! or the attribute where there is no such tag. Datadog keeps the two separate and finds nothing
//! where a query confuses them; this module accepts both. `documented.rs` tests every facet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::json::{values_at_path, values_in};
use super::{SpanContext, TimeUnit};
use crate::model::{Evaluation, Io, ROOT_PARENT, Span, TraceRollup};

/// One value of a facet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FacetValue<'a> {
    /// Text. Empty text does not count as present.
    Text(Cow<'a, str>),
    /// A number, with the unit to which a query's number is converted.
    Number {
        /// The number.
        number: StoredNumber<'a>,
        /// Its unit, if it is a time.
        unit: TimeUnit,
    },
    /// A value that is neither text nor a number: an object, or a failed evaluation.
    Present,
}

/// The values of a facet on a span: nearly always one or none.
pub(super) type FacetValues<'a> = SmallVec<[FacetValue<'a>; 1]>;

/// A number as the span stores it. `Display` writes it without a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum StoredNumber<'a> {
    Float(f64),
    Integer(i64),
    Json(&'a serde_json::Number),
}

impl StoredNumber<'_> {
    /// The value as a float; NaN for a JSON number that a float cannot hold.
    pub(super) fn value(self) -> f64 {
        match self {
            StoredNumber::Float(value) => value,
            StoredNumber::Integer(value) => value as f64,
            StoredNumber::Json(number) => number.as_f64().unwrap_or(f64::NAN),
        }
    }
}

impl fmt::Display for StoredNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredNumber::Float(value) => value.fmt(f),
            StoredNumber::Integer(value) => value.fmt(f),
            StoredNumber::Json(number) => number.fmt(f),
        }
    }
}

impl<'a> FacetValue<'a> {
    fn text(text: &'a str) -> Self {
        FacetValue::Text(Cow::Borrowed(text))
    }

    fn float(value: f64) -> Self {
        FacetValue::time(value, TimeUnit::Nanoseconds)
    }

    fn time(value: f64, unit: TimeUnit) -> Self {
        FacetValue::Number {
            number: StoredNumber::Float(value),
            unit,
        }
    }

    fn integer(value: i64, unit: TimeUnit) -> Self {
        FacetValue::Number {
            number: StoredNumber::Integer(value),
            unit,
        }
    }

    /// The facet value of a JSON value; `None` for null and for empty lists and objects.
    fn json(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(true) => Some(FacetValue::text("true")),
            Value::Bool(false) => Some(FacetValue::text("false")),
            Value::String(text) => Some(FacetValue::text(text)),
            Value::Number(number) => Some(FacetValue::Number {
                number: StoredNumber::Json(number),
                unit: TimeUnit::Nanoseconds,
            }),
            Value::Array(items) if items.is_empty() => None,
            Value::Object(members) if members.is_empty() => None,
            Value::Array(_) | Value::Object(_) => Some(FacetValue::Present),
        }
    }

    /// Whether the value counts as present: anything but empty text.
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, FacetValue::Text(text) if text.is_empty())
    }
}

/// The values of `@name`.
pub(super) fn attribute_values<'a>(name: &str, context: &SpanContext<'a>) -> FacetValues<'a> {
    first_present(attribute(name, context), || tag(context.span, name))
}

/// The values of `name`.
pub(super) fn tag_values<'a>(name: &str, context: &SpanContext<'a>) -> FacetValues<'a> {
    first_present(tag(context.span, name), || attribute(name, context))
}

/// The values of `@name` and of `name`.
pub(super) enum LookupValues<'a> {
    /// Both lookups return these values.
    Same(FacetValues<'a>),
    /// The lookups return different values, or the same values in another order.
    Different {
        attribute: FacetValues<'a>,
        tag: FacetValues<'a>,
    },
}

/// The values of `@name` and of `name`, each read once.
pub(super) fn lookup_both<'a>(name: &str, context: &SpanContext<'a>) -> LookupValues<'a> {
    let (attributes, tags) = (attribute(name, context), tag(context.span, name));
    if tags.is_empty() {
        return LookupValues::Same(attributes);
    }
    if attributes.is_empty() {
        return LookupValues::Same(tags);
    }
    let attribute = first_present(attributes.clone(), || tags.clone());
    let tag = first_present(tags, || attributes);
    if attribute == tag {
        LookupValues::Same(tag)
    } else {
        LookupValues::Different { attribute, tag }
    }
}

fn first_present<'a>(
    mut first: FacetValues<'a>,
    second: impl FnOnce() -> FacetValues<'a>,
) -> FacetValues<'a> {
    if !first.iter().any(FacetValue::is_present) {
        first.extend(second());
    }
    first
}

/// The values of a tag. Keys and values may contain colons: `a:b:c` is `a` = `b:c` as well as
/// `a:b` = `c`. A tag without a colon has no key; `tags:name` finds it.
fn tag<'a>(span: &'a Span, key: &str) -> FacetValues<'a> {
    let value = |tag: &'a String| {
        // The position of the colon rules out most tags.
        if tag.as_bytes().get(key.len()) != Some(&b':') {
            return None;
        }
        tag.strip_prefix(key)?.strip_prefix(':')
    };
    span.tags
        .iter()
        .filter_map(value)
        .map(FacetValue::text)
        .collect()
}

/// The values of a well-known attribute.
fn attribute<'a>(name: &str, context: &SpanContext<'a>) -> FacetValues<'a> {
    let span = context.span;
    if let Some((family, rest)) = name.split_once('.') {
        match family {
            "meta" => return meta(rest, span),
            "metrics" => return metric(rest, span),
            "evaluations" | "evaluation" => return evaluation(rest, &span.evaluations),
            "feedback" => return evaluation_values(rest, &span.feedback),
            "trace" => return rollup(rest, context),
            _ => {}
        }
    }
    let value = match name {
        "ml_app" => FacetValue::text(&span.ml_app),
        "name" => FacetValue::text(&span.name),
        "status" => FacetValue::text(span.status.as_str()),
        "duration" => FacetValue::integer(span.duration_ns, TimeUnit::Nanoseconds),
        "timestamp" => FacetValue::integer(span.start_ms(), TimeUnit::Milliseconds),
        "trace_id" => FacetValue::text(span.trace_id.as_str()),
        "span_id" => FacetValue::text(span.span_id.as_str()),
        "parent_id" => match &span.parent_id {
            Some(parent) => FacetValue::text(parent.as_str()),
            None => FacetValue::text(ROOT_PARENT),
        },
        "apm_trace_id" => return optional(span.apm_trace_id.as_deref()),
        "session_id" | "session.id" => {
            return first_present(optional(span.session_id.as_deref()), || {
                tag(span, "session_id")
            });
        }
        "service" => return optional(span.service.as_deref()),
        "event_type" => FacetValue::text("span"),
        "event_kind" => return joined_event_kinds(span),
        "collection_errors" => return texts(&span.collection_errors),
        "tags" => return texts(&span.tags),
        other => return leaves(values_at_path(&span.extra, other)),
    };
    smallvec![value]
}

fn optional(text: Option<&str>) -> FacetValues<'_> {
    text.map(FacetValue::text).into_iter().collect()
}

fn texts(texts: &[String]) -> FacetValues<'_> {
    texts.iter().map(|text| FacetValue::text(text)).collect()
}

fn leaves(values: Vec<&Value>) -> FacetValues<'_> {
    values.into_iter().filter_map(FacetValue::json).collect()
}

fn joined_event_kinds(span: &Span) -> FacetValues<'_> {
    let kinds = [
        ("evaluation", span.evaluations.is_empty()),
        ("feedback", span.feedback.is_empty()),
    ];
    let joined = kinds.into_iter().filter(|(_, absent)| !absent);
    joined.map(|(kind, _)| FacetValue::text(kind)).collect()
}

/// `@meta.<path>`.
fn meta<'a>(path: &str, span: &'a Span) -> FacetValues<'a> {
    match path {
        "span.kind" | "kind" => return smallvec![FacetValue::text(span.kind.as_str())],
        "span.name" => return smallvec![FacetValue::text(&span.name)],
        "intent" => return optional(span.intent.as_deref()),
        "model_name" => return model_field(span.model_name.as_deref(), path, span),
        "model_provider" => return model_field(span.model_provider.as_deref(), path, span),
        "model_version" => return model_field(span.model_version.as_deref(), path, span),
        "input" | "output" | "error" | "expected_output" | "tool_definitions" => {
            return presence(path, span);
        }
        _ => {}
    }
    if let Some((family, rest)) = path.split_once('.') {
        match family {
            "error" => return error(rest, span),
            "metadata" => return leaves(values_at_path(&span.metadata, rest)),
            "input" => return io(rest, &span.input),
            "output" => return io(rest, &span.output),
            "expected_output" => {
                let expected = span.expected_output.iter();
                return leaves(expected.flat_map(|value| values_in(value, rest)).collect());
            }
            "tool_definitions" => {
                let tools = span.tool_definitions.iter();
                return leaves(tools.flat_map(|value| values_in(value, rest)).collect());
            }
            "agent_attribution" => return agent_attribution(rest, span),
            _ => {}
        }
    }
    leaves(values_at_path(&span.meta_extra, path))
}

/// A model attribute. Some frameworks report it in the metadata only.
fn model_field<'a>(value: Option<&'a str>, path: &str, span: &'a Span) -> FacetValues<'a> {
    first_present(optional(value), || {
        leaves(values_at_path(&span.metadata, path))
    })
}

/// A complete section of `meta`: present or not; the value itself for a scalar `expected_output`.
fn presence<'a>(section: &str, span: &'a Span) -> FacetValues<'a> {
    let present = match section {
        "input" => !span.input.is_empty(),
        "output" => !span.output.is_empty(),
        "error" => span.error.as_ref().is_some_and(|error| !error.is_empty()),
        "tool_definitions" => !span.tool_definitions.is_empty(),
        _ => return leaves(span.expected_output.iter().collect()),
    };
    present.then_some(FacetValue::Present).into_iter().collect()
}

fn error<'a>(path: &str, span: &'a Span) -> FacetValues<'a> {
    let value = span.error.as_ref().and_then(|error| match path {
        "type" => Some(error.error_type.as_str()),
        "message" => Some(error.message.as_str()),
        "stack" => Some(error.stack.as_str()),
        _ => None,
    });
    optional(value)
}

fn agent_attribution<'a>(path: &str, span: &'a Span) -> FacetValues<'a> {
    let value = span.agent.as_ref().and_then(|agent| match path {
        "pagent_name" => Some(agent.name.as_str()),
        "pagent_span_id" => agent.span_id.as_ref().map(|id| id.as_str()),
        _ => None,
    });
    optional(value)
}

/// `@meta.input.<path>` and `@meta.output.<path>`.
fn io<'a>(path: &str, io: &'a Io) -> FacetValues<'a> {
    let (section, rest) = path.split_once('.').unwrap_or((path, ""));
    match section {
        "value" => match io.value.as_ref().filter(|value| !value.is_null()) {
            Some(value) => leaves(values_in(value, rest)),
            // The value of chat messages is the last user message, or all messages.
            None if rest.is_empty() => io.text().map(FacetValue::Text).into_iter().collect(),
            None => FacetValues::new(),
        },
        "messages" => {
            let messages = io.messages.iter();
            leaves(
                messages
                    .flat_map(|message| values_in(&message.0, rest))
                    .collect(),
            )
        }
        "documents" => {
            let documents = io.documents.iter();
            leaves(documents.flat_map(|value| values_in(value, rest)).collect())
        }
        "prompt" => {
            let prompt = io.prompt.iter();
            leaves(prompt.flat_map(|value| values_in(value, rest)).collect())
        }
        _ => leaves(values_at_path(&io.extra, path)),
    }
}

fn metric<'a>(name: &str, span: &'a Span) -> FacetValues<'a> {
    let value = span.metric(name).map(|value| match name {
        // The only metrics that are durations; SDKs send them in seconds.
        "time_to_first_token" | "time_per_output_token" => {
            FacetValue::time(value, TimeUnit::Seconds)
        }
        _ => FacetValue::float(value),
    });
    value.into_iter().collect()
}

/// `@evaluations.<path>`, with or without `custom.` before the label.
fn evaluation<'a>(path: &str, evaluations: &'a BTreeMap<String, Evaluation>) -> FacetValues<'a> {
    let mut values = evaluation_values(path, evaluations);
    if let Some(path) = path.strip_prefix("custom.") {
        values.extend(evaluation_values(path, evaluations));
    }
    values
}

/// `<label>`, `<label>.value`, `<label>.assessment` and the other keys of an evaluation. A path
/// into a JSON value works with and without `value`.
pub(super) fn evaluation_values<'a>(
    path: &str,
    evaluations: &'a BTreeMap<String, Evaluation>,
) -> FacetValues<'a> {
    let mut values = FacetValues::new();
    for (label, evaluation) in evaluations {
        let Some(rest) = path.strip_prefix(label.as_str()) else {
            continue;
        };
        if rest.is_empty() {
            // A failed evaluation has no value but is present.
            let value = evaluation.value.as_ref().and_then(FacetValue::json);
            values.push(value.unwrap_or(FacetValue::Present));
        } else if let Some(key) = rest.strip_prefix('.') {
            values.extend(evaluation_key(key, evaluation));
        }
    }
    values
}

fn evaluation_key<'a>(key: &str, evaluation: &'a Evaluation) -> FacetValues<'a> {
    let value = evaluation.value.as_ref();
    match key {
        "value" => value.and_then(FacetValue::json).into_iter().collect(),
        "assessment" => optional(evaluation.assessment.map(|assessment| assessment.as_str())),
        "reasoning" => optional(evaluation.reasoning.as_deref()),
        "status" => smallvec![FacetValue::text(evaluation.status.as_str())],
        "eval_metric_type" | "metric_type" => {
            smallvec![FacetValue::text(evaluation.metric_type.as_str())]
        }
        "tags" => texts(&evaluation.tags),
        _ => {
            if let Some(path) = key.strip_prefix("metadata.") {
                return leaves(values_at_path(&evaluation.metadata, path));
            }
            let path = key.strip_prefix("value.").unwrap_or(key);
            leaves(
                value
                    .into_iter()
                    .flat_map(|value| values_in(value, path))
                    .collect(),
            )
        }
    }
}

/// `@trace.<name>`: totals of the trace, which only its root spans have.
fn rollup<'a>(name: &str, context: &SpanContext<'a>) -> FacetValues<'a> {
    let totals = context.rollup.filter(|_| context.span.is_root());
    let value = totals.and_then(|totals| rollup_value(name, totals));
    value.map(FacetValue::float).into_iter().collect()
}

fn rollup_value(name: &str, totals: &TraceRollup) -> Option<f64> {
    Some(match name {
        "total_tokens" => totals.total_tokens,
        "input_tokens" => totals.input_tokens,
        "output_tokens" => totals.output_tokens,
        "estimated_total_cost" => totals.estimated_total_cost,
        "llm_calls" => totals.llm_calls as f64,
        "tool_calls" => totals.tool_calls as f64,
        "number_of_tools" => totals.number_of_tools as f64,
        "number_of_errors" => totals.number_of_errors as f64,
        "num_evaluations_failed" => totals.num_evaluations_failed as f64,
        _ => return None,
    })
}

/// Attributes of a Datadog site that belong to no family.
const TOP_LEVEL_ATTRIBUTES: &[&str] = &[
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
    "env",
    "version",
    "source",
    "language",
    "hostname",
    "event_type",
    "event_kind",
    "collection_errors",
    "experiment_id",
    "tags",
    "feedback_join_key",
];

/// Attributes in `meta`; a name that ends in a dot is the prefix of a path.
const META_ATTRIBUTES: &[&str] = &[
    "span.kind",
    "span.name",
    "kind",
    "intent",
    "model_name",
    "model_provider",
    "model_version",
    "error",
    "error.type",
    "error.message",
    "error.stack",
    "input",
    "input.",
    "output",
    "output.",
    "expected_output",
    "expected_output.",
    "metadata.",
    "tool_definitions",
    "tool_definitions.",
    "tool.",
    "agent_attribution.",
    "embedding_for_prompt_idx",
];

/// Whether `@name` is a facet of LLM spans on a Datadog site and in the local backend.
pub(super) fn is_known_attribute(name: &str) -> bool {
    let Some((family, rest)) = name.split_once('.') else {
        return TOP_LEVEL_ATTRIBUTES.contains(&name);
    };
    match family {
        "meta" => META_ATTRIBUTES.iter().any(|attribute| match attribute {
            prefix if prefix.ends_with('.') => {
                rest.len() > prefix.len() && rest.starts_with(prefix)
            }
            attribute => rest == *attribute,
        }),
        "trace" => rollup_value(rest, &TraceRollup::default()).is_some(),
        "metrics" | "evaluations" | "evaluation" | "feedback" => !rest.is_empty(),
        _ => TOP_LEVEL_ATTRIBUTES.contains(&name),
    }
}
