//! Middleware that refuses requests of foreign web pages, by [`HostGuard`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;

use llmobs_authz::{HostGuard, refusal};

use super::body::drain_body;

/// Middleware: passes requests that address this server on, and answers others with status 403.
pub(crate) async fn require_known_host(
    State(guard): State<Arc<HostGuard>>,
    request: Request,
    next: Next,
) -> Response {
    let Err(foreign) = guard.check(request.uri(), request.headers()) else {
        return next.run(request).await;
    };
    tracing::warn!(header = foreign.header(), "refused a request: {foreign}");
    drain_body(request).await;
    let public = match guard.public_url() {
        Some(url) => format!("{}, ", url.origin()),
        None => String::new(),
    };
    refusal(
        StatusCode::FORBIDDEN,
        &format!("forbidden: {foreign}"),
        &format!(
            "this server accepts requests to {public}localhost, 127.0.0.1 and [::1] only: use a URL with \
             one of these hosts, and do not call it from a web page of another site"
        ),
    )
}
