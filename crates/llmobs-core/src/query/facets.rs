//! Which values a facet has on a span.
//!
//! `@x` is an attribute, else the tag `x`; `x` is the tag, else the attribute. Datadog keeps the
//! two apart and finds nothing where they are mixed up; finding the span is worth more.
//! The table in `documented.rs` holds every facet to its meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::json::{at_path, inside};
use super::{SpanContext, TimeUnit};
use crate::model::{Evaluation, Io, ROOT_PARENT, Span, TraceRollup};

/// One value of a facet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FacetValue<'a> {
    /// Text; empty text counts as no value where presence is asked for.
    Text(Cow<'a, str>),
    /// A number with the unit that it is kept in, which a literal's unit is converted to.
    Number {
        /// The number.
        number: Numeral<'a>,
        /// Its unit, if it is a time.
        unit: TimeUnit,
    },
    /// Something that is there but is no text and no number: an object, a failed evaluation.
    Present,
}

/// The values of a facet on a span: nearly always one, or none.
pub(super) type Values<'a> = SmallVec<[FacetValue<'a>; 1]>;

/// A number as the span keeps it; displayed as it is written without a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Numeral<'a> {
    Float(f64),
    Integer(i64),
    Json(&'a serde_json::Number),
}

impl Numeral<'_> {
    /// Its value; what JSON holds and a float does not is no number.
    pub(super) fn value(self) -> f64 {
        match self {
            Numeral::Float(value) => value,
            Numeral::Integer(value) => value as f64,
            Numeral::Json(number) => number.as_f64().unwrap_or(f64::NAN),
        }
    }
}

impl fmt::Display for Numeral<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numeral::Float(value) => value.fmt(f),
            Numeral::Integer(value) => value.fmt(f),
            Numeral::Json(number) => number.fmt(f),
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
            number: Numeral::Float(value),
            unit,
        }
    }

    fn integer(value: i64, unit: TimeUnit) -> Self {
        FacetValue::Number {
            number: Numeral::Integer(value),
            unit,
        }
    }

    /// The value that a JSON value is; null is none.
    fn json(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(true) => Some(FacetValue::text("true")),
            Value::Bool(false) => Some(FacetValue::text("false")),
            Value::String(text) => Some(FacetValue::text(text)),
            Value::Number(number) => Some(FacetValue::Number {
                number: Numeral::Json(number),
                unit: TimeUnit::Nanoseconds,
            }),
            Value::Array(items) if items.is_empty() => None,
            Value::Object(members) if members.is_empty() => None,
            Value::Array(_) | Value::Object(_) => Some(FacetValue::Present),
        }
    }

    /// Whether the facet is there: anything but empty text.
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, FacetValue::Text(text) if text.is_empty())
    }
}

/// The values of `@name`.
pub(super) fn of_attribute<'a>(name: &str, context: &SpanContext<'a>) -> Values<'a> {
    first_present(attribute(name, context), || tag(context.span, name))
}

/// The values of `name`.
pub(super) fn of_tag<'a>(name: &str, context: &SpanContext<'a>) -> Values<'a> {
    first_present(tag(context.span, name), || attribute(name, context))
}

/// The values of `@name` and of `name`.
pub(super) enum Sides<'a> {
    /// Both have these.
    Same(Values<'a>),
    /// They have different ones, or the same in another order.
    Different {
        attribute: Values<'a>,
        tag: Values<'a>,
    },
}

/// The values of `@name` and of `name`, each looked up once.
pub(super) fn of_both<'a>(name: &str, context: &SpanContext<'a>) -> Sides<'a> {
    let (own, tags) = (attribute(name, context), tag(context.span, name));
    if tags.is_empty() {
        return Sides::Same(own);
    }
    if own.is_empty() {
        return Sides::Same(tags);
    }
    let attribute = first_present(own.clone(), || tags.clone());
    let tag = first_present(tags, || own);
    if attribute == tag {
        Sides::Same(tag)
    } else {
        Sides::Different { attribute, tag }
    }
}

fn first_present<'a>(mut first: Values<'a>, second: impl FnOnce() -> Values<'a>) -> Values<'a> {
    if !first.iter().any(FacetValue::is_present) {
        first.extend(second());
    }
    first
}

