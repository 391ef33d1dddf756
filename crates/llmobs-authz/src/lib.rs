//! Who may call the MCP endpoint over HTTP, and with whose Datadog credential.
//!
//! One question, asked of a [`Gate`] for every request before the protocol sees it; one gate per
//! [`Mode`]. Whatever a gate decides, it takes every credential out of the request's headers, so
//! that nothing behind it can use, log or pass on what a caller sent. Which upstream then answers is
//! the server's to know: this room knows neither tools nor upstreams.

mod datadog_headers;
mod gate;
mod headers;
pub mod html;
mod mode;
#[cfg(feature = "oauth")]
pub mod oauth;
mod open;
mod public_url;
mod refusal;
mod static_bearer;

pub use datadog_headers::DatadogHeaders;
pub use gate::{Admitted, Gate, MCP_PATHS, SignedIn};
pub use headers::HeaderCredentials;
pub use mode::{Mode, UnknownMode};
pub use open::Open;
pub use public_url::{PublicUrl, PublicUrlError};
pub use refusal::refusal;
pub use static_bearer::{MIN_SECRET_CHARS, StaticBearer, WeakSecret};
