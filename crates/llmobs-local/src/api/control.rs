//! The control plane of experiments, one file per API family.
//!
//! The SDK calls some operations on the unstable path and some on v2, directly or through the
//! Agent's proxy, so every operation is served on all of them. An operation is a plain function
//! from a [`Call`] to a [`Reply`], listed in [`OPERATIONS`]. Sample data is replayed through the
//! same functions.

mod call;
mod datasets;
mod events;
mod experiments;
mod inference;
mod projects;
mod prompts;
mod read_events;
mod record_csv;
mod records;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::{Method, StatusCode};

use crate::http::{ApiError, decompress, json_api, json_api_bytes, run_blocking};
use crate::{Backend, PROXY_PREFIXES, intake, now_ms};

pub(crate) use call::{Call, CallBody, RecordedIds, Reply};

/// One operation of the control plane.
type Operation = fn(&Backend, &Call) -> Result<Reply, ApiError>;

/// The path prefixes of [`OPERATIONS`].
const BASES: [&str; 2] = ["/api/unstable/llm-obs/v1", "/api/v2/llm-obs/v1"];

const GET: &str = "GET";
const POST: &str = "POST";
const PATCH: &str = "PATCH";
const DELETE: &str = "DELETE";

/// The operations under both prefixes.
const OPERATIONS: [(&str, &str, Operation); 39] = [
    (GET, "/projects", projects::list),
    (POST, "/projects", projects::create),
    (POST, "/projects/delete", projects::delete),
    (PATCH, "/projects/{project_id}", projects::update),
    (GET, "/{project_id}/datasets", datasets::list),
    (POST, "/{project_id}/datasets", datasets::create),
    (POST, "/{project_id}/datasets/delete", datasets::delete),
    (POST, "/datasets/delete", datasets::delete),
    (
        PATCH,
        "/{project_id}/datasets/{dataset_id}",
        datasets::update,
    ),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/clone",
        datasets::clone,
    ),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/restore",
        datasets::restore,
    ),
    (
        GET,
        "/{project_id}/datasets/{dataset_id}/versions",
        datasets::versions,
    ),
    (
        GET,
        "/{project_id}/datasets/{dataset_id}/export",
        datasets::export,
    ),
    (
        GET,
        "/{project_id}/datasets/{dataset_id}/records",
        records::list,
    ),
    (GET, "/datasets/{dataset_id}/records", records::list),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/records",
        records::insert,
    ),
    (
        PATCH,
        "/{project_id}/datasets/{dataset_id}/records",
        records::update,
    ),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/records/delete",
        records::delete,
    ),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/batch_update",
        records::batch_update,
    ),
    (
        POST,
        "/datasets/{dataset_id}/records/upload",
        upload::upload,
    ),
    (
        POST,
        "/{project_id}/datasets/{dataset_id}/records/upload",
        upload::upload,
    ),
    (GET, "/experiments", experiments::list),
    (POST, "/experiments", experiments::create),
    (POST, "/experiments/delete", experiments::delete),
    (PATCH, "/experiments/{experiment_id}", experiments::update),
    (GET, "/experiments/events", read_events::by_name),
    (POST, "/experiments/{experiment_id}/events", events::push),
    (GET, "/experiments/{experiment_id}/events", read_events::v1),
    (POST, "/evaluators/{name}/infer", inference::infer),
    (GET, "/prompts", prompts::list),
    (POST, "/prompts", prompts::create),
    (GET, "/prompts/{prompt_id}", prompts::get),
    (PATCH, "/prompts/{prompt_id}", prompts::update),
    (DELETE, "/prompts/{prompt_id}", prompts::delete),
    (GET, "/prompts/{prompt_id}/versions", prompts::versions),
    (
        POST,
        "/prompts/{prompt_id}/versions",
        prompts::create_version,
    ),
    (
        GET,
        "/prompts/{prompt_id}/versions/{version}",
        prompts::version,
    ),
    (
        PATCH,
        "/prompts/{prompt_id}/versions/{version}",
        prompts::update_version,
    ),
    (POST, "/prompts/{prompt_id}/resolve", prompts::resolve),
];

