//! `local import`: reads exported lines into the store.
//!
//! An imported span or evaluation replaces the one with the same id, so importing a line twice is
//! harmless. The same command resumes an interrupted import after the last acknowledged lines.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::json;

use crate::cli::args::ImportArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;

use super::source::{ImportProgress, Line, Lines, ProgressFile};
use super::store::{Store, StoreRequirement, progress};

/// The most bytes and the most lines of one request.
const MAX_CHUNK_BYTES: usize = 1 << 20;
const MAX_CHUNK_LINES: usize = 1_000;

/// The most malformed lines that are reported; further ones are only counted.
const MAX_REPORTED_LINES: u64 = 100;

/// The answer of the store to a chunk.
#[derive(Deserialize)]
struct ChunkResult {
    spans: u64,
    evaluations: u64,
    refused: Vec<MalformedLine>,
}

#[derive(Deserialize)]
struct MalformedLine {
    /// Line number within the chunk, from 1.
    line: u64,
    reason: String,
}

pub(super) async fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, StoreRequirement::MayBeNew).await?;
    let mut total = ImportProgress::default();
    let mut outcome = Ok(());
    for source in &args.files {
        match import(&store, source, &settings.local.data_dir).await {
            Ok(done) => {
                total.lines += done.lines;
                total.spans += done.spans;
                total.evaluations += done.evaluations;
                total.refused += done.refused;
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    store.close().await;
    outcome?;
    let refused = total.refused;
    output::print(&if args.json {
        json!({"lines": total.lines, "spans": total.spans, "evaluations": total.evaluations,
            "refused_lines": refused})
        .to_string()
    } else {
        let (spans, evaluations) = (total.spans, total.evaluations);
        format!("Imported {spans} spans and {evaluations} evaluations.")
    })?;
    if refused > 0 {
        return Err(CliError::failed(
            format!("{refused} lines are malformed; the others were imported"),
            "fix those lines and import the file again; lines that are already imported do not change",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(store: &Store, source: &Path, data_dir: &Path) -> Result<ImportProgress, CliError> {
    let unreadable = |error: io::Error| {
        CliError::failed(
            format!("cannot read {}: {error}", source.display()),
            "name a file written by `llmobs-mcp local export`, or - for standard input",
        )
    };
    let progress_file = ProgressFile::for_source(source, data_dir).map_err(unreadable)?;
    let bar = progress("bytes read", 0);
    let mut lines = Lines::open(source, &bar).map_err(unreadable)?;
    let mut import = FileImport {
        store,
        bar: &bar,
        progress_file: progress_file.as_ref(),
        done: ImportProgress::default(),
        name: source.display().to_string(),
    };
    if let Some(done) = progress_file.as_ref().and_then(ProgressFile::read) {
        lines.skip(done.bytes).map_err(unreadable)?;
        let line = done.lines;
        output::print_note(&format!("{}: resuming after line {line}.", import.name));
        import.done = done;
    }
    import.run(&mut lines).await?;
    bar.finish_and_clear();
    if let Some(progress_file) = &progress_file {
        progress_file.remove();
    }
    Ok(import.done)
}

/// The import of one file.
struct FileImport<'a> {
    store: &'a Store,
    bar: &'a ProgressBar,
    progress_file: Option<&'a ProgressFile>,
    done: ImportProgress,
    name: String,
}

impl FileImport<'_> {
    async fn run(&mut self, lines: &mut Lines) -> Result<(), CliError> {
        let mut chunk = Vec::new();
        let mut count = 0;
        loop {
            let next = lines.next();
            let number = self.done.lines + count as u64 + 1;
            match next {
                Ok(None) => return self.send(chunk, count, lines.bytes).await,
                Ok(Some(Line::Text(text))) => chunk.extend(text),
                Ok(Some(Line::TooLong)) => self.report(number, "the line is too long for a span"),
                Err(error) => {
                    self.send(chunk, count, lines.bytes).await?;
                    let why = format!("cannot read the rest of the file ({error})");
                    self.report(number, &why);
                    return Ok(());
                }
            }
            // The chunk keeps an empty line for a skipped one, so that line numbers match.
            chunk.push(b'\n');
            count += 1;
            if chunk.len() >= MAX_CHUNK_BYTES || count >= MAX_CHUNK_LINES {
                self.send(std::mem::take(&mut chunk), count, lines.bytes)
                    .await?;
                count = 0;
            }
        }
    }

    /// Sends lines, reports the malformed ones and records the progress.
    async fn send(&mut self, chunk: Vec<u8>, count: usize, bytes: u64) -> Result<(), CliError> {
        if count == 0 {
            return Ok(());
        }
        let answer = self.store.post("import", Bytes::from(chunk)).await?;
        let result: ChunkResult = serde_json::from_slice(answer.body())
            .map_err(|error| CliError::failed(error, "this is a bug: please report it"))?;
        for malformed in result.refused {
            self.report(self.done.lines + malformed.line, &malformed.reason);
        }
        self.done.spans += result.spans;
        self.done.evaluations += result.evaluations;
        self.done.lines += count as u64;
        self.done.bytes = bytes;
        if let Some(progress_file) = self.progress_file
            && let Err(error) = progress_file.write(&self.done)
        {
            tracing::warn!("cannot record the progress of the import: {error}");
        }
        Ok(())
    }

    /// Reports a malformed line.
    fn report(&mut self, line: u64, reason: &str) {
        self.done.refused += 1;
        if self.done.refused <= MAX_REPORTED_LINES {
            let name = &self.name;
            self.bar
                .suspend(|| output::print_note(&format!("{name}: line {line}: {reason}")));
        }
    }
}
