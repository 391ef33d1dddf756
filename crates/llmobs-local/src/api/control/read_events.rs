//! Reads the events of an experiment: the root span of each run with its metrics, and the metrics
//! of the experiment itself.
//!
//! All stored metrics are returned. If a label was measured twice on a span, the client must use the
//! newest one.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::call::{Call, MAX_LIMIT, Reply, find_live, not_found};
use crate::Backend;
use crate::control::{Member, MetricScope, Object, ObjectFilter, ObjectKind, RunFilter};
use crate::http::ApiError;
use llmobs_core::model::cost::estimated_total_cost;
use llmobs_core::model::{Io, Span, SpanId, TraceId};

/// The runs to read, and how.
struct RunQuery {
    after: Option<(i64, String)>,
    limit: usize,
    metrics: bool,
    /// Whether further runs may follow on a next page.
    paged: bool,
}

impl RunQuery {
    const ALL: RunQuery = RunQuery {
        after: None,
        limit: usize::MAX,
        metrics: true,
        paged: false,
    };
}

/// Spans as JSON texts, and the position of the last one if there are more.
struct RunPage {
    spans: Vec<String>,
    after: Option<(i64, String)>,
}

/// The current version of the endpoint: paged, with metrics.
pub(super) fn v3(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let experiment = experiment_of(backend, call)?;
    let query = RunQuery {
        after: call.cursor()?,
        limit: call.limit(MAX_LIMIT)?,
        metrics: true,
        paged: true,
    };
    resource(backend, call, &experiment, &query)
}

/// All runs as one resource.
pub(super) fn v2(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let experiment = experiment_of(backend, call)?;
    resource(backend, call, &experiment, &RunQuery::ALL)
}

/// On the unstable path, which the SDK uses, one resource; on v2 a list of spans.
pub(super) fn v1(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let experiment = experiment_of(backend, call)?;
    if call.path.contains("/api/unstable/") {
        return sdk_resource(backend, call, &experiment);
    }
    let runs = read_runs(backend, &experiment, &RunQuery::ALL)?;
    let items = runs.spans.iter().map(|span| {
        let id = serde_json::from_str::<Value>(span).ok();
        let id = id.and_then(|span| span.get("id").cloned());
        let id = id.unwrap_or(Value::Null);
        format!("{{\"id\":{id},\"type\":\"experiments\",\"attributes\":{span}}}")
    });
    let items: Vec<String> = items.collect();
    let body = format!(
        "{{\"data\":[{}],\"meta\":{{\"after\":\"\"}}}}",
        items.join(",")
    );
    Ok(Reply::JsonBytes(body.into_bytes()))
}

/// The newest experiment with a name, in the project with a name.
pub(super) fn by_name(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let (Some(project), Some(name)) = (
        call.query_value("filter[project_name]"),
        call.query_value("filter[experiment_name]"),
    ) else {
        return Err(ApiError::bad_request(
            "`filter[project_name]` and `filter[experiment_name]` are both required",
        ));
    };
    let store = backend.control.store.as_ref();
    let project = store.find(&ObjectFilter {
        name: Some(project.to_owned()),
        limit: 1,
        ..ObjectFilter::all(ObjectKind::Project)
    })?;
    let project = project.into_iter().next();
    let project = project.ok_or_else(|| not_found("project"))?;
    let experiments = store.find(&ObjectFilter {
        parent: Some(project.id),
        ..ObjectFilter::all(ObjectKind::Experiment)
    })?;
    let newest = experiments
        .into_iter()
        .find(|object| object.name == name || object.text("experiment") == name);
    let newest = newest.ok_or_else(|| not_found("experiment"))?;
    sdk_resource(backend, call, &newest)
}

fn sdk_resource(backend: &Backend, call: &Call, experiment: &Object) -> Result<Reply, ApiError> {
    let query = RunQuery {
        metrics: call.query_flag("include[eval_metrics]")?.unwrap_or(false),
        ..RunQuery::ALL
    };
    resource(backend, call, experiment, &query)
}

fn experiment_of(backend: &Backend, call: &Call) -> Result<Object, ApiError> {
    let id = call.path_parameter("experiment_id");
    find_live(&backend.control, ObjectKind::Experiment, id)
}

fn resource(
    backend: &Backend,
    call: &Call,
    experiment: &Object,
    query: &RunQuery,
) -> Result<Reply, ApiError> {
    let runs = read_runs(backend, experiment, query)?;
    let after = match &runs.after {
        Some(position) => call.cursor_after(position)?,
        None => String::new(),
    };
    // On the first page only, so that a client that joins pages gets them once.
    let summary = if query.after.is_none() {
        let metrics = backend
            .control
            .store
            .metrics(&experiment.id, MetricScope::Experiment)?;
        metrics.into_iter().map(|metric| metric.body).collect()
    } else {
        Vec::new()
    };
    let body = format!(
        "{{\"data\":{{\"id\":{},\"type\":\"experiment_events\",\"attributes\":{{\"spans\":[{}],\"summary_metrics\":[{}]}}}},\"meta\":{{\"after\":{}}}}}",
        json!(experiment.id),
        runs.spans.join(","),
        summary.join(","),
        json!(after),
    );
    Ok(Reply::JsonBytes(body.into_bytes()))
}

