//! The state that all request handlers share.

use serde::Serialize;

use crate::control::Control;
use crate::data_dir::DataDirectory;
use crate::intake::{Admission, otlp::Ancestry};
use crate::options::LocalOptions;
use crate::span_store::SpanStore;

/// The state that all request handlers share.
pub(crate) struct Backend {
    // Dropped before the data directory.
    pub(crate) store: SpanStore,
    pub(crate) control: Control,
    pub(crate) store_id: String,
    pub(crate) options: LocalOptions,
    pub(crate) admission: Admission,
    pub(crate) ancestry: Ancestry,
    /// `None` when the stores were passed by the caller.
    pub(crate) data_directory: Option<DataDirectory>,
}

/// What `GET /info` returns under `llmobs_mcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalInfo {
    /// Version of this program.
    pub version: &'static str,
    /// Id of the store, assigned when it was created.
    pub store_id: String,
}

impl Backend {
    pub(crate) fn info(&self) -> LocalInfo {
        LocalInfo {
            version: env!("CARGO_PKG_VERSION"),
            store_id: self.store_id.clone(),
        }
    }
}
