//! Streamable HTTP: the MCP endpoint at three paths, a health check, and a 404 for all other paths.
//!
//! The endpoint has no sessions and sends JSON responses: every tested client accepts that, in both
//! protocol eras. Clients probe several `.well-known` paths at each start and get a small 404.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
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

use llmobs_authz::{CallerCredential, Gate, HostGuard, MCP_PATHS, refusal};

use super::body::drain_body;
use super::guard::require_known_host;
use super::scope::{Scope, request_filter};
use super::{McpServer, VERSION};

/// The largest request body in bytes. It must hold a batch of dataset records.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How long running calls may take to finish after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// An error of the HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Other machines can reach the address, and the gate has no public URL.
    #[error(
        "{0} can be reached from other machines, and the server has no public URL: use a loopback \
         address such as 127.0.0.1:8787, or add --public-url"
    )]
    NotLoopback(SocketAddr),
    /// The socket failed.
    #[error("serving HTTP failed: {0}")]
    Io(#[from] std::io::Error),
}

/// The HTTP app behind a gate. `stop` ends open streams.
pub fn router(server: &McpServer, gate: Arc<dyn Gate>, stop: CancellationToken) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_retry(None)
        .with_max_request_body_bytes(MAX_BODY_BYTES)
        // `guard` checks Host and Origin on every route, not only on this one.
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
    let guard = Arc::new(HostGuard::new(gate.public_url().cloned()));
    let gate_routes = gate.routes();
    let admission = Admission {
        server: server.clone(),
        gate,
    };
    app.route_layer(middleware::from_fn_with_state(admission, admit))
        .merge(gate_routes)
        .route("/healthz", get(health))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(guard, require_known_host))
        .layer(CatchPanicLayer::custom(
            |_panic: Box<dyn std::any::Any + Send>| {
                refusal(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal error",
                    "this is a bug: please report it",
                )
            },
        ))
}

/// Serves the app until `stop` is cancelled, then lets running calls finish for a few seconds.
///
/// # Errors
/// The listener is not on loopback and the gate has no public URL; or the socket failed.
pub async fn serve_http(
    server: McpServer,
    gate: Arc<dyn Gate>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && gate.public_url().is_none() {
        return Err(HttpError::NotLoopback(address));
    }
    // Streams end after the timeout, so that running calls can still answer.
    let streams = CancellationToken::new();
    let app =
        router(&server, gate, streams.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let stopped = stop.clone();
    let serving = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    tokio::pin!(serving);
    tokio::select! {
        done = &mut serving => return done.map_err(HttpError::from),
        () = stop.cancelled() => {}
    }
    if tokio::time::timeout(STOP_TIMEOUT, &mut serving)
        .await
        .is_err()
    {
        tracing::warn!("some calls did not finish in time and were cancelled");
    }
    streams.cancel();
    Ok(())
}

/// The state of [`admit`].
#[derive(Clone)]
struct Admission {
    server: McpServer,
    gate: Arc<dyn Gate>,
}

/// Asks the gate, and adds the scope of the request to its extensions.
async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| *peer);
    let path = request.uri().path().to_owned();
    let caller = match admission
        .gate
        .admit(&path, peer, request.headers_mut())
        .await
    {
        Ok(caller) => caller,
        Err(refusal) => {
            drain_body(request).await;
            return *refusal;
        }
    };
    let mut filter = request_filter(request.uri(), request.headers());
    if let CallerCredential::User(user) = &caller {
        filter.read_only |= !user.may_write;
    }
    let selection = admission.server.select(&filter);
    for warning in &selection.warnings {
        tracing::info!("{warning}");
    }
    let scope = Scope { selection, caller };
    request.extensions_mut().insert(Arc::new(scope));
    next.run(request).await
}

async fn health() -> Response {
    axum::Json(json!({"status": "ok", "server": "llmobs-mcp", "version": VERSION})).into_response()
}

async fn not_found() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "not found",
        "the MCP endpoint is POST /mcp; the health check is GET /healthz",
    )
}
