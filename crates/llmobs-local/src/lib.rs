//! The local backend: Datadog's LLM Observability API on this machine, without an account.
//!
//! It ingests what SDKs send, stores it durably, and serves the documented API, so that one client
//! works with a Datadog site and with this backend. It does not depend on MCP.
//!
//! - `intake`: receives spans and evaluations, one file per dialect.
//! - `api`: serves reads and the control plane, one file per family.
//! - [`store`]: stores spans and evaluations. [`control`] stores everything else.
//! - [`owner`]: one process owns a data directory; others attach to it.
//! - `retention`: removes old data.
//! - [`demo`]: sample data.
//!
//! The backend listens on loopback only and refuses other `Host` and `Origin` headers: a web page
//! must neither read prompts nor insert text. Errors have Datadog's form.

mod agent;
mod api;
mod backend;
mod clock;
pub mod control;
mod cursor;
mod data_dir;
pub mod demo;
mod error;
mod guard;
mod http;
mod intake;
mod legacy_evaluators;
mod listener;
mod local_backend;
mod options;
pub mod owner;
mod proxy;
mod response;
mod retention;
mod retention_task;
mod span_store;
pub mod store;
mod values;

#[cfg(test)]
mod tests;

pub use backend::LocalInfo;
pub use data_dir::{DataDir, has_store};
pub use error::LocalError;
pub use http::BodyLimits;
pub use intake::IntakeLimits;
pub use listener::ConnectionLimits;
pub use local_backend::{LocalBackend, Stores, serve};
pub use options::LocalOptions;
pub use retention::Retention;
pub use retention_task::retain;

pub(crate) use backend::Backend;
pub(crate) use clock::now_ms;
pub(crate) use proxy::{PROXY_PREFIXES, route_with_prefixes};
