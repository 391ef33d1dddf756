//! A small secret file: read only if nobody else can have written or read it, written whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use super::LoginStoreError;

/// No file of logins is larger.
const MOST_BYTES: u64 = 1 << 20;
/// How often a file that others write at this moment is looked at.
const MOST_LOOKS: usize = 1_000;

fn failed(path: &Path, verb: &'static str, error: &std::io::Error) -> LoginStoreError {
    LoginStoreError::File {
        path: path.to_owned(),
        verb,
        why: error.to_string(),
    }
}

/// Makes the folder for its owner alone.
pub(super) fn create_folder(folder: &Path) -> Result<(), LoginStoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .map_err(|error| failed(folder, "written", &error))
}

/// Opens the lock file.
pub(super) fn open_lock(path: &Path) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The text of the file; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, LoginStoreError> {
    let unreadable = |error: &std::io::Error| failed(path, "read", error);
    let exposed = |why| LoginStoreError::Exposed {
        path: path.to_owned(),
        why,
    };
    for _ in 0..MOST_LOOKS {
        let seen = match std::fs::symlink_metadata(path) {
            Ok(seen) => seen,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&error)),
        };
        if !seen.is_file() {
            return Err(exposed("it is a link or something else that is no file"));
        }
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        if !is_the_same(&seen, &file).map_err(|error| unreadable(&error))? {
            // Another process wrote it meanwhile, so it is looked at as it is now.
            continue;
        }
        #[cfg(unix)]
        check(&file, path)?;
        let mut text = String::new();
        file.take(MOST_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(&error))?;
        return Ok(Some(text));
    }
    Err(exposed("it was replaced each time it was opened"))
}

/// Whether the file that was opened is the one that was looked at, as far as the system tells.
#[cfg(not(unix))]
fn is_the_same(_seen: &std::fs::Metadata, _file: &File) -> std::io::Result<bool> {
    Ok(true)
}

/// Whether the file that was opened is the one that was looked at.
#[cfg(unix)]
fn is_the_same(seen: &std::fs::Metadata, file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let opened = file.metadata()?;
    Ok((opened.dev(), opened.ino()) == (seen.dev(), seen.ino()))
}

/// Whether it is its owner's alone, in a folder that only the same owner writes to.
#[cfg(unix)]
fn check(file: &File, path: &Path) -> Result<(), LoginStoreError> {
    use std::os::unix::fs::MetadataExt;
    let exposed = |why| {
        Err(LoginStoreError::Exposed {
            path: path.to_owned(),
            why,
        })
    };
    let opened = file
        .metadata()
        .map_err(|error| failed(path, "read", &error))?;
    if opened.mode() & 0o077 != 0 {
        return exposed("other users can read or write it");
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder = std::fs::metadata(folder).map_err(|error| failed(path, "read", &error))?;
    if folder.mode() & 0o022 != 0 {
        return exposed("other users can write to its folder");
    }
    if folder.uid() != opened.uid() {
        return exposed("it belongs to another user than its folder");
    }
    Ok(())
}

/// Writes aside, to the disk, and renames. One at a time: whoever calls holds the lock, so what lies
/// aside before is what a process left that was killed, with secrets in it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), LoginStoreError> {
    let unwritable = |error: std::io::Error| failed(path, "written", &error);
    let aside = path.with_extension("json.new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritable(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&aside, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&aside);
        return Err(unwritable(error));
    }
    // The name is safe once the folder is.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(unwritable)?;
    }
    Ok(())
}
