//! Replaces the local backend and its commands in a build without the feature `local`: each use is
//! an error that names the feature.

use crate::server::UpstreamInfo;
use datadog_llmobs::Hub;

use super::error::CliError;
use super::settings::LocalSettings;

fn missing_feature() -> CliError {
    CliError::usage(
        "this build of llmobs-mcp has no local backend: it was compiled without the feature `local`",
        "read a Datadog site: set DD_SITE, DD_API_KEY and DD_APPLICATION_KEY, or run `llmobs-mcp login`; \
         for local data, build with `cargo install llmobs-mcp --features local`",
    )
}

/// A local backend, which does not exist in this build.
pub(crate) enum Backend {}

impl Backend {
    /// Refuses.
    pub(crate) async fn open(_settings: &LocalSettings) -> Result<Self, CliError> {
        Err(missing_feature())
    }

    pub(crate) fn hub(&self) -> Hub {
        match *self {}
    }

    pub(crate) fn describe(&self) -> UpstreamInfo {
        match *self {}
    }

    pub(crate) async fn close(self) {
        match self {}
    }
}

/// The command `local`.
pub(crate) mod local {
    use std::process::ExitCode;

    use crate::cli::args::LocalArgs;
    use crate::cli::error::CliError;
    use crate::cli::settings::Settings;

    pub(crate) async fn run(_: &Settings, _: &LocalArgs) -> Result<ExitCode, CliError> {
        Err(super::missing_feature())
    }
}

/// The command `demo`.
pub(crate) mod demo {
    use std::process::ExitCode;

    use crate::cli::args::{DemoArgs, SharedFlags};
    use crate::cli::error::CliError;
    use crate::cli::settings::Settings;

    pub(crate) async fn run(
        _: &SharedFlags,
        _: &Settings,
        _: &DemoArgs,
    ) -> Result<ExitCode, CliError> {
        Err(super::missing_feature())
    }
}
