//! Events pushed to an experiment: metrics, and spans that did not come through the span intake.
//!
//! Two forms are taken, the documented one (`type: events`) and the SDK's (`scope: experiments`).
//! A request is kept whole or refused whole.

use http::StatusCode;
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Map, Value, json};

use super::call::{Call, Reply, live, optional, required, texts};
use crate::Backend;
use crate::control::{Change, Metric, Object, ObjectKind};
use crate::http::ApiError;
use crate::intake::{self, Dialect};

/// Length of the id that each metric is given.
const ID_LENGTH: usize = 10;

/// A metric type: its name, what its values are in words, and whether a value is one.
type MetricType = (&'static str, &'static str, fn(&Value) -> bool);

const TYPES: [MetricType; 4] = [
    ("score", "a number", Value::is_number),
    ("boolean", "true or false", Value::is_boolean),
    ("categorical", "text", Value::is_string),
    ("json", "an object or a list", |value| {
        value.is_object() || value.is_array()
    }),
];

/// Takes events in; answers 202 with an empty body, as Datadog does.
pub(super) fn push(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let experiment = live(
        &backend.control,
        ObjectKind::Experiment,
        call.parameter("experiment_id"),
    )?;
    let sent = call.attributes()?;
    let tags = texts(sent, "tags")?;
    let metrics = metrics_of(backend, call, &experiment, sent, &tags)?;
    let spans = spans_of(&experiment, sent)?;
    if metrics.is_empty() && spans.is_empty() {
        return Err(ApiError::bad_request(
            "the request holds neither `metrics` nor `spans`; send at least one of them",
        ));
    }
    keep_spans(backend, call, &spans)?;
    backend.control.store.apply(metrics)?;
    Ok(Reply::Empty(StatusCode::ACCEPTED))
}

/// The private twin: flat, and a metric may be about the experiment as a whole.
pub(super) fn ingest(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let id = required(sent, "experiment_id")?;
    let experiment = live(&backend.control, ObjectKind::Experiment, id)?;
    let tags = texts(sent, "tags")?;
    let metrics = metrics_of(backend, call, &experiment, sent, &tags)?;
    if metrics.is_empty() {
        return Err(ApiError::bad_request(
            "`metrics` is required: a list with at least one metric",
        ));
    }
    let count = metrics.len();
    backend.control.store.apply(metrics)?;
    Ok(Reply::Json(json!({
        "experiment_id": experiment.id,
        "metrics_ingested": count,
        "status": "accepted",
    })))
}

fn list<'a>(sent: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], ApiError> {
    match sent.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(ApiError::bad_request(format!("`{key}` must be a list"))),
    }
}

fn metrics_of(
    backend: &Backend,
    call: &Call,
    experiment: &Object,
    sent: &Map<String, Value>,
    tags: &[String],
) -> Result<Vec<Change>, ApiError> {
    let max_age = backend.options.max_span_age;
    let oldest = max_age.map(|age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        call.now_ms.saturating_sub(age)
    });
    let mut changes = Vec::new();
    for (number, metric) in list(sent, "metrics")?.iter().enumerate() {
        let metric = metric_of(metric, call, experiment, tags, oldest)
            .map_err(|error| ApiError::bad_request(format!("metric {number}: {}", error.detail)))?;
        changes.push(Change::AddMetric {
            experiment: experiment.id.clone(),
            metric,
        });
    }
    Ok(changes)
}

