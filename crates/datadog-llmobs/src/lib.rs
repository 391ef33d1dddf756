//! The typed client of Datadog's LLM Observability API.
//!
//! The tools reach data only through [`Client`], whether the other side is a Datadog site or the
//! backend of this machine: one code path, so that a tool proven against the one runs against the
//! other. Three layers: [`Transport`] sends one request; the pipeline of [`Client::execute`] gives
//! it a deadline, retries by [`OperationClass`], manners and typed errors; one file per API family
//! turns questions into calls and answers into [`model`](llmobs_core::model) types.
//!
//! A [`Hub`] outlives calls and holds what they share; whatever it keeps is keyed by a keyed hash
//! of credential and upstream.

mod cache;
mod call;
mod check;
mod client;
mod credential;
mod datasets;
mod deadline;
mod error;
mod evaluators;
mod experiments;
mod json;
mod limiter;
pub mod login;
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
pub use client::{Client, Hub, RenewCredential};
pub use credential::{Credential, CredentialError};
pub use datasets::{ListQuery, NewRecord, RecordFilter};
pub use deadline::Deadline;
pub use error::{ClientError, ErrorResponse};
pub use evaluators::{EvaluatorList, EvaluatorSummary, EvaluatorWriteResult};
pub use experiments::{
    ExperimentChange, ExperimentFilter, ListPage, LoadedExperiment, NewExperiment,
};
pub use probe::ProbeResult;
pub use retry::OperationClass;
pub use settings::HubSettings;
pub use site::{ApiUrlError, Site, SiteError, Upstream};
pub use spans::{Gap, LoadedTrace, SpanContents, SpanPage, SpanSearch, SpanSelection};
pub use tls::http_client;
pub use transport::{
    HttpTransport, HttpTransportError, HttpTransportOptions, ResponseLimits, RouterTransport,
    Transport, TransportError,
};