fn read_runs(
    backend: &Backend,
    experiment: &Object,
    query: &RunQuery,
) -> Result<RunPage, ApiError> {
    let store = backend.control.store.as_ref();
    let after = query.after.as_ref();
    let members = store.runs(&RunFilter {
        experiment: &experiment.id,
        after: after.map(|(start, span)| (*start, span.as_str())),
        limit: query.limit.saturating_add(1),
    })?;
    let page = members.iter().take(query.limit);
    let mut metrics = match (page.clone().next(), page.clone().next_back()) {
        (Some(first), Some(last)) if query.metrics => {
            metrics_between(backend, experiment, first, last)?
        }
        _ => HashMap::new(),
    };
    let max_bytes = backend.options.page_bytes;
    let mut runs = RunPage {
        spans: Vec::new(),
        after: None,
    };
    let mut bytes = 0;
    let mut last: Option<&Member> = None;
    for member in page {
        let (trace, id) = (
            TraceId::from(member.trace.as_str()),
            SpanId::from(member.span.as_str()),
        );
        // The span may have been purged.
        if let Some(span) = backend.store.span(&trace, &id)? {
            let metrics = metrics.remove(&member.span).unwrap_or_default();
            let text = span_json(&span, member, &metrics, query.metrics);
            bytes += text.len();
            if bytes > max_bytes && !runs.spans.is_empty() {
                if !query.paged {
                    return Err(ApiError::new(
                        http::StatusCode::PAYLOAD_TOO_LARGE,
                        format!(
                            "the response is larger than {max_bytes} bytes; read pages from /api/v2/llm-obs/v3/experiments/{{experiment_id}}/events"
                        ),
                    ));
                }
                runs.after = position_of(last);
                return Ok(runs);
            }
            runs.spans.push(text);
        }
        last = Some(member);
    }
    if members.len() > query.limit {
        runs.after = position_of(last);
    }
    Ok(runs)
}

fn position_of(member: Option<&Member>) -> Option<(i64, String)> {
    member.map(|member| (member.start_ns, member.span.clone()))
}

fn metrics_between(
    backend: &Backend,
    experiment: &Object,
    first: &Member,
    last: &Member,
) -> Result<HashMap<String, Vec<String>>, ApiError> {
    let between = MetricScope::Runs {
        first_ns: first.start_ns,
        last_ns: last.start_ns,
    };
    let mut by_span: HashMap<String, Vec<String>> = HashMap::new();
    for metric in backend.control.store.metrics(&experiment.id, between)? {
        by_span.entry(metric.span).or_default().push(metric.body);
    }
    Ok(by_span)
}

/// A span with its metrics as JSON text. `metrics` are JSON texts.
fn span_json(span: &Span, run: &Member, metrics: &[String], with_metrics: bool) -> String {
    let text = item(span, run).to_string();
    match text.strip_suffix('}') {
        Some(open) if with_metrics => format!("{open},\"eval_metrics\":[{}]}}", metrics.join(",")),
        _ => text,
    }
}

/// A root span. Its `metrics` include the usage of its descendants, which this endpoint does not
/// return.
fn item(span: &Span, run: &Member) -> Value {
    let mut numbers = span.metrics.clone();
    for (name, sum) in [
        ("input_tokens", run.input_tokens),
        ("output_tokens", run.output_tokens),
        ("total_tokens", run.total_tokens),
        ("estimated_total_cost", estimated_total_cost(run.cost_usd)),
    ] {
        if sum > 0.0 {
            numbers.entry(name.to_owned()).or_insert(sum);
        }
    }
    let error = span.error.as_ref().map_or_else(
        || json!({}),
        |error| json!({"type": error.error_type, "message": error.message, "stack": error.stack}),
    );
    let mut meta = Map::new();
    meta.insert("span".to_owned(), json!({"kind": span.kind.as_str()}));
    meta.insert("input".to_owned(), io_json(&span.input, span));
    meta.insert("output".to_owned(), io_json(&span.output, span));
    if let Some(expected) = &span.expected_output {
        meta.insert("expected_output".to_owned(), expected.clone());
    }
    meta.insert("metadata".to_owned(), json!(span.metadata));
    meta.insert("error".to_owned(), error);
    for (key, value) in &span.meta_extra {
        meta.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let parent = span.parent_id.as_ref().map(SpanId::as_str);
    let mut item = json!({
        "id": format!("{}-{}", span.trace_id, span.span_id),
        "span_id": span.span_id,
        "trace_id": span.trace_id,
        "parent_id": parent.unwrap_or(llmobs_core::model::ROOT_PARENT),
        "name": span.name,
        "start_ns": span.start_ns,
        "duration": span.duration_ns,
        "status": span.status.as_str(),
        "tags": span.tags,
        "dataset_record_id": span.tag("dataset_record_id"),
        "meta": meta,
        "metrics": numbers,
    });
    if let (Some(map), Some(config)) = (item.as_object_mut(), span.extra.get("config")) {
        map.insert("config".to_owned(), config.clone());
    }
    item
}

/// Input or output of the task, of any JSON type. The SDK writes `{}` for the output of a failed
/// task.
fn io_json(io: &Io, span: &Span) -> Value {
    let is_plain_value = io.messages.is_empty() && io.documents.is_empty() && io.extra.is_empty();
    match &io.value {
        Some(value) if is_plain_value => value.clone(),
        None if io.is_empty() && span.is_error() => json!({}),
        None if io.is_empty() => Value::Null,
        _ => json!(io),
    }
}
