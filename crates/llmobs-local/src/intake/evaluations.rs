//! Evaluations and end-user feedback, `POST /api/intake/llm-obs/v{1,2}/eval-metric`.

use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Map, Value, json};

use super::batch::Batch;
use super::fields::Fields;
use super::http_api::attributes_of;
use super::json_value::{id_to_text, to_text, type_name};
use crate::http::ApiError;
use crate::store::{EvaluationTarget, TargetedEvaluation};
use llmobs_core::model::{
    Assessment, EvalStatus, Evaluation, EventKind, MetricType, SpanId, TraceId,
};

const EXAMPLE: &str =
    r#"the body must be {"data":{"type":"evaluation_metric","attributes":{"metrics":[…]}}}"#;

/// Length of the id of each metric in the response.
const METRIC_ID_CHARS: usize = 10;

pub(super) fn read(body: Value) -> Result<Batch, ApiError> {
    let mut fields = Fields::new(attributes_of(body, "evaluation_metric", EXAMPLE)?, "");
    let metrics = fields
        .remove_list("metrics")
        .ok_or_else(|| ApiError::bad_request(format!("`metrics` must be a list: {EXAMPLE}")))?;
    let tags: Vec<String> = tags_of(&mut fields);
    let mut batch = Batch::default();
    for (number, metric) in metrics.into_iter().enumerate() {
        match read_metric(&metric, &tags) {
            Ok(evaluation) => {
                batch.evaluations.push(evaluation);
                batch.echo.push(echo(metric));
            }
            Err(reason) => batch.refused.push(format!("metric {number}: {reason}")),
        }
    }
    Ok(batch)
}

/// A metric as the response repeats it: with an id.
fn echo(mut metric: Value) -> Value {
    if let Some(map) = metric.as_object_mut() {
        let id = Alphanumeric.sample_string(&mut rand::rng(), METRIC_ID_CHARS);
        map.insert("id".to_owned(), json!(id));
    }
    metric
}

fn tags_of(fields: &mut Fields) -> Vec<String> {
    let tags = fields.remove_list("tags").unwrap_or_default();
    tags.iter().map(|tag| to_text(tag).into_owned()).collect()
}

