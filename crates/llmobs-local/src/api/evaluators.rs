//! Evaluators: the documented configuration API, the path the SDK publishes to, and the private
//! endpoints behind the official tools. All of them read and write one table.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::private::{Refusal, answer};
use crate::http::{ApiError, blocking, json_api, read_question};
use crate::store::Search;
use crate::{Backend, now_ms, route_with_prefixes};
use llmobs_core::analysis::evaluators::{
    EvaluationCounter, keep_unlisted_fields, nested_form, read_draft, wrap_schema,
};
use llmobs_core::model::Evaluator;
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::time;

const PATH: &str = "/api/unstable/llm-obs/config/evaluators/custom";
const NAMED_PATH: &str = "/api/unstable/llm-obs/config/evaluators/custom/{eval_name}";
/// Where `LLMObs.publish_evaluator` writes.
const SDK_PATH: &str = "/api/unstable/llm-obs/v1/config/evaluators/custom";
const PRIVATE: &str = "/api/unstable/llm-obs-mcp/v1";

/// All routes of evaluators.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let mut router = Router::new();
    let all = [
        (PATH.to_owned(), get(list)),
        (NAMED_PATH.to_owned(), get(show).put(replace).delete(remove)),
        (SDK_PATH.to_owned(), put(publish)),
        (format!("{PRIVATE}/eval/list-for-org"), post(list_rows)),
        (format!("{PRIVATE}/eval/list"), post(list_rows)),
        (format!("{PRIVATE}/eval/aggregate-stats"), post(stats)),
        (format!("{PRIVATE}/custom-evaluator/get"), post(private_get)),
        (
            format!("{PRIVATE}/custom-evaluator/create-or-update"),
            post(private_put),
        ),
        (
            format!("{PRIVATE}/custom-evaluator/delete"),
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

fn unknown(name: &str) -> String {
    format!("evaluator not found: {name}")
}

/// Works where blocking is fine, and answers with `data` or with nothing.
async fn respond(
    work: impl FnOnce() -> Result<Option<Value>, ApiError> + Send + 'static,
) -> Response {
    match blocking(work).await {
        Ok(Some(data)) => json_api(StatusCode::OK, &json!({"data": data})),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

async fn list(State(backend): State<Arc<Backend>>) -> Response {
    respond(move || {
        let all = backend.evaluators.list(None)?;
        Ok(Some(all.iter().map(item).collect()))
    })
    .await
}

async fn show(State(backend): State<Arc<Backend>>, Path(name): Path<String>) -> Response {
    respond(move || match backend.evaluators.get(&name)? {
        Some(evaluator) => Ok(Some(item(&evaluator))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, unknown(&name))),
    })
    .await
}

async fn replace(
    State(backend): State<Arc<Backend>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let body = attributes_of(request).await;
    respond(move || {
        let mut attributes = body?;
        let named = attributes.as_object_mut().map(|map| {
            map.entry("eval_name")
                .or_insert_with(|| json!(name))
                .clone()
        });
        if named != Some(json!(name)) {
            return Err(ApiError::bad_request(
                "`eval_name` must be the name in the path",
            ));
        }
        let kept = keep(&backend, attributes)?;
        Ok(Some(item(&kept)))
    })
    .await
}

async fn remove(State(backend): State<Arc<Backend>>, Path(name): Path<String>) -> Response {
    respond(move || {
        if backend.evaluators.delete(&name)? {
            Ok(None)
        } else {
            Err(ApiError::new(StatusCode::NOT_FOUND, unknown(&name)))
        }
    })
    .await
}

/// The SDK's form: one evaluation with its applications.
async fn publish(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let body = attributes_of(request).await;
    respond(move || {
        let attributes = of_published(&body?)?;
        let kept = keep(&backend, attributes)?;
        Ok(Some(item(&kept)))
    })
    .await
}

/// `data.attributes` of a JSON:API body.
async fn attributes_of(request: Request) -> Result<Value, ApiError> {
    match read_question(request.into_body())
        .await?
        .pointer_mut("/data/attributes")
    {
        Some(attributes) if attributes.is_object() => Ok(attributes.take()),
        _ => Err(ApiError::bad_request(
            "the body must be {\"data\":{\"type\":\"evaluator_config\",\"attributes\":{…}}}",
        )),
    }
}

/// The documented attributes of what the SDK publishes.
fn of_published(attributes: &Value) -> Result<Value, ApiError> {
    let refused = || {
        ApiError::bad_request(
            "`attributes.evaluation` must be {\"eval_name\":\"…\",\"applications\":[{\"application_name\":\"…\",\"byop_config\":{…}}]}",
        )
    };
    let evaluation = attributes.get("evaluation").ok_or_else(refused)?;
    let applications = evaluation.get("applications").and_then(Value::as_array);
    let [application] = applications.ok_or_else(refused)?.as_slice() else {
        return Err(ApiError::bad_request(
            "`applications` must hold exactly one application: an evaluator has one target",
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

/// Keeps a configuration in documented form, in one spelling.
fn keep(backend: &Backend, attributes: Value) -> Result<Evaluator, ApiError> {
    let mut evaluator = Evaluator::from_attributes(attributes).map_err(|error| {
        ApiError::bad_request(format!("the configuration cannot be read: {error}"))
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
    Ok(backend.evaluators.put(evaluator, &now())?)
}

/// `eval/list-for-org` and `eval/list`.
async fn list_rows(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    answer(backend, request, |backend, arguments| {
        let app = arguments.text("ml_app");
        let rows: Vec<Value> = backend
            .evaluators
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

/// `eval/aggregate-stats`: all evaluations of a name on the spans of a window.
async fn stats(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    answer(backend, request, |backend, arguments| {
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
            return Err(Refusal::from(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the local backend ran out of time; ask for a shorter window",
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
    answer(backend, request, |backend, arguments| {
        let name = arguments.required("eval_name")?;
        match backend.evaluators.get(&name)? {
            Some(evaluator) => Ok(Value::Object(nested_form(&evaluator))),
            None => Err(Refusal::NotFound(unknown(&name))),
        }
    })
    .await
}

async fn private_put(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    answer(backend, request, |backend, arguments| {
        let draft = read_draft(arguments.all());
        if let Some(problem) = draft.problems.first() {
            return Err(Refusal::from(ApiError::bad_request(format!(
                "`{}` {}",
                problem.field, problem.reason
            ))));
        }
        let mut evaluator = draft.evaluator;
        if let Some(kept) = backend.evaluators.get(&evaluator.eval_name)? {
            evaluator = keep_unlisted_fields(evaluator, &kept);
        }
        let name = evaluator.eval_name.clone();
        keep(backend, Value::Object(evaluator.to_attributes()))?;
        Ok(json!({"status": "ok", "eval_name": name}))
    })
    .await
}

async fn private_delete(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    answer(backend, request, |backend, arguments| {
        let name = arguments.required("eval_name")?;
        if backend.evaluators.delete(&name)? {
            Ok(json!({"status": "ok"}))
        } else {
            Err(Refusal::NotFound(unknown(&name)))
        }
    })
    .await
}
