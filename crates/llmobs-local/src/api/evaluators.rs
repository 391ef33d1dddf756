//! Evaluators: the documented configuration API, the path to which the SDK publishes, and the
//! private endpoints of the official tools. All use one table.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::private::{PrivateError, respond};
use crate::http::{ApiError, json_api, read_small_json, run_blocking};
use crate::store::Search;
use crate::{Backend, now_ms, route_with_prefixes};
use llmobs_core::analysis::evaluators::{
    EvaluationCounter, keep_unlisted_fields, nested_form, read_draft, wrap_schema,
};
use llmobs_core::model::Evaluator;
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::time;

const LIST_PATH: &str = "/api/unstable/llm-obs/config/evaluators/custom";
const NAMED_PATH: &str = "/api/unstable/llm-obs/config/evaluators/custom/{eval_name}";
/// The path of `LLMObs.publish_evaluator`.
const SDK_PATH: &str = "/api/unstable/llm-obs/v1/config/evaluators/custom";
const PRIVATE_PREFIX: &str = "/api/unstable/llm-obs-mcp/v1";

/// All routes of evaluators.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let mut router = Router::new();
    let all = [
        (LIST_PATH.to_owned(), get(list)),
        (NAMED_PATH.to_owned(), get(show).put(replace).delete(remove)),
        (SDK_PATH.to_owned(), put(publish)),
        (
            format!("{PRIVATE_PREFIX}/eval/list-for-org"),
            post(list_rows),
        ),
        (format!("{PRIVATE_PREFIX}/eval/list"), post(list_rows)),
        (
            format!("{PRIVATE_PREFIX}/eval/aggregate-stats"),
            post(stats),
        ),
        (
            format!("{PRIVATE_PREFIX}/custom-evaluator/get"),
            post(private_get),
        ),
        (
            format!("{PRIVATE_PREFIX}/custom-evaluator/create-or-update"),
            post(private_put),
        ),
        (
            format!("{PRIVATE_PREFIX}/custom-evaluator/delete"),
            post(private_delete),
        ),
    ];
    for (path, methods) in all {
        router = route_with_prefixes(router, &path, &methods.with_state(backend.clone()));
    }
    router
}

fn now() -> String {
    time::format_rfc3339(now_ms())
}

fn item(evaluator: &Evaluator) -> Value {
    json!({"id": evaluator.eval_name, "type": "evaluator_config",
        "attributes": evaluator.to_attributes()})
}

fn not_found(name: &str) -> String {
    format!("evaluator not found: {name}")
}

