//! The data directory: the platform's, a given one, or a temporary one.

use std::io;
use std::path::{Path, PathBuf};

use etcetera::base_strategy::BaseStrategy as _;

use super::error::LocalError;
use super::store::FILE_NAME;

/// Where a backend stores its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// A directory. It is created if it does not exist.
    Path(PathBuf),
    /// A new directory that is removed with the last clone of the backend.
    Temporary,
}

impl DataDir {
    /// The platform's directory for the data of this program.
    ///
    /// # Errors
    ///
    /// [`LocalError::NoDefaultDirectory`] when the user has no home directory.
    pub fn platform_default() -> Result<Self, LocalError> {
        etcetera::base_strategy::choose_native_strategy()
            .map(|strategy| DataDir::Path(strategy.data_dir().join("llmobs-mcp")))
            .map_err(|error| LocalError::NoDefaultDirectory {
                reason: error.to_string(),
            })
    }
}

/// Whether a directory contains the data of a backend.
pub fn has_store(directory: &Path) -> bool {
    directory.join(FILE_NAME).is_file()
}

/// A data directory in use.
pub(super) struct DataDirectory {
    path: PathBuf,
    temporary: bool,
}

impl DataDirectory {
    pub(super) fn open(data_dir: &DataDir) -> Result<Self, LocalError> {
        let (path, temporary) = match data_dir {
            DataDir::Path(path) => (path.clone(), false),
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

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::debug!(%error, "a temporary data directory could not be removed");
        }
    }
}

/// Creates the directory, accessible by its owner only: it contains prompts.
pub(super) fn create(path: &Path) -> Result<(), LocalError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|source| directory_error(path, source))
}

pub(super) fn directory_error(path: &Path, source: io::Error) -> LocalError {
    LocalError::DataDirectory {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_a_temporary_directory_on_drop() {
        let directory = DataDirectory::open(&DataDir::Temporary).unwrap();
        let path = directory.path().to_owned();
        assert!(path.is_dir());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn names_the_flag_when_a_directory_cannot_be_created() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inside = DataDir::Path(file.path().join("x"));
        let error = DataDirectory::open(&inside).err().unwrap();
        assert!(error.to_string().contains("--data-dir"));
    }
}
