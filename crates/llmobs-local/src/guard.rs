//! Layers around every route: the check of `Host` and `Origin` ([`HostGuard`]), and the
//! handling of panics.
//!
//! Requests without `Host` pass: they come from this process or from a client that is not a browser.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use llmobs_authz::HostGuard;
use tower_http::catch_panic::CatchPanicLayer;

use super::http::ApiError;

/// Adds the layers to the routes, and the responses for unknown paths and methods.
pub(super) fn guarded(routes: Router) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(check))
        .layer(CatchPanicLayer::custom(|_panic| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal error in llmobs-mcp; please report it",
            )
            .into_response()
        }))
}

async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "the local backend has no such path; GET /info lists the paths it serves",
    )
}

async fn not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not support this method; the Allow header lists the supported ones",
    )
}

/// Answers requests of foreign web pages with status 403.
async fn check(request: Request, next: Next) -> Response {
    let guard = HostGuard::for_in_process_requests();
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(foreign) => ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "the {} header does not name this machine; the local backend accepts requests to \
                 127.0.0.1, [::1] or localhost only, and not from web pages of other sites",
                foreign.header()
            ),
        )
        .into_response(),
    }
}
