//! `local export`: writes spans and evaluations as lines to a file or to standard output.
//!
//! A second file beside the export records the progress until the export is complete, so that the
//! same command resumes an interrupted export. Each page of lines is one member of the gzip file, so
//! a file that ends after a page is valid.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::args::ExportArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;

use super::store::{Store, StoreRequirement, progress};

/// The progress of an export.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct ExportProgress {
    store_id: String,
    /// Length of the complete pages in the file, in bytes.
    length: u64,
    /// The position of the next page in the store; `None` at the start.
    next: Option<Value>,
    spans: u64,
    evaluations: u64,
}

/// The destination of the lines.
enum ExportTarget {
    Stdout,
    File {
        file: File,
        compressed: bool,
        /// The file that records the progress.
        progress_file: PathBuf,
    },
}

pub(super) async fn run(settings: &Settings, args: &ExportArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, StoreRequirement::Existing).await?;
    let exported = export(&store, &args.file).await;
    store.close().await;
    let Some(done) = exported? else {
        return Ok(ExitCode::SUCCESS);
    };
    let to_stdout = args.file.as_os_str() == "-";
    let summary = if args.json {
        json!({"spans": done.spans, "evaluations": done.evaluations}).to_string()
    } else {
        format!(
            "Exported {} spans and {} evaluations.",
            done.spans, done.evaluations
        )
    };
    // Standard output holds the lines.
    if to_stdout {
        output::print_note(&summary);
    } else {
        output::print(&summary)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Exports all lines. Returns `None` if the reader of standard output closes it.
async fn export(store: &Store, path: &Path) -> Result<Option<ExportProgress>, CliError> {
    let (mut target, mut done) = open(path, &store.id)?;
    if done.next.is_some() {
        let lines = done.spans + done.evaluations;
        output::print_note(&format!("Resuming after line {lines}."));
    }
    let stats: Value = store.ask("stats", json!({})).await?;
    let count = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let bar = progress("exported", count("/spans") + count("/evaluations"));
    loop {
        let page = store.ask_raw("export", json!({"after": done.next})).await?;
        let header = |name: &str| page.headers().get(name)?.to_str().ok();
        let lines: u64 = header("x-llmobs-mcp-lines")
            .and_then(|lines| lines.parse().ok())
            .unwrap_or(0);
        match done.next.as_ref().and_then(|next| next.get("evaluations")) {
            Some(_) => done.evaluations += lines,
            None => done.spans += lines,
        }
        done.next = header("x-llmobs-mcp-next").and_then(|next| serde_json::from_str(next).ok());
        match target.write(page.body(), &mut done) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            Err(error) => return Err(unwritable(path, &error)),
            Ok(()) => {}
        }
        bar.set_position(done.spans + done.evaluations);
        if done.next.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    target.finish().map_err(|error| unwritable(path, &error))?;
    Ok(Some(done))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(
        format!("cannot write {}: {error}", path.display()),
        "free disk space or name another file; the same command resumes the export",
    )
}

fn open(path: &Path, store_id: &str) -> Result<(ExportTarget, ExportProgress), CliError> {
    let new = ExportProgress {
        store_id: store_id.to_owned(),
        ..ExportProgress::default()
    };
    if path.as_os_str() == "-" {
        return Ok((ExportTarget::Stdout, new));
    }
    let progress_file = progress_path(path);
    let recorded: Option<ExportProgress> = std::fs::read(&progress_file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let (mut file, done) = match recorded {
        Some(recorded) if recorded.store_id == store_id => {
            let file = OpenOptions::new().write(true).open(path);
            (file.map_err(|error| unwritable(path, &error))?, recorded)
        }
        Some(_) => {
            return Err(CliError::failed(
                format!(
                    "{} is an unfinished export of another store",
                    path.display()
                ),
                format!(
                    "delete it and {}, or name another file",
                    progress_file.display()
                ),
            ));
        }
        None => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => CliError::failed(
                    format!("{} already exists", path.display()),
                    "name another file, or delete this one",
                ),
                _ => unwritable(path, &error),
            })?;
            (file, new)
        }
    };
    // Bytes after the recorded length belong to an unfinished page.
    file.set_len(done.length)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(|error| unwritable(path, &error))?;
    let compressed = path.extension().is_some_and(|end| end == "gz");
    let target = ExportTarget::File {
        file,
        compressed,
        progress_file,
    };
    Ok((target, done))
}

/// The file that records the progress of an export.
fn progress_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".resume");
    PathBuf::from(name)
}

impl ExportTarget {
    /// Writes a page and records the progress.
    fn write(&mut self, lines: &[u8], done: &mut ExportProgress) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File {
                file,
                compressed,
                progress_file,
            } => {
                if *compressed {
                    let mut encoder = GzEncoder::new(&mut *file, Compression::default());
                    encoder.write_all(lines)?;
                    encoder.finish()?;
                } else {
                    file.write_all(lines)?;
                }
                // The record must not exceed the durable content of the file.
                file.sync_data()?;
                done.length = file.stream_position()?;
                let temporary = progress_file.with_extension("resume.new");
                std::fs::write(&temporary, serde_json::to_vec(done)?)?;
                std::fs::rename(&temporary, progress_file)
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File { progress_file, .. } => std::fs::remove_file(progress_file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn resumes_interrupted_export_after_last_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out.ndjson.gz");
        let (mut target, mut done) = open(&path, "s").expect("new");
        done.next = Some(json!({"spans": 1}));
        target.write(b"{\"a\":1}\n", &mut done).expect("written");
        // The process ends while it writes the second page.
        if let ExportTarget::File { file, .. } = &mut target {
            file.write_all(b"half a page").expect("written");
        }
        drop(target);

        let (mut target, mut again) = open(&path, "s").expect("resumes");
        assert_eq!(again, done);
        again.next = None;
        target.write(b"{\"a\":2}\n", &mut again).expect("written");
        target.finish().expect("done");
        let file = File::open(&path).expect("exists");
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file)
            .read_to_string(&mut text)
            .expect("valid gzip");
        assert_eq!(text, "{\"a\":1}\n{\"a\":2}\n");
        assert!(!progress_path(&path).exists());
        let refused = open(&path, "s").err().expect("not overwritten");
        assert!(refused.to_string().contains("already exists"));
    }

    #[test]
    fn refuses_to_resume_export_of_another_store() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out.ndjson");
        let (mut target, mut done) = open(&path, "one").expect("new");
        target.write(b"{}\n", &mut done).expect("written");
        let refused = open(&path, "two").err().expect("refused");
        assert!(refused.to_string().contains("another store"));
    }
}
