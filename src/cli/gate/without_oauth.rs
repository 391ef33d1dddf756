//! Replaces mode `oauth` in a build without the feature of that name: its use is an error.

use std::sync::Arc;

use crate::cli::error::CliError;
use crate::cli::settings::{CallerSettings, Settings};
use crate::server::Upstreams;
use llmobs_authz::{Gate, PublicUrl};

fn missing_feature() -> CliError {
    CliError::usage(
        "this build of llmobs-mcp has no authorization server: it was compiled without the feature \
         `oauth`",
        "use --auth static-bearer or --auth datadog-headers, or build with `cargo install llmobs-mcp \
         --features oauth`",
    )
}

/// An authorization server, which does not exist in this build.
pub(super) enum SignInPlan {}

impl SignInPlan {
    /// Refuses.
    pub(super) fn new(
        _settings: &mut Settings,
        _callers: &CallerSettings,
        _public_url: Option<PublicUrl>,
    ) -> Result<Self, CliError> {
        Err(missing_feature())
    }

    pub(super) fn key_source(_callers: &CallerSettings) -> Result<String, CliError> {
        Err(missing_feature())
    }

    pub(super) fn open(self, _upstreams: &Upstreams) -> Result<Arc<dyn Gate>, CliError> {
        match self {}
    }
}
