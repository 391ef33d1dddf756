//! The routes of Datadog's API, one file per API family.

mod aggregate;
pub(super) mod control;
mod evaluators;
mod maintenance;
mod private;
mod span_json;
mod span_request;
mod spans;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{Backend, route_with_prefixes};

/// All routes, also under the Agent's proxy prefixes.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let mut router = control::routes(backend)
        .merge(evaluators::routes(backend))
        .merge(maintenance::routes(backend));
    let documented = [
        (spans::PATH, get(spans::list)),
        (spans::SEARCH_PATH, post(spans::search)),
    ];
    let private = [
        ("trace/find-error-spans", post(private::find_error_spans)),
        ("trace/span-content", post(private::span_content)),
        ("trace/search-spans", post(private::search_spans)),
        ("trace/aggregate", post(aggregate::aggregate)),
    ];
    for (path, methods) in documented {
        router = route_with_prefixes(router, path, &methods.with_state(backend.clone()));
    }
    for (path, methods) in private {
        let path = format!("/api/unstable/llm-obs-mcp/v1/{path}");
        router = route_with_prefixes(router, &path, &methods.with_state(backend.clone()));
    }
    router
}
