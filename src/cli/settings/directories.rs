//! The directories of this program on the platform.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use super::error::SettingsError;

/// This program's subdirectory of a platform directory.
pub(super) fn default_dir(
    of: impl Fn(&dyn BaseStrategy) -> PathBuf,
) -> Result<PathBuf, SettingsError> {
    etcetera::choose_base_strategy()
        .map(|dirs| of(&dirs).join("llmobs-mcp"))
        .map_err(|_| SettingsError::NoHome)
}