/// The operations with complete paths.
const OTHER_OPERATIONS: [(&str, &str, Operation); 4] = [
    (
        GET,
        "/api/v2/llm-obs/v2/experiments/{experiment_id}/events",
        read_events::v2,
    ),
    (
        GET,
        "/api/v2/llm-obs/v3/experiments/{experiment_id}/events",
        read_events::v3,
    ),
    (
        POST,
        "/api/v2/llm-obs/v2/{project_id}/datasets/{dataset_id}/records/upload",
        upload::upload,
    ),
    (
        POST,
        "/api/unstable/llm-obs-mcp/v1/experiment/ingest-events",
        events::ingest,
    ),
];

fn operations() -> impl Iterator<Item = (&'static str, String, Operation)> {
    let under_bases = BASES.into_iter().flat_map(|base| {
        let full = move |(method, path, operation)| (method, format!("{base}{path}"), operation);
        OPERATIONS.into_iter().map(full)
    });
    let others = OTHER_OPERATIONS.into_iter();
    under_bases.chain(others.map(|(method, path, operation)| (method, path.to_owned(), operation)))
}

/// All routes of the control plane, also under the Agent's proxy prefixes.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let mut router = Router::new();
    for (method, path, operation) in operations() {
        let filter = match method {
            POST => MethodFilter::POST,
            PATCH => MethodFilter::PATCH,
            DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let methods: MethodRouter = on(filter, serve).with_state((backend.clone(), operation));
        router = crate::route_with_prefixes(router, &path, &methods);
    }
    router
}

/// Whether a request is for the control plane.
pub(crate) fn has_operation(method: &str, path: &str) -> bool {
    find(method, path).is_some()
}

/// Performs a recorded request. Blocks.
pub(crate) fn perform(backend: &Backend, call: Call) -> Result<Reply, ApiError> {
    let (operation, parameters) = find(&call.method, &call.path).ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "the local backend does not serve this path",
        )
    })?;
    operation(backend, &Call { parameters, ..call })
}

type PathParameters = Vec<(String, String)>;

/// The operation of a path and the values of its parameters. As in the router, a literal segment
/// precedes a parameter.
fn find(method: &str, path: &str) -> Option<(Operation, PathParameters)> {
    let prefix = PROXY_PREFIXES
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    let path = prefix.unwrap_or(path);
    let match_pattern = |pattern: &str| {
        let mut parameters = PathParameters::new();
        let mut segments = path.split('/');
        for expected in pattern.split('/') {
            let segment = segments.next()?;
            match expected
                .strip_prefix('{')
                .and_then(|name| name.strip_suffix('}'))
            {
                Some(name) => parameters.push((name.to_owned(), segment.to_owned())),
                None if expected == segment => {}
                None => return None,
            }
        }
        segments.next().is_none().then_some(parameters)
    };
    operations()
        .filter(|(operation_method, _, _)| *operation_method == method)
        .filter_map(|(_, pattern, operation)| Some((operation, match_pattern(&pattern)?)))
        .min_by_key(|(_, parameters)| parameters.len())
}

async fn serve(
    State((backend, operation)): State<(Arc<Backend>, Operation)>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let parameters = parameters
        .iter()
        .flat_map(|parameters| parameters.iter())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match receive(backend, operation, parameters, request).await {
        Ok(reply) => respond(reply),
        Err(error) => error.into_response(),
    }
}

async fn receive(
    backend: Arc<Backend>,
    operation: Operation,
    parameters: PathParameters,
    request: Request,
) -> Result<Reply, ApiError> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::GET {
        // Reads bypass the limits of the intake.
        return run_blocking(move || {
            let call = Call::from_request(&parts, Bytes::new(), parameters, now_ms())?;
            operation(&backend, &call)
        })
        .await;
    }
    let request = Request::from_parts(parts.clone(), body);
    let worker = backend.clone();
    intake::run_admitted(&backend, request, move |headers, body| {
        let body = decompress(headers, body, worker.options.body_limits)?;
        let call = Call::from_request(&parts, body, parameters, now_ms())?;
        operation(&worker, &call)
    })
    .await
}

fn respond(reply: Reply) -> Response {
    match reply {
        Reply::Json(body) => json_api(StatusCode::OK, &body),
        Reply::JsonBytes(body) => json_api_bytes(StatusCode::OK, body),
        Reply::Status(status, body) => json_api(status, &body),
        Reply::Empty(status) => status.into_response(),
        Reply::Csv(csv) => {
            let content_type = http::HeaderValue::from_static("text/csv; charset=utf-8");
            ([(http::header::CONTENT_TYPE, content_type)], csv).into_response()
        }
    }
}