/// One metric as it is kept and answered: checked, with an id, the request's tags and the source.
fn metric_of(
    metric: &Value,
    call: &Call,
    experiment: &Object,
    common: &[String],
    oldest_ms: Option<i64>,
) -> Result<Metric, ApiError> {
    let refused = |detail: String| Err(ApiError::bad_request(detail));
    let Some(sent) = metric.as_object() else {
        return refused("must be an object".to_owned());
    };
    let label = required(sent, "label")?;
    let metric_type = required(sent, "metric_type")?;
    let known = TYPES.iter().find(|(name, _, _)| *name == metric_type);
    let Some((name, wanted, fits)) = known else {
        return refused("`metric_type` must be score, boolean, categorical or json".to_owned());
    };
    let given = |key: &str| sent.get(key).filter(|value| !value.is_null());
    let failed = given("error").is_some() || optional(sent, "status")? == Some("ERROR");
    let key = format!("{name}_value");
    match given(&key) {
        Some(value) if fits(value) => {}
        None if failed => {}
        Some(_) => return refused(format!("`{key}` must be {wanted}")),
        None => {
            return refused(format!(
                "`{key}` is required for a metric of type {name}, unless `error` says why there is none"
            ));
        }
    }
    if let Some(assessment) = optional(sent, "assessment")?
        && !matches!(assessment, "pass" | "fail")
    {
        return refused("`assessment` must be pass or fail".to_owned());
    }
    let timestamp_ms = match given("timestamp_ms") {
        None => call.now_ms,
        Some(value) => match value.as_i64() {
            Some(ms) => ms,
            None => {
                return refused("`timestamp_ms` must be milliseconds since 1970".to_owned());
            }
        },
    };
    if oldest_ms.is_some_and(|oldest| timestamp_ms < oldest) {
        return refused(
            "Field validation for 'timestamp_ms' failed on the 'timestamp_within_24hr' tag"
                .to_owned(),
        );
    }
    let mut tags = texts(sent, "tags")?;
    for tag in common {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    let span = match given("span_id") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(_) => return refused("`span_id` must be text".to_owned()),
    };
    let source = if span.is_empty() { "summary" } else { "custom" };
    let mut body = Map::new();
    let id = Alphanumeric.sample_string(&mut rand::rng(), ID_LENGTH);
    body.insert("id".to_owned(), json!(id));
    body.extend(sent.clone());
    body.insert("timestamp_ms".to_owned(), json!(timestamp_ms));
    body.insert("tags".to_owned(), json!(tags));
    body.insert("experiment_id".to_owned(), json!(experiment.id));
    let own = body.entry("metric_source".to_owned());
    own.or_insert_with(|| json!(source));
    Ok(Metric {
        span,
        label: label.to_owned(),
        body: Value::Object(body).to_string(),
    })
}

/// The spans as the span intake takes them: an experiment's root unless they say otherwise, tagged
/// with what they belong to.
fn spans_of(experiment: &Object, sent: &Map<String, Value>) -> Result<Vec<Value>, ApiError> {
    let mut spans = Vec::new();
    for (number, span) in list(sent, "spans")?.iter().enumerate() {
        let Value::Object(mut span) = span.clone() else {
            return Err(ApiError::bad_request(format!(
                "span {number} must be an object"
            )));
        };
        let mut tags = texts(&span, "tags")?;
        let mut tag = |key: &str, value: &str| {
            let start = format!("{key}:");
            if !value.is_empty() && !tags.iter().any(|tag| tag.starts_with(&start)) {
                tags.push(format!("{start}{value}"));
            }
        };
        tag("experiment_id", &experiment.id);
        for key in ["project_id", "dataset_id"] {
            let own = span.shift_remove(key);
            let own = own.as_ref().and_then(Value::as_str);
            tag(key, own.unwrap_or_default());
        }
        span.insert("tags".to_owned(), json!(tags));
        let meta = span.entry("meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut()
            && !["span", "span.kind", "kind"]
                .iter()
                .any(|key| meta.contains_key(*key))
        {
            meta.insert("span.kind".to_owned(), json!("experiment"));
        }
        spans.push(Value::Object(span));
    }
    Ok(spans)
}

fn keep_spans(backend: &Backend, call: &Call, spans: &[Value]) -> Result<(), ApiError> {
    if spans.is_empty() {
        return Ok(());
    }
    let body = json!([{"_dd.scope": "experiments", "event_type": "span", "spans": spans}]);
    let store = &backend.store;
    let accepted = intake::ingest_json(store, &backend.options, Dialect::Sdk, body, call.now_ms)?;
    match accepted.refused.into_iter().next() {
        Some(reason) => Err(ApiError::bad_request(reason)),
        None => Ok(()),
    }
}