/// The values of a tag. Both keys and values may hold colons: `a:b:c` is `a` = `b:c` as well as
/// `a:b` = `c`. A tag without a colon has no key; `tags:name` finds it.
fn tag<'a>(span: &'a Span, key: &str) -> Values<'a> {
    let value = |tag: &'a String| {
        // Most tags are told apart by where their colon stands.
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
fn attribute<'a>(name: &str, context: &SpanContext<'a>) -> Values<'a> {
    let span = context.span;
    if let Some((family, rest)) = name.split_once('.') {
        match family {
            "meta" => return meta(rest, span),
            "metrics" => return metric(rest, span),
            "evaluations" | "evaluation" => return evaluation(rest, &span.evaluations),
            "feedback" => return judgement(rest, &span.feedback),
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
        "event_kind" => return event_kinds(span),
        "collection_errors" => return texts(&span.collection_errors),
        "tags" => return texts(&span.tags),
        other => return leaves(at_path(&span.extra, other)),
    };
    smallvec![value]
}

fn optional(text: Option<&str>) -> Values<'_> {
    text.map(FacetValue::text).into_iter().collect()
}

fn texts(texts: &[String]) -> Values<'_> {
    texts.iter().map(|text| FacetValue::text(text)).collect()
}

fn leaves(values: Vec<&Value>) -> Values<'_> {
    values.into_iter().filter_map(FacetValue::json).collect()
}

fn event_kinds(span: &Span) -> Values<'_> {
    let kinds = [
        ("evaluation", span.evaluations.is_empty()),
        ("feedback", span.feedback.is_empty()),
    ];
    let joined = kinds.into_iter().filter(|(_, none)| !none);
    joined.map(|(kind, _)| FacetValue::text(kind)).collect()
}

/// `@meta.<path>`.
fn meta<'a>(path: &str, span: &'a Span) -> Values<'a> {
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
            "metadata" => return leaves(at_path(&span.metadata, rest)),
            "input" => return io(rest, &span.input),
            "output" => return io(rest, &span.output),
            "expected_output" => {
                let expected = span.expected_output.iter();
                return leaves(expected.flat_map(|value| inside(value, rest)).collect());
            }
            "tool_definitions" => {
                let tools = span.tool_definitions.iter();
                return leaves(tools.flat_map(|value| inside(value, rest)).collect());
            }
            "agent_attribution" => return agent_attribution(rest, span),
            _ => {}
        }
    }
    leaves(at_path(&span.meta_extra, path))
}

/// Some frameworks put what they know of the model into metadata only.
fn model_field<'a>(own: Option<&'a str>, path: &str, span: &'a Span) -> Values<'a> {
    first_present(optional(own), || leaves(at_path(&span.metadata, path)))
}

/// A part of `meta` named as a whole: the value of a plain `expected_output`, else presence.
fn presence<'a>(part: &str, span: &'a Span) -> Values<'a> {
    let present = match part {
        "input" => !span.input.is_empty(),
        "output" => !span.output.is_empty(),
        "error" => span.error.as_ref().is_some_and(|error| !error.is_empty()),
        "tool_definitions" => !span.tool_definitions.is_empty(),
        _ => return leaves(span.expected_output.iter().collect()),
    };
    present.then_some(FacetValue::Present).into_iter().collect()
}

fn error<'a>(path: &str, span: &'a Span) -> Values<'a> {
    let part = span.error.as_ref().and_then(|error| match path {
        "type" => Some(error.error_type.as_str()),
        "message" => Some(error.message.as_str()),
        "stack" => Some(error.stack.as_str()),
        _ => None,
    });
    optional(part)
}

fn agent_attribution<'a>(path: &str, span: &'a Span) -> Values<'a> {
    let part = span.agent.as_ref().and_then(|agent| match path {
        "pagent_name" => Some(agent.name.as_str()),
        "pagent_span_id" => agent.span_id.as_ref().map(|id| id.as_str()),
        _ => None,
    });
    optional(part)
}

/// `@meta.input.<path>` and `@meta.output.<path>`.
fn io<'a>(path: &str, io: &'a Io) -> Values<'a> {
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    match part {
        "value" => match io.value.as_ref().filter(|value| !value.is_null()) {
            Some(value) => leaves(inside(value, rest)),
            // Chat messages have a value too: the last user message, else all of them.
            None if rest.is_empty() => io.text().map(FacetValue::Text).into_iter().collect(),
            None => Values::new(),
        },
        "messages" => {
            let messages = io.messages.iter();
            leaves(
                messages
                    .flat_map(|message| inside(&message.0, rest))
                    .collect(),
            )
        }
        "documents" => {
            let documents = io.documents.iter();
            leaves(documents.flat_map(|value| inside(value, rest)).collect())
        }
        "prompt" => {
            let prompt = io.prompt.iter();
            leaves(prompt.flat_map(|value| inside(value, rest)).collect())
        }
        _ => leaves(at_path(&io.extra, path)),
    }
}

