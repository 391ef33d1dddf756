//! The MCP server: one handler for every transport, with stdio and Streamable HTTP around it.
//!
//! The handler is thin. It decides *which* tools a caller sees (`selection`), *whose* credentials a
//! call uses (`upstreams`) and how the protocol frames an outcome. [`crate::tools`] holds the tools,
//! [`datadog_llmobs`] the requests behind them.
//!
//! Invariant: connections, limiters and caches, which outlive a request, are in the hubs of
//! [`Upstreams`], never in the handler. HTTP has no sessions, so each request gets its own copy of
//! the handler.
//!
//! One endpoint, like stdio, serves both protocol eras: the stateless revision 2026-07-28 and the
//! older revisions that start with `initialize`.

mod body;
mod credentials;
mod dispatch;
mod guard;
mod handler;
mod http;
mod instructions;
mod resources;
mod scope;
mod selection;
mod stdio;
mod upstreams;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use credentials::{CredentialSource, CredentialUnavailable, FixedCredential};
pub use dispatch::{CALL_DEADLINE, Outcome};
pub use handler::definitions;
pub use http::{HttpError, router, serve_http};
use llmobs_authz::CallerCredential;
pub use resources::{TOOLSETS_URI, WHOAMI_URI};
pub use scope::Scope;
pub use selection::{HiddenReason, Selection, ToolEntry, ToolFilter, ToolRegistry};
pub use stdio::{StdioError, serve_stdio, serve_streams};
pub use upstreams::{LocalReason, UpstreamInfo, Upstreams};

/// The version that the server reports on every transport.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The MCP server. It is cheap to clone: each HTTP request owns a clone.
#[derive(Clone)]
pub struct McpServer {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Upstreams,
    /// The tools of the process; a request can only restrict them further.
    process: ToolFilter,
    registry: ToolRegistry,
}

impl McpServer {
    /// Creates a server over these upstreams. `process` is the tool filter of the process, from its
    /// settings; the default serves the default toolset.
    pub fn new(upstreams: Upstreams, process: ToolFilter) -> Self {
        let server = Self {
            inner: Arc::new(Inner {
                upstreams,
                process,
                registry: ToolRegistry::from_tools(),
            }),
        };
        for warning in &server.select(&ToolFilter::default()).warnings {
            tracing::warn!("{warning}");
        }
        server
    }

    /// The tools served to a request with this filter.
    pub fn select(&self, request: &ToolFilter) -> Selection {
        self.inner.registry.select(&self.inner.process, request)
    }

    /// The scope of a caller without a filter: stdio and the shell.
    pub fn default_scope(&self) -> Scope {
        Scope {
            selection: self.select(&ToolFilter::default()),
            caller: CallerCredential::Server,
        }
    }

    /// The upstreams behind the tools.
    pub fn upstreams(&self) -> &Upstreams {
        &self.inner.upstreams
    }
}
