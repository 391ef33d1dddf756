//! A typed client of Datadog's LLM Observability API.
//!
//! Tools read data only through [`Client`], from a Datadog site or from the local backend. Both use the
//! same code path, so a tool that is tested against one works against the other. There are three
//! layers: [`Transport`] sends one request; the pipeline of [`Client::execute`] adds a deadline,
//! retries by [`OperationClass`], rate limits and typed errors; one file per API family builds calls
//! and converts responses to [`model`](llmobs_core::model) types.
//!
//! A [`Hub`] holds the state that calls share. Its caches are keyed by a fingerprint: a keyed hash of
//! credential and upstream.

mod cache;
mod call;
mod cause;
mod check;
mod client;
mod credential;
mod datasets;
mod deadline;
mod error;
mod evaluators;
mod experiments;
mod fields;
mod json;
mod limiter;
mod loaded;
pub mod login;
mod page_body;
mod pager;
mod probe;
mod retry;
mod settings;
mod site;
mod spans;
mod text;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use call::{ApiCall, ApiResponse, Operation};
pub use cause::ErrorCause;
pub use client::{Client, Hub, RenewCredential};
pub use credential::{Credential, CredentialError};
pub use datasets::{ListQuery, NewRecord, RecordFilter};
pub use deadline::Deadline;
pub use error::{Attempts, ClientError, ErrorResponse};
pub use evaluators::{EvaluatorList, EvaluatorSummary, EvaluatorWriteResult};
pub use experiments::{ExperimentChange, ExperimentFilter, ListPage, NewExperiment};
pub use loaded::{Gap, LoadedExperiment, LoadedTrace};
pub use probe::ProbeResult;
pub use retry::OperationClass;
pub use settings::HubSettings;
pub use site::{ApiUrlError, Site, SiteError, Upstream};
pub use spans::{SpanContents, SpanPage, SpanSearch, SpanSelection};
pub use tls::http_client;
pub use transport::{
    HttpTransport, HttpTransportError, HttpTransportOptions, ResponseLimits, RouterTransport,
    Transport, TransportError,
};
