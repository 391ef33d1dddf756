//! The gate before the MCP endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use datadog_llmobs::{Credential, RenewCredential};

use super::headers::HeaderCredentials;
use super::public_url::PublicUrl;

/// The paths of the MCP endpoint: ours, and the two of the hosted server. Each is a resource of its
/// own to a gate that gives out tokens.
pub const MCP_PATHS: [&str; 3] = ["/mcp", "/v1/mcp", "/api/unstable/mcp-server/mcp"];

/// Decides over requests to the MCP endpoint, one kind per mode.
pub trait Gate: Send + Sync {
    /// May this request call the MCP endpoint at `path` (one of [`MCP_PATHS`]), and with whose
    /// credential? Asked for every method, before anything else looks at the request. `peer` is the
    /// other end of the connection, which is a proxy's address behind a proxy.
    ///
    /// Takes every credential out of the headers, whatever it decides.
    ///
    /// # Errors
    /// The answer to give instead: a 401, 403, 400 or 429 with what its kind of client understands.
    fn admit<'a>(
        &'a self,
        path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<Admitted, Box<Response>>>;

    /// Routes served beside the MCP paths and `/healthz`, behind the same wall against foreign `Host`
    /// and `Origin`. Each request there carries `ConnectInfo<SocketAddr>`.
    fn routes(&self) -> Router {
        Router::new()
    }

    /// Where callers reach this server from outside. Its host may stand in `Host`, and its origin in
    /// `Origin`, besides those of loopback; without one the server listens on loopback only.
    fn public_url(&self) -> Option<&PublicUrl> {
        None
    }
}

/// With whose credential an admitted request calls Datadog.
#[derive(Clone)]
pub enum Admitted {
    /// With the server's own, which may be none.
    Own,
    /// With what the request brought and nothing else: never with the server's own.
    Sent(HeaderCredentials),
    /// With that of a user who signed in here.
    As(SignedIn),
}

/// A user who signed in at this server.
#[derive(Clone)]
pub struct SignedIn {
    /// What the user's calls are sent with.
    pub credential: Credential,
    /// Who gives a new credential when this one is refused by the upstream.
    pub renewal: Option<Arc<dyn RenewCredential>>,
    /// Who it is, for the log and for `whoami`: never a secret, nor a hash of one.
    pub subject: String,
    /// Whether the user allowed this client to call tools that write.
    pub may_write: bool,
}