fn read_metric(metric: &Value, common_tags: &[String]) -> Result<TargetedEvaluation, String> {
    let Value::Object(map) = metric else {
        return Err(format!("must be an object, not {}", type_name(metric)));
    };
    let mut fields = Fields::new(map.clone(), "");
    let label = label(&mut fields)?;
    let event_kind = event_kind(&mut fields)?;
    let metric_type = metric_type(&mut fields, event_kind)?;
    let error = fields.remove("error");
    let status = match remove_enum(
        &mut fields,
        "status",
        "OK, WARN or ERROR",
        EvalStatus::from_wire,
    )? {
        Some(status) => status,
        None if error.is_some() => EvalStatus::Error,
        None => EvalStatus::Ok,
    };
    let value = value(&mut fields, metric_type, status)?;
    let assessment = remove_enum(
        &mut fields,
        "assessment",
        "pass or fail",
        Assessment::from_wire,
    )?;
    let timestamp_ms = fields
        .remove("timestamp_ms")
        .and_then(|ms| ms.as_i64())
        .ok_or("`timestamp_ms` must be a whole number of milliseconds since 1970")?;
    let mut tags = tags_of(&mut fields);
    for tag in common_tags {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    let metadata = match fields.remove_if("metadata", Value::is_object) {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    let reasoning = fields.remove_text("reasoning");
    let ml_app = fields
        .get("ml_app")
        .and_then(id_to_text)
        .unwrap_or_default();
    let target = target(&mut fields, event_kind)?;
    Ok(TargetedEvaluation {
        target,
        ml_app,
        evaluation: Evaluation {
            label,
            event_kind,
            metric_type,
            value,
            assessment,
            reasoning,
            status,
            error,
            tags,
            metadata,
            timestamp_ms,
            extra: fields.into_parts().0,
        },
    })
}

fn label(fields: &mut Fields) -> Result<String, String> {
    match fields.remove("label") {
        Some(Value::String(label)) if label.is_empty() => Err("`label` is empty".to_owned()),
        Some(Value::String(label)) if label.contains('.') => Err(
            "`label` must not contain a dot; write for example `tone_score`, not `tone.score`"
                .to_owned(),
        ),
        Some(Value::String(label)) => Ok(label),
        _ => Err("`label` must be text".to_owned()),
    }
}

/// Removes a key with one of several values; absent is `None`, any other value is an error.
fn remove_enum<T>(
    fields: &mut Fields,
    key: &str,
    allowed: &str,
    read: fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    match fields.remove(key) {
        None => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(read)
            .map(Some)
            .ok_or_else(|| format!("`{key}` must be {allowed}")),
    }
}

fn event_kind(fields: &mut Fields) -> Result<EventKind, String> {
    let read = |text: &str| match text {
        "evaluation" => Some(EventKind::Evaluation),
        "feedback" => Some(EventKind::Feedback),
        _ => None,
    };
    let kind = remove_enum(fields, "event_kind", "evaluation or feedback", read)?;
    Ok(kind.unwrap_or_default())
}

fn metric_type(fields: &mut Fields, kind: EventKind) -> Result<MetricType, String> {
    let allowed = "score, categorical, boolean or json (or text for feedback)";
    match remove_enum(fields, "metric_type", allowed, MetricType::from_wire)? {
        Some(MetricType::Text) if kind == EventKind::Evaluation => {
            Err("`metric_type` text is for feedback only; use categorical".to_owned())
        }
        Some(metric_type) => Ok(metric_type),
        None => Err(format!("`metric_type` is missing; it must be {allowed}")),
    }
}

fn value(
    fields: &mut Fields,
    metric_type: MetricType,
    status: EvalStatus,
) -> Result<Option<Value>, String> {
    let key = format!("{}_value", metric_type.as_str());
    let (is_valid, expected): (fn(&Value) -> bool, _) = match metric_type {
        MetricType::Score => (Value::is_number, "a number"),
        MetricType::Categorical | MetricType::Text => (Value::is_string, "text"),
        MetricType::Boolean => (Value::is_boolean, "true or false"),
        MetricType::Json => (Value::is_object, "an object"),
    };
    match fields.remove(&key) {
        Some(value) if is_valid(&value) => Ok(Some(value)),
        None if status != EvalStatus::Ok => Ok(None),
        _ => Err(format!("`{key}` must be {expected}")),
    }
}

const NO_TARGET: &str = "the target is missing; set \
    `join_on` to {\"span\":{\"span_id\":\"…\",\"trace_id\":\"…\"}} or {\"tag\":{\"key\":\"…\",\"value\":\"…\"}}, \
    or set one of `span_id`, `trace_id`, `session_id`, `feedback_join_key`";

fn target(fields: &mut Fields, kind: EventKind) -> Result<EvaluationTarget, String> {
    if let Some(join_on) = fields.remove("join_on") {
        return join_target(&join_on);
    }
    let mut id = |key: &str| fields.remove_text(key).filter(|text| !text.is_empty());
    let (span_id, trace_id) = (id("span_id"), id("trace_id"));
    let (session, join_key) = (id("session_id"), id("feedback_join_key"));
    let present = [
        span_id.is_some() || trace_id.is_some(),
        session.is_some(),
        join_key.is_some(),
    ];
    if kind == EventKind::Feedback && present.iter().filter(|present| **present).count() > 1 {
        return Err(
            "feedback must have exactly one target: a span or trace (`span_id`, `trace_id`), \
             `session_id` or `feedback_join_key`"
                .to_owned(),
        );
    }
    if let Some(span_id) = span_id {
        return Ok(EvaluationTarget::Span {
            trace_id: trace_id.map(TraceId::from),
            span_id: SpanId::from(span_id),
        });
    }
    trace_id
        .map(|id| EvaluationTarget::Trace(TraceId::from(id)))
        .or(session.map(EvaluationTarget::Session))
        .or(join_key.map(EvaluationTarget::JoinKey))
        .ok_or_else(|| NO_TARGET.to_owned())
}

fn join_target(join_on: &Value) -> Result<EvaluationTarget, String> {
    let text = |object: &Value, key: &str| {
        object
            .get(key)
            .and_then(id_to_text)
            .filter(|text| !text.is_empty())
    };
    match (join_on.get("span"), join_on.get("tag")) {
        (Some(span), None) => {
            let span_id = text(span, "span_id")
                .ok_or("`join_on.span` must contain `span_id` and `trace_id` as text")?;
            Ok(EvaluationTarget::Span {
                trace_id: text(span, "trace_id").map(TraceId::from),
                span_id: SpanId::from(span_id),
            })
        }
        (None, Some(tag)) => match (text(tag, "key"), text(tag, "value")) {
            (Some(key), Some(value)) => Ok(EvaluationTarget::Tag { key, value }),
            _ => Err("`join_on.tag` must contain `key` and `value` as text".to_owned()),
        },
        _ => Err("`join_on` must contain either `span` or `tag`".to_owned()),
    }
}
