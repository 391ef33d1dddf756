//! A small file with secrets: it is ignored if other users can have read or replaced it, and it is
//! replaced atomically.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use super::super::super::cause::ErrorCause;
use super::super::store_error::LoginStoreError;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// How often to retry while other processes replace the file.
const MAX_OPEN_ATTEMPTS: usize = 1_000;

fn file_error(path: &Path, verb: &'static str, error: std::io::Error) -> LoginStoreError {
    LoginStoreError::File {
        path: path.to_owned(),
        verb,
        source: ErrorCause::new(error),
    }
}

/// Creates the directory, accessible by its owner only.
pub(super) fn create_directory(directory: &Path) -> Result<(), LoginStoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(|error| file_error(directory, "written", error))
}

/// Opens the lock file.
pub(super) fn open_lock(path: &Path) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The text of the file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, LoginStoreError> {
    let read_error = |error| file_error(path, "read", error);
    let exposed = |reason| LoginStoreError::Exposed {
        path: path.to_owned(),
        reason,
    };
    for _ in 0..MAX_OPEN_ATTEMPTS {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        if !metadata.is_file() {
            return Err(exposed("it is a link or another kind of special file"));
        }
        let file = File::open(path).map_err(read_error)?;
        if !is_same_file(&metadata, &file).map_err(read_error)? {
            // Another process replaced it in the meantime.
            continue;
        }
        #[cfg(unix)]
        check_permissions(&file, path)?;
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(read_error)?;
        return Ok(Some(text));
    }
    Err(exposed("it was replaced each time it was opened"))
}

/// Whether the opened file is the one that the metadata describe. Always true where the system
/// does not report it.
#[cfg(not(unix))]
fn is_same_file(_metadata: &std::fs::Metadata, _file: &File) -> std::io::Result<bool> {
    Ok(true)
}

/// Whether the opened file is the one that the metadata describe.
#[cfg(unix)]
fn is_same_file(metadata: &std::fs::Metadata, file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let opened = file.metadata()?;
    Ok((opened.dev(), opened.ino()) == (metadata.dev(), metadata.ino()))
}

/// Checks that only its owner can access the file, and only the same owner can write to its
/// directory.
#[cfg(unix)]
fn check_permissions(file: &File, path: &Path) -> Result<(), LoginStoreError> {
    use std::os::unix::fs::MetadataExt;
    let read_error = |error| file_error(path, "read", error);
    let exposed = |reason| {
        Err(LoginStoreError::Exposed {
            path: path.to_owned(),
            reason,
        })
    };
    let file = file.metadata().map_err(read_error)?;
    if file.mode() & 0o077 != 0 {
        return exposed("other users can read or write it");
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let directory = std::fs::metadata(directory).map_err(read_error)?;
    if directory.mode() & 0o022 != 0 {
        return exposed("other users can write to its directory");
    }
    if directory.uid() != file.uid() {
        return exposed("it belongs to another user than its directory");
    }
    Ok(())
}

/// Writes a temporary file, syncs it and renames it. The caller holds the lock, so an existing
/// temporary file is the rest of a killed process; it may hold secrets and is removed.
pub(super) fn write(path: &Path, text: &str) -> Result<(), LoginStoreError> {
    let write_error = |error| file_error(path, "written", error);
    let temporary = path.with_extension("json.new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(write_error(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(write_error(error));
    }
    // The rename is durable after the directory is synced.
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(write_error)?;
    }
    Ok(())
}
