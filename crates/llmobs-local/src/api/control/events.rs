//! Events sent to an experiment: metrics, and spans that are not sent to the intake.
//!
//! Two formats are accepted: the documented one (`type: events`) and the SDK's
//! (`scope: experiments`). A request with an invalid item is refused completely.

use http::StatusCode;
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Map, Value, json};

use super::call::{Call, Reply, find_live, optional, required, text_list};
use crate::Backend;
use crate::control::{Change, Metric, Object, ObjectKind};
use crate::http::ApiError;
use crate::intake::{self, Dialect};

/// Length of the generated id of a metric.
const METRIC_ID_CHARS: usize = 10;

/// A metric type: its name, a description of its values, and a check of a value.
type MetricType = (&'static str, &'static str, fn(&Value) -> bool);

const METRIC_TYPES: [MetricType; 4] = [
    ("score", "a number", Value::is_number),
    ("boolean", "true or false", Value::is_boolean),
    ("categorical", "text", Value::is_string),
    ("json", "an object or a list", |value| {
        value.is_object() || value.is_array()
    }),
];

/// Stores events. Like Datadog, responds with 202 and an empty body.
pub(super) fn push(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let experiment = find_live(
        &backend.control,
        ObjectKind::Experiment,
        call.path_parameter("experiment_id"),
    )?;
    let sent = call.attributes()?;
    let tags = text_list(sent, "tags")?;
    let metrics = metrics_of(backend, call, &experiment, sent, &tags)?;
    let spans = spans_of(&experiment, sent)?;
    if metrics.is_empty() && spans.is_empty() {
        return Err(ApiError::bad_request(
            "`metrics` and `spans` are both empty; send at least one item",
        ));
    }
    store_spans(backend, call, &spans)?;
    backend.control.store.apply(metrics)?;
    Ok(Reply::Empty(StatusCode::ACCEPTED))
}

/// The private endpoint: a flat body, in which a metric may be about the experiment itself.
pub(super) fn ingest(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let sent = call.attributes()?;
    let id = required(sent, "experiment_id")?;
    let experiment = find_live(&backend.control, ObjectKind::Experiment, id)?;
    let tags = text_list(sent, "tags")?;
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

/// Validates a metric and adds an id, the tags of the request and the source.
fn metric_of(
    metric: &Value,
    call: &Call,
    experiment: &Object,
    common: &[String],
    oldest_ms: Option<i64>,
) -> Result<Metric, ApiError> {
    let Some(sent) = metric.as_object() else {
        return Err(ApiError::bad_request("must be an object"));
    };
    let label = required(sent, "label")?;
    check_value(sent)?;
    if let Some(assessment) = optional(sent, "assessment")?
        && !matches!(assessment, "pass" | "fail")
    {
        return Err(ApiError::bad_request("`assessment` must be pass or fail"));
    }
    let timestamp_ms = match non_null(sent, "timestamp_ms") {
        None => call.now_ms,
        Some(value) => value.as_i64().ok_or_else(|| {
            ApiError::bad_request("`timestamp_ms` must be milliseconds since 1970")
        })?,
    };
    if oldest_ms.is_some_and(|oldest| timestamp_ms < oldest) {
        return Err(ApiError::bad_request(
            "Field validation for 'timestamp_ms' failed on the 'timestamp_within_24hr' tag",
        ));
    }
    let mut tags = text_list(sent, "tags")?;
    for tag in common {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    let span = match non_null(sent, "span_id") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(_) => return Err(ApiError::bad_request("`span_id` must be text")),
    };
    let source = if span.is_empty() { "summary" } else { "custom" };
    let mut body = Map::new();
    let id = Alphanumeric.sample_string(&mut rand::rng(), METRIC_ID_CHARS);
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

fn non_null<'a>(sent: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    sent.get(key).filter(|value| !value.is_null())
}

/// Checks that a metric has a value of its type, or an error.
fn check_value(sent: &Map<String, Value>) -> Result<(), ApiError> {
    let metric_type = required(sent, "metric_type")?;
    let known_type = METRIC_TYPES
        .iter()
        .find(|(name, _, _)| *name == metric_type);
    let Some((name, expected, is_valid)) = known_type else {
        return Err(ApiError::bad_request(
            "`metric_type` must be score, boolean, categorical or json",
        ));
    };
    let failed = non_null(sent, "error").is_some() || optional(sent, "status")? == Some("ERROR");
    let key = format!("{name}_value");
    match non_null(sent, &key) {
        Some(value) if is_valid(value) => Ok(()),
        None if failed => Ok(()),
        Some(_) => Err(ApiError::bad_request(format!("`{key}` must be {expected}"))),
        None => Err(ApiError::bad_request(format!(
            "`{key}` is required for a metric of type {name}, unless `error` is set"
        ))),
    }
}

/// Spans in the SDK dialect, with tags for experiment, project and dataset. The default kind is
/// `experiment`.
fn spans_of(experiment: &Object, sent: &Map<String, Value>) -> Result<Vec<Value>, ApiError> {
    let mut spans = Vec::new();
    for (number, span) in list(sent, "spans")?.iter().enumerate() {
        let Value::Object(mut span) = span.clone() else {
            return Err(ApiError::bad_request(format!(
                "span {number} must be an object"
            )));
        };
        let mut tags = text_list(&span, "tags")?;
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

fn store_spans(backend: &Backend, call: &Call, spans: &[Value]) -> Result<(), ApiError> {
    if spans.is_empty() {
        return Ok(());
    }
    let body = json!([{"_dd.scope": "experiments", "event_type": "span", "spans": spans}]);
    let store = &backend.store;
    let summary = intake::ingest_json(store, &backend.options, Dialect::Sdk, body, call.now_ms)?;
    match summary.refused.into_iter().next() {
        Some(reason) => Err(ApiError::bad_request(reason)),
        None => Ok(()),
    }
}
