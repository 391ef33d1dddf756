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

/// The paths of the MCP endpoint: the path of this server, and the two paths of Datadog's hosted
/// server. A gate that issues tokens treats each path as a separate resource.
pub const MCP_PATHS: [&str; 3] = ["/mcp", "/v1/mcp", "/api/unstable/mcp-server/mcp"];

/// Decides whether a caller may call the MCP endpoint, and with which credential.
pub trait Gate: Send + Sync {
    /// Checks a request to the MCP endpoint at `path` (one of [`MCP_PATHS`]). The server calls this for
    /// every HTTP method, before other code reads the request. `peer` is the other end of the
    /// connection: behind a proxy, the address of the proxy.
    ///
    /// Removes all credentials from the headers, whatever it decides.
    ///
    /// # Errors
    /// The response to send instead: 400, 401, 403, 429 or 503, in the form that clients of this mode
    /// understand.
    fn admit<'a>(
        &'a self,
        path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>>;

    /// Further routes of the server, beside the MCP paths and `/healthz`. The
    /// [`HostGuard`](crate::HostGuard) protects them too. Requests there carry
    /// `ConnectInfo<SocketAddr>`.
    fn routes(&self) -> Router {
        Router::new()
    }

    /// The URL at which callers on other machines reach the server. The `Host` and `Origin` headers
    /// may name it besides loopback names. Without a public URL the server listens on loopback only.
    fn public_url(&self) -> Option<&PublicUrl> {
        None
    }
}

/// The credential with which an admitted request calls Datadog.
#[derive(Clone)]
pub enum CallerCredential {
    /// The credential of the server, which may be none.
    Server,
    /// What the request brought. The credential of the server is never used instead.
    Request(HeaderCredentials),
    /// The credential of a user who signed in at this server.
    User(SignedInUser),
}

/// A user who signed in at this server.
#[derive(Clone)]
pub struct SignedInUser {
    /// The credential for the user's calls.
    pub credential: Credential,
    /// Replaces the credential when the upstream refuses it.
    pub renewal: Option<Arc<dyn RenewCredential>>,
    /// Identifies the sign-in in logs and in `whoami`. Never a secret or a hash of one.
    pub subject: String,
    /// Whether the user allowed this client to call tools that write.
    pub may_write: bool,
}
