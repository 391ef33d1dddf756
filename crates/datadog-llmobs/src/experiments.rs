//! Experiments: their list, their events, and changes to them.
//!
//! Events are read from the documented v3 endpoint, page by page, made into
//! [`ExperimentData`] once, and kept: the summary, the values of ten metrics and a comparison of
//! the same experiment cost one load. What can still change is read again after
//! `experiment_life`, and our own writes forget the experiment at once.

mod events;
mod list;
mod pages;
pub(super) mod wire;
mod write;

use http::Method;

use super::call::{JSON_API, Operation};
use super::retry::OperationClass;
use llmobs_core::analysis::experiment::ExperimentData;
use llmobs_core::model::Experiment;

pub use list::{ExperimentFilter, ListPage};
pub(super) use list::{PageQuery, read_list};
pub use write::{ExperimentChange, NewExperiment};

pub(super) static LIST: Operation = Operation {
    name: "experiment list",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v1/experiments",
    media: JSON_API,
};

pub(super) static EVENTS: Operation = Operation {
    name: "experiment events",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v3/experiments/{experiment_id}/events",
    media: JSON_API,
};

static CREATE: Operation = Operation {
    name: "creation of an experiment",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/experiments",
    media: JSON_API,
};

/// Every field is sent with its whole new value, so twice is once.
static UPDATE: Operation = Operation {
    name: "update of an experiment",
    class: OperationClass::Idempotent,
    method: Method::PATCH,
    route: "/api/v2/llm-obs/v1/experiments/{experiment_id}",
    media: JSON_API,
};

/// Events are appended: twice is two of each.
static PUSH: Operation = Operation {
    name: "submission of experiment events",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/experiments/{experiment_id}/events",
    media: JSON_API,
};

/// An experiment with all its events.
#[derive(Debug)]
pub struct LoadedExperiment {
    /// What the list says of it; `None` when the list could not be read, or does not have it.
    pub experiment: Option<Experiment>,
    /// Its events and summary metrics.
    pub data: ExperimentData,
    /// What the reader should know: that events are missing, and why.
    pub notes: Vec<String>,
    /// Size of the answers it came in.
    bytes: usize,
}
