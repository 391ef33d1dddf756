//! The reading side of the API, one file per family.

mod aggregate;
mod ask;
pub(super) mod control;
mod evaluators;
mod private;
mod spans;
mod upkeep;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{Backend, route_with_prefixes};

/// All reading routes, also under the Agent's proxy prefixes.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let mut router = control::routes(backend)
        .merge(evaluators::routes(backend))
        .merge(upkeep::routes(backend));
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