fn metric<'a>(name: &str, span: &'a Span) -> Values<'a> {
    let value = span.metric(name).map(|value| match name {
        // The only metrics that are times; SDKs send them in seconds.
        "time_to_first_token" | "time_per_output_token" => {
            FacetValue::time(value, TimeUnit::Seconds)
        }
        _ => FacetValue::float(value),
    });
    value.into_iter().collect()
}

/// `@evaluations.<path>`, with or without `custom.` before the label.
fn evaluation<'a>(path: &str, evaluations: &'a BTreeMap<String, Evaluation>) -> Values<'a> {
    let mut values = judgement(path, evaluations);
    if let Some(path) = path.strip_prefix("custom.") {
        values.extend(judgement(path, evaluations));
    }
    values
}

/// `<label>`, `<label>.value`, `<label>.assessment` and the other keys of a judgement. A path into
/// a JSON value works with and without `value`.
pub(super) fn judgement<'a>(
    path: &str,
    judgements: &'a BTreeMap<String, Evaluation>,
) -> Values<'a> {
    let mut values = Values::new();
    for (label, judgement) in judgements {
        let Some(rest) = path.strip_prefix(label.as_str()) else {
            continue;
        };
        if rest.is_empty() {
            // Whatever came of it, there is a judgement.
            let value = judgement.value.as_ref().and_then(FacetValue::json);
            values.push(value.unwrap_or(FacetValue::Present));
        } else if let Some(key) = rest.strip_prefix('.') {
            values.extend(judgement_key(key, judgement));
        }
    }
    values
}

fn judgement_key<'a>(key: &str, judgement: &'a Evaluation) -> Values<'a> {
    let value = judgement.value.as_ref();
    match key {
        "value" => value.and_then(FacetValue::json).into_iter().collect(),
        "assessment" => optional(judgement.assessment.map(|verdict| verdict.as_str())),
        "reasoning" => optional(judgement.reasoning.as_deref()),
        "status" => smallvec![FacetValue::text(judgement.status.as_str())],
        "eval_metric_type" | "metric_type" => {
            smallvec![FacetValue::text(judgement.metric_type.as_str())]
        }
        "tags" => texts(&judgement.tags),
        _ => {
            if let Some(path) = key.strip_prefix("metadata.") {
                return leaves(at_path(&judgement.metadata, path));
            }
            let path = key.strip_prefix("value.").unwrap_or(key);
            leaves(
                value
                    .into_iter()
                    .flat_map(|value| inside(value, path))
                    .collect(),
            )
        }
    }
}

/// `@trace.<name>`: sums over the whole trace, which stand on its roots.
fn rollup<'a>(name: &str, context: &SpanContext<'a>) -> Values<'a> {
    let sums = context.rollup.filter(|_| context.span.is_root());
    let value = sums.and_then(|sums| rollup_value(name, sums));
    value.map(FacetValue::float).into_iter().collect()
}

fn rollup_value(name: &str, sums: &TraceRollup) -> Option<f64> {
    Some(match name {
        "total_tokens" => sums.total_tokens,
        "input_tokens" => sums.input_tokens,
        "output_tokens" => sums.output_tokens,
        "estimated_total_cost" => sums.estimated_total_cost,
        "llm_calls" => sums.llm_calls as f64,
        "tool_calls" => sums.tool_calls as f64,
        "number_of_tools" => sums.number_of_tools as f64,
        "number_of_errors" => sums.number_of_errors as f64,
        "num_evaluations_failed" => sums.num_evaluations_failed as f64,
        _ => return None,
    })
}

/// Attributes that stand by themselves and are known to a Datadog site.
const SINGLE: &[&str] = &[
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

/// Attributes inside of `meta`; a name ending in a dot is the start of a path.
const META: &[&str] = &[
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

/// Whether `@name` is a facet of LLM spans, on a Datadog site and here.
pub(super) fn is_known_attribute(name: &str) -> bool {
    let Some((family, rest)) = name.split_once('.') else {
        return SINGLE.contains(&name);
    };
    match family {
        "meta" => META.iter().any(|known| {
            rest == *known
                || (known.ends_with('.') && rest.len() > known.len() && rest.starts_with(known))
        }),
        "trace" => rollup_value(rest, &TraceRollup::default()).is_some(),
        "metrics" | "evaluations" | "evaluation" | "feedback" => !rest.is_empty(),
        _ => SINGLE.contains(&name),
    }
}