/// Runs `work` on a blocking thread, and responds with `data` or with an empty body.
async fn respond_json_api(
    work: impl FnOnce() -> Result<Option<Value>, ApiError> + Send + 'static,
) -> Response {
    match run_blocking(work).await {
        Ok(Some(data)) => json_api(StatusCode::OK, &json!({"data": data})),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

async fn list(State(backend): State<Arc<Backend>>) -> Response {
    respond_json_api(move || {
        let all = backend.control.evaluators().list(None)?;
        Ok(Some(all.iter().map(item).collect()))
    })
    .await
}

async fn show(State(backend): State<Arc<Backend>>, Path(name): Path<String>) -> Response {
    respond_json_api(move || match backend.control.evaluators().get(&name)? {
        Some(evaluator) => Ok(Some(item(&evaluator))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, not_found(&name))),
    })
    .await
}

async fn replace(
    State(backend): State<Arc<Backend>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let body = attributes_of(request).await;
    respond_json_api(move || {
        let mut attributes = body?;
        let eval_name = attributes.as_object_mut().map(|map| {
            map.entry("eval_name")
                .or_insert_with(|| json!(name))
                .clone()
        });
        if eval_name != Some(json!(name)) {
            return Err(ApiError::bad_request(
                "`eval_name` must be the name in the path",
            ));
        }
        let evaluator = save(&backend, attributes)?;
        Ok(Some(item(&evaluator)))
    })
    .await
}

async fn remove(State(backend): State<Arc<Backend>>, Path(name): Path<String>) -> Response {
    respond_json_api(move || {
        if backend.control.evaluators().delete(&name)? {
            Ok(None)
        } else {
            Err(ApiError::new(StatusCode::NOT_FOUND, not_found(&name)))
        }
    })
    .await
}

/// The SDK's format: one evaluation with its applications.
async fn publish(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let body = attributes_of(request).await;
    respond_json_api(move || {
        let attributes = from_sdk_attributes(&body?)?;
        let evaluator = save(&backend, attributes)?;
        Ok(Some(item(&evaluator)))
    })
    .await
}

/// `data.attributes` of a JSON:API body.
async fn attributes_of(request: Request) -> Result<Value, ApiError> {
    match read_small_json(request.into_body())
        .await?
        .pointer_mut("/data/attributes")
    {
        Some(attributes) if attributes.is_object() => Ok(attributes.take()),
        _ => Err(ApiError::bad_request(
            "the body must be {\"data\":{\"type\":\"evaluator_config\",\"attributes\":{…}}}",
        )),
    }
}

/// Converts attributes in the SDK's format to documented attributes.
fn from_sdk_attributes(attributes: &Value) -> Result<Value, ApiError> {
    let refused = || {
        ApiError::bad_request(
            "`attributes.evaluation` must be {\"eval_name\":\"…\",\"applications\":[{\"application_name\":\"…\",\"byop_config\":{…}}]}",
        )
    };
    let evaluation = attributes.get("evaluation").ok_or_else(refused)?;
    let applications = evaluation.get("applications").and_then(Value::as_array);
    let [application] = applications.ok_or_else(refused)?.as_slice() else {
        return Err(ApiError::bad_request(
            "`applications` must contain exactly one application, because an evaluator has one target",
        ));
    };
    let config = application
        .get("byop_config")
        .and_then(Value::as_object)
        .ok_or_else(refused)?;
    let mut target = Map::new();
    let mut provider = Map::new();
    for key in [
        "application_name",
        "enabled",
        "eval_scope",
        "filter",
        "root_spans_only",
        "sampling_percentage",
    ] {
        if let Some(value) = application.get(key).or_else(|| config.get(key)) {
            target.insert(key.to_owned(), value.clone());
        }
    }
    for key in [
        "integration_provider",
        "integration_account_id",
        "model_name",
    ] {
        if let Some(value) = application.get(key) {
            provider.insert(key.to_owned(), value.clone());
        }
    }
    let mut judge = config.clone();
    judge.retain(|key, _| !target.contains_key(key));
    Ok(
        json!({"eval_name": evaluation.get("eval_name"), "target": target,
        "llm_provider": provider, "llm_judge_config": judge}),
    )
}

/// Normalizes and stores a configuration with documented attributes.
fn save(backend: &Backend, attributes: Value) -> Result<Evaluator, ApiError> {
    let mut evaluator = Evaluator::from_attributes(attributes).map_err(|error| {
        ApiError::bad_request(format!("invalid evaluator configuration: {error}"))
    })?;
    let target = &evaluator.target;
    if evaluator.eval_name.is_empty() || target.application_name.is_empty() {
        return Err(ApiError::bad_request(
            "`eval_name` and `target.application_name` are required",
        ));
    }
    let provider = &mut evaluator.llm_provider.integration_provider;
    *provider = provider.replace('_', "-");
    if let Some(schema) = &mut evaluator.llm_judge_config.output_schema {
        *schema = wrap_schema(schema);
    }
    Ok(backend.control.evaluators().put(evaluator, &now())?)
}

/// `eval/list-for-org` and `eval/list`.
async fn list_rows(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    respond(backend, request, |backend, arguments| {
        let app = arguments.text("ml_app");
        let rows: Vec<Value> = backend
            .control
            .evaluators()
            .list(app.as_deref())?
            .iter()
            .map(|evaluator| {
                json!({
                    "eval_name": evaluator.eval_name,
                    "ml_app": evaluator.target.application_name,
                    "enabled": evaluator.target.enabled,
                    "source": "custom",
                    "type": evaluator.metric_type().map(llmobs_core::model::MetricType::as_str),
                    "created_at": evaluator.created_at,
                })
            })
            .collect();
        Ok(json!({"evaluators": rows}))
    })
    .await
}

/// `eval/aggregate-stats`: all evaluations with a name on the spans of a time window.
async fn stats(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    respond(backend, request, |backend, arguments| {
        let name = arguments.required("eval_name")?;
        let (from, to) = (arguments.text("from"), arguments.text("to"));
        let window = time::parse_window(from.as_deref(), to.as_deref(), "now-1d", now_ms())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let ml_app = arguments.text("ml_app");
        let search = Search {
            filters: SpanFilters {
                ml_app: ml_app.clone(),
                ..SpanFilters::default()
            },
            limit: usize::MAX,
            budget: backend.options.search_budget,
            ..Search::within(window)
        };
        let mut tally = EvaluationCounter::new(&name);
        let outcome = backend.store.search(&search, &mut |span| {
            tally.add(&span);
            ControlFlow::Continue(())
        })?;
        if outcome.partial {
            return Err(PrivateError::from(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the search ran out of time; use a shorter time window",
            )));
        }
        let mut sums = serde_json::to_value(tally.finish()).unwrap_or_default();
        if let Some(map) = sums.as_object_mut() {
            map.insert("eval_name".to_owned(), json!(name));
            map.insert("ml_app".to_owned(), json!(ml_app));
        }
        Ok(sums)
    })
    .await
}

async fn private_get(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    respond(backend, request, |backend, arguments| {
        let name = arguments.required("eval_name")?;
        match backend.control.evaluators().get(&name)? {
            Some(evaluator) => Ok(Value::Object(nested_form(&evaluator))),
            None => Err(PrivateError::NotFound(not_found(&name))),
        }
    })
    .await
}

async fn private_put(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    respond(backend, request, |backend, arguments| {
        let draft = read_draft(arguments.as_map());
        if let Some(problem) = draft.problems.first() {
            return Err(PrivateError::from(ApiError::bad_request(format!(
                "`{}` {}",
                problem.field, problem.reason
            ))));
        }
        let mut evaluator = draft.evaluator;
        if let Some(stored) = backend.control.evaluators().get(&evaluator.eval_name)? {
            evaluator = keep_unlisted_fields(evaluator, &stored);
        }
        let name = evaluator.eval_name.clone();
        save(backend, Value::Object(evaluator.to_attributes()))?;
        Ok(json!({"status": "ok", "eval_name": name}))
    })
    .await
}

async fn private_delete(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    respond(backend, request, |backend, arguments| {
        let name = arguments.required("eval_name")?;
        if backend.control.evaluators().delete(&name)? {
            Ok(json!({"status": "ok"}))
        } else {
            Err(PrivateError::NotFound(not_found(&name)))
        }
    })
    .await
}
