//! `local export`: spans and evaluations as lines, to a file or to standard output.
//!
//! Beside the file stands how far it is until it is whole, so that the same command goes on after a
//! break. A page of lines is one member of a gzip file: a file that was cut behind a page is a
//! valid one.

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

use super::store::{Needs, Store, progress};

/// How far an export is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    store_id: String,
    /// Length of the file up to here, in bytes.
    length: u64,
    /// Where to go on; `None` at the beginning.
    next: Option<Value>,
    spans: u64,
    evaluations: u64,
}

/// Where the lines go.
enum Target {
    Stdout,
    File {
        file: File,
        compressed: bool,
        /// Where it is noted how far the file is.
        note: PathBuf,
    },
}

pub(super) async fn run(settings: &Settings, args: &ExportArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, Needs::Data).await?;
    let written = export(&store, &args.file).await;
    store.close().await;
    let Some(done) = written? else {
        return Ok(ExitCode::SUCCESS);
    };
    let to_stdout = args.file.as_os_str() == "-";
    let told = if args.json {
        json!({"spans": done.spans, "evaluations": done.evaluations}).to_string()
    } else {
        format!(
            "Exported {} spans and {} evaluations.",
            done.spans, done.evaluations
        )
    };
    // Standard output is for the lines.
    if to_stdout {
        output::print_note(&told);
    } else {
        output::print(&told)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` when the reader of standard output had enough.
async fn export(store: &Store, path: &Path) -> Result<Option<Progress>, CliError> {
    let (mut target, mut done) = open(path, &store.id)?;
    if done.next.is_some() {
        let lines = done.spans + done.evaluations;
        output::print_note(&format!("Going on behind line {lines}."));
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
        format!("{} cannot be written: {error}", path.display()),
        "make room or name another file; the same command goes on where it was",
    )
}

fn open(path: &Path, store_id: &str) -> Result<(Target, Progress), CliError> {
    let new = Progress {
        store_id: store_id.to_owned(),
        ..Progress::default()
    };
    if path.as_os_str() == "-" {
        return Ok((Target::Stdout, new));
    }
    let note = beside(path);
    let noted: Option<Progress> = std::fs::read(&note)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let (mut file, done) = match noted {
        Some(noted) if noted.store_id == store_id => {
            let file = OpenOptions::new().write(true).open(path);
            (file.map_err(|error| unwritable(path, &error))?, noted)
        }
        Some(_) => {
            return Err(CliError::failed(
                format!("{} was begun from another store", path.display()),
                format!("delete it and {}, or name another file", note.display()),
            ));
        }
        None => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => CliError::failed(
                    format!("{} is there already", path.display()),
                    "name another file, or delete that one",
                ),
                _ => unwritable(path, &error),
            })?;
            (file, new)
        }
    };
    // What stands behind was written and not noted.
    file.set_len(done.length)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(|error| unwritable(path, &error))?;
    let compressed = path.extension().is_some_and(|end| end == "gz");
    let target = Target::File {
        file,
        compressed,
        note,
    };
    Ok((target, done))
}

/// The file that notes how far another is.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".resume");
    PathBuf::from(name)
}

impl Target {
    /// Writes a page, and notes how far it is.
    fn write(&mut self, lines: &[u8], done: &mut Progress) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File {
                file,
                compressed,
                note,
            } => {
                if *compressed {
                    let mut encoder = GzEncoder::new(&mut *file, Compression::default());
                    encoder.write_all(lines)?;
                    encoder.finish()?;
                } else {
                    file.write_all(lines)?;
                }
                // The note must not know of more than the file holds.
                file.sync_data()?;
                done.length = file.stream_position()?;
                let aside = note.with_extension("resume.new");
                std::fs::write(&aside, serde_json::to_vec(done)?)?;
                std::fs::rename(&aside, note)
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File { note, .. } => std::fs::remove_file(note),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_file_that_was_broken_off_goes_on_behind_the_last_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.ndjson.gz");
        let (mut target, mut done) = open(&path, "s").expect("new");
        done.next = Some(json!({"spans": 1}));
        target.write(b"{\"a\":1}\n", &mut done).expect("written");
        // The process dies while it writes the second page.
        if let Target::File { file, .. } = &mut target {
            file.write_all(b"half a page").expect("written");
        }
        drop(target);

        let (mut target, mut again) = open(&path, "s").expect("goes on");
        assert_eq!(again, done);
        again.next = None;
        target.write(b"{\"a\":2}\n", &mut again).expect("written");
        target.finish().expect("done");
        let file = File::open(&path).expect("there");
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file)
            .read_to_string(&mut text)
            .expect("valid gzip");
        assert_eq!(text, "{\"a\":1}\n{\"a\":2}\n");
        assert!(!beside(&path).exists());
        let refused = open(&path, "s").err().expect("not overwritten");
        assert!(refused.to_string().contains("is there already"));
    }

    #[test]
    fn an_export_of_another_store_is_not_gone_on_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.ndjson");
        let (mut target, mut done) = open(&path, "one").expect("new");
        target.write(b"{}\n", &mut done).expect("written");
        let refused = open(&path, "two").err().expect("refused");
        assert!(refused.to_string().contains("another store"));
    }
}
