//! Streamable HTTP: the MCP endpoint at three paths, a health check, and fast refusals for the rest.
//!
//! Served without sessions and with JSON answers: the one setting that every tried client accepts,
//! in both eras of the protocol. Clients probe half a dozen `.well-known` paths on every start; they
//! get a small 404 at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::credentials::HeaderCredentials;
use super::guard::loopback_only;
use super::scope::{Scope, wish};
use super::{McpServer, VERSION};

/// The paths of the MCP endpoint: ours, and the two of the hosted server.
pub const MCP_PATHS: [&str; 3] = ["/mcp", "/v1/mcp", "/api/unstable/mcp-server/mcp"];

/// The largest request body in bytes. A call's arguments are small; a batch of records is not.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How long running calls may take to finish once the process was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What can go wrong in serving HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is reachable from other machines.
    #[error(
        "{0} can be reached from other machines, and this server has no sign-in for MCP callers yet: \
         use a loopback address such as 127.0.0.1:8787"
    )]
    NotLoopback(SocketAddr),
    /// The socket failed.
    #[error("serving HTTP failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Refuses addresses that other machines can reach.
pub fn require_loopback(address: SocketAddr) -> Result<(), HttpError> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(HttpError::NotLoopback(address))
    }
}

/// The HTTP app. `stop` ends open streams when the process is told to stop.
pub fn router(server: &McpServer, stop: CancellationToken) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_retry(None)
        .with_max_request_body_bytes(MAX_BODY_BYTES)
        // Our own wall stands in front of every route, not only of this one.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_cancellation_token(stop);
    let handler = server.clone();
    let mcp = StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    let mut app = Router::new();
    for path in MCP_PATHS {
        app = app.route_service(path, mcp.clone());
    }
    app.route_layer(middleware::from_fn_with_state(server.clone(), attach_scope))
        .route("/healthz", get(health))
        .fallback(not_found)
        .layer(middleware::from_fn(loopback_only))
        .layer(CatchPanicLayer::custom(
            |_panic: Box<dyn std::any::Any + Send>| {
                error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal error",
                    "this is a bug: please report it",
                )
            },
        ))
}

/// Serves the app until `stop` is cancelled; then finishes what runs, for a few seconds.
pub async fn serve_http(
    server: McpServer,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    require_loopback(listener.local_addr()?)?;
    // Streams end only after the grace, so that running calls can still answer.
    let streams = CancellationToken::new();
    let app = router(&server, streams.clone());
    let stopped = stop.clone();
    let serving = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    tokio::pin!(serving);
    tokio::select! {
        done = &mut serving => return done.map_err(HttpError::from),
        () = stop.cancelled() => {}
    }
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        tracing::warn!("some calls did not finish in time and were dropped");
    }
    streams.cancel();
    Ok(())
}

/// Reads what the request asks for and as whom, and takes the credentials out of its headers.
async fn attach_scope(
    State(server): State<McpServer>,
    mut request: Request,
    next: Next,
) -> Response {
    let selection = server.select(&wish(request.uri(), request.headers()));
    let credentials = HeaderCredentials::take(request.headers_mut());
    for warning in &selection.warnings {
        tracing::info!("{warning}");
    }
    request.extensions_mut().insert(Arc::new(Scope {
        selection,
        credentials,
    }));
    next.run(request).await
}

async fn health() -> Response {
    axum::Json(json!({"status": "ok", "server": "llmobs-mcp", "version": VERSION})).into_response()
}

async fn not_found() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "not found",
        "the MCP endpoint is POST /mcp; GET /healthz tells whether the server runs",
    )
}

fn error(status: StatusCode, error: &str, hint: &str) -> Response {
    let body = json!({"error": error, "status": status.as_u16(), "hint": hint});
    (status, axum::Json(body)).into_response()
}
