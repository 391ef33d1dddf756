//! Streamable HTTP: the MCP endpoint at three paths, a health check, and fast refusals for the rest.
//!
//! Served without sessions and with JSON answers: the one setting that every tried client accepts,
//! in both eras of the protocol. Clients probe half a dozen `.well-known` paths on every start; they
//! get a small 404 at once.

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

use llmobs_authz::{Admitted, Gate, MCP_PATHS, refusal};

use super::guard::known_names_only;
use super::scope::{Scope, wish};
use super::{McpServer, VERSION};

/// The largest request body in bytes. A call's arguments are small; a batch of records is not.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How much of a refused request's body is taken in, in bytes, and for how long it is waited for.
const MAX_REFUSED_BYTES: usize = 64 * 1024;
const REFUSED_PATIENCE: Duration = Duration::from_secs(2);

/// How long running calls may take to finish once the process was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What can go wrong in serving HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is reachable from other machines, and the gate is not made for them.
    #[error(
        "{0} can be reached from other machines, and no public URL says under which name: use a \
         loopback address such as 127.0.0.1:8787"
    )]
    NotLoopback(SocketAddr),
    /// The socket failed.
    #[error("serving HTTP failed: {0}")]
    Io(#[from] std::io::Error),
}

/// The HTTP app behind a gate. `stop` ends open streams when the process is told to stop.
pub fn router(server: &McpServer, gate: Arc<dyn Gate>, stop: CancellationToken) -> Router {
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
    let wall = Arc::new(gate.public_url().cloned());
    let beside = gate.routes();
    let front = Front {
        server: server.clone(),
        gate,
    };
    app.route_layer(middleware::from_fn_with_state(front, admit))
        .merge(beside)
        .route("/healthz", get(health))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(wall, known_names_only))
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

/// Serves the app until `stop` is cancelled; then finishes what runs, for a few seconds.
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
    // Streams end only after the grace, so that running calls can still answer.
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
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        tracing::warn!("some calls did not finish in time and were dropped");
    }
    streams.cancel();
    Ok(())
}

/// What stands before the protocol.
#[derive(Clone)]
struct Front {
    server: McpServer,
    gate: Arc<dyn Gate>,
}

/// Asks the gate, and notes beside the request what it may see and as whom.
async fn admit(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| *peer);
    let path = request.uri().path().to_owned();
    let caller = match front.gate.admit(&path, peer, request.headers_mut()).await {
        Ok(caller) => caller,
        Err(refused) => {
            take_in(request).await;
            return *refused;
        }
    };
    let mut wish = wish(request.uri(), request.headers());
    if let Admitted::As(user) = &caller {
        wish.read_only |= !user.may_write;
    }
    let selection = front.server.select(&wish);
    for warning in &selection.warnings {
        tracing::info!("{warning}");
    }
    let scope = Scope { selection, caller };
    request.extensions_mut().insert(Arc::new(scope));
    next.run(request).await
}

/// Takes in the body of a request that is refused. Answered before its body came, the connection would
/// be closed, and clients that send their next request on it (the one with credentials, often) would
/// see it break off. What is large or slow is left to that.
pub(super) async fn take_in(request: Request) {
    let body = axum::body::to_bytes(request.into_body(), MAX_REFUSED_BYTES);
    let _ = tokio::time::timeout(REFUSED_PATIENCE, body).await;
}

async fn health() -> Response {
    axum::Json(json!({"status": "ok", "server": "llmobs-mcp", "version": VERSION})).into_response()
}

async fn not_found() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "not found",
        "the MCP endpoint is POST /mcp; GET /healthz tells whether the server runs",
    )
}
