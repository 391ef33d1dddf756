//! Where the data lives: the platform's data folder, one that was named, or one that goes with
//! the process.

use std::path::{Path, PathBuf};

use etcetera::base_strategy::BaseStrategy as _;

use super::LocalError;
use super::store::StoreError;

/// Where a backend keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// A folder, made if it is not there.
    Folder(PathBuf),
    /// A new folder, removed with the last clone of the backend.
    Temporary,
}

impl DataDir {
    /// The platform's folder for this program's data.
    pub fn platform_default() -> Result<Self, LocalError> {
        etcetera::base_strategy::choose_native_strategy()
            .map(|strategy| DataDir::Folder(strategy.data_dir().join("llmobs-mcp")))
            .map_err(|error| folder_error(&error))
    }
}

/// Whether a folder holds the data of a backend.
pub fn has_store(folder: &Path) -> bool {
    folder.join(super::store::FILE_NAME).is_file()
}

/// A data folder in use.
pub(super) struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    pub(super) fn open(data_dir: &DataDir) -> Result<Self, LocalError> {
        let (path, temporary) = match data_dir {
            DataDir::Folder(path) => (path.clone(), false),
            DataDir::Temporary => {
                let name = format!("llmobs-mcp-{}", uuid::Uuid::new_v4());
                (std::env::temp_dir().join(name), true)
            }
        };
        create(&path)?;
        Ok(Self { path, temporary })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::debug!(%error, "a temporary data folder could not be removed");
        }
    }
}

/// Makes the folder readable by its owner alone: it holds prompts.
pub(super) fn create(path: &Path) -> Result<(), LocalError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| folder_error(&error))
}

fn folder_error(error: &dyn std::fmt::Display) -> LocalError {
    LocalError::Store(StoreError::Folder(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_its_user() {
        let folder = Folder::open(&DataDir::Temporary).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_clear_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inside = DataDir::Folder(file.path().join("x"));
        let error = Folder::open(&inside).err().unwrap();
        assert!(error.to_string().contains("--data-dir"));
    }
}
