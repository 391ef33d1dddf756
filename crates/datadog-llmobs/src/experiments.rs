//! Experiments: lists, events and changes.
//!
//! Events are read page by page from the documented v3 endpoint, assembled into
//! [`ExperimentData`](llmobs_core::analysis::experiment::ExperimentData) and cached, so that the
//! summary, the metric values and a comparison of one experiment need one load. An experiment is loaded
//! again after `experiment_life`, and our own writes remove it from the cache.

mod events;
mod list;
mod pages;
mod wire;
mod write;

use http::Method;

use super::call::{JSON_API, Operation};
use super::retry::OperationClass;

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

/// Idempotent, because each field is sent with its complete new value.
static UPDATE: Operation = Operation {
    name: "update of an experiment",
    class: OperationClass::Idempotent,
    method: Method::PATCH,
    route: "/api/v2/llm-obs/v1/experiments/{experiment_id}",
    media: JSON_API,
};

/// Not idempotent, because events are appended.
static PUSH: Operation = Operation {
    name: "submission of experiment events",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/api/v2/llm-obs/v1/experiments/{experiment_id}/events",
    media: JSON_API,
};
