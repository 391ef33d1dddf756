//! The MCP front: one handler for every transport, stdio and Streamable HTTP around it.
//!
//! The handler is thin on purpose. It decides *which* tools a caller sees (`selection`), *whose*
//! credentials a call uses (`upstreams`) and how an outcome is framed for the protocol; what a
//! tool does lives in [`crate::tools`], and what it costs lives in [`datadog_llmobs`]. Whatever
//! must outlive a request (connections, limiters, caches) is inside the hubs that [`Upstreams`]
//! holds, never in the handler, because HTTP is served without sessions: each request gets its own
//! copy of the handler.
//!
//! Both eras of the protocol are served on the same endpoint and on stdio: the stateless revision
//! 2026-07-28 and the older ones that begin with `initialize`.

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

pub use credentials::{CredentialSource, FixedCredential, NotReady};
pub use dispatch::{CALL_DEADLINE, Outcome};
pub use handler::definitions;
pub use http::{HttpError, router, serve_http};
use llmobs_authz::Admitted;
pub use llmobs_core::analysis::candidates::closest;
pub use resources::{TOOLSETS_URI, WHOAMI_URI};
pub use scope::Scope;
pub use selection::{Catalogue, Entry, Hidden, Selection, Wish};
pub use stdio::{StdioError, serve_stdio, serve_streams};
pub use upstreams::{Described, LocalReason, Upstreams};

/// The version that every front of the server reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The MCP server: cheap to copy, so that each HTTP request may own one.
#[derive(Clone)]
pub struct McpServer {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Upstreams,
    /// What the whole process was asked to serve; a request can only tighten it.
    process: Wish,
    catalogue: Catalogue,
}

impl McpServer {
    /// A server over these upstreams. `process` is what the command line, the environment and the
    /// config file ask of the whole process; the default serves the default toolset.
    pub fn new(upstreams: Upstreams, process: Wish) -> Self {
        let server = Self {
            inner: Arc::new(Inner {
                upstreams,
                process,
                catalogue: Catalogue::of_tools(),
            }),
        };
        for warning in &server.select(&Wish::default()).warnings {
            tracing::warn!("{warning}");
        }
        server
    }

    /// The tools served to a request that asks for `request`.
    pub fn select(&self, request: &Wish) -> Selection {
        self.inner.catalogue.select(&self.inner.process, request)
    }

    /// The scope of a caller that asks for nothing of its own: stdio and the shell.
    pub fn plain_scope(&self) -> Scope {
        Scope {
            selection: self.select(&Wish::default()),
            caller: Admitted::Own,
        }
    }

    /// The upstreams behind the tools.
    pub fn upstreams(&self) -> &Upstreams {
        &self.inner.upstreams
    }
}
