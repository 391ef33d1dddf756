//! Authorization for an MCP endpoint over HTTP: whether a caller may call, and with which Datadog
//! credential.
//!
//! A [`Gate`] checks every request before the protocol sees it; each [`AuthMode`] has one gate. A gate
//! removes all credentials from the request headers, whatever it decides, so that later code cannot
//! use, log or forward them. The [`HostGuard`] refuses requests that browsers send on behalf of other
//! sites. This crate does not depend on tools or on the choice of upstreams.
//!
//! Feature `oauth` adds module `oauth`, an OAuth 2.1 authorization server.

mod datadog_headers;
mod gate;
mod headers;
pub mod host_guard;
pub mod html;
mod loopback;
mod mode;
#[cfg(feature = "oauth")]
pub mod oauth;
mod open;
mod peer;
mod public_url;
mod refusal;
mod static_bearer;

pub use datadog_headers::DatadogHeadersGate;
pub use gate::{CallerCredential, Gate, MCP_PATHS, SignedInUser};
pub use headers::HeaderCredentials;
pub use host_guard::HostGuard;
pub use mode::{AuthMode, UnknownAuthMode};
pub use open::OpenGate;
pub use public_url::{PublicUrl, PublicUrlError};
pub use refusal::refusal;
pub use static_bearer::{BearerSecretError, MIN_SECRET_CHARS, StaticBearerGate};
