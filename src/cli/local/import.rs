//! `local import`: lines back into the store.
//!
//! What a line says replaces what is kept under the same ids, so reading one twice is no harm: after
//! a break the same command goes on behind the last lines that surely arrived.

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

use super::source::{Imported, Line, Lines, Note};
use super::store::{Needs, Store, progress};

/// Bytes after which lines are sent, and lines.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_LINES: usize = 1_000;

/// Lines told that could not be taken in; further ones are counted.
const TOLD: u64 = 100;

/// What the store says about a chunk.
#[derive(Deserialize)]
struct Taken {
    spans: u64,
    evaluations: u64,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    /// Within the chunk, from 1.
    line: u64,
    reason: String,
}

pub(super) async fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, Needs::Nothing).await?;
    let mut all = Imported::default();
    let mut outcome = Ok(());
    for source in &args.files {
        match import(&store, source, &settings.local.data_dir).await {
            Ok(done) => {
                all.lines += done.lines;
                all.spans += done.spans;
                all.evaluations += done.evaluations;
                all.refused += done.refused;
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    store.close().await;
    outcome?;
    let refused = all.refused;
    output::print(&if args.json {
        json!({"lines": all.lines, "spans": all.spans, "evaluations": all.evaluations,
            "refused_lines": refused})
        .to_string()
    } else {
        let (spans, evaluations) = (all.spans, all.evaluations);
        format!("Imported {spans} spans and {evaluations} evaluations.")
    })?;
    if refused > 0 {
        return Err(CliError::failed(
            format!("{refused} lines could not be taken in; the others were"),
            "mend those lines and import the file again: what is there already stays as it is",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(store: &Store, source: &Path, data_dir: &Path) -> Result<Imported, CliError> {
    let unreadable = |error: io::Error| {
        CliError::failed(
            format!("{} cannot be read: {error}", source.display()),
            "name a file that `llmobs-mcp local export` wrote, or - for standard input",
        )
    };
    let note = Note::of(source, data_dir).map_err(unreadable)?;
    let bar = progress("bytes read", 0);
    let mut lines = Lines::open(source, &bar).map_err(unreadable)?;
    let mut importing = Importing {
        store,
        bar: &bar,
        note: note.as_ref(),
        done: Imported::default(),
        name: source.display().to_string(),
    };
    if let Some(before) = note.as_ref().and_then(Note::read) {
        lines.skip(before.bytes).map_err(unreadable)?;
        let line = before.lines;
        output::print_note(&format!("{}: going on behind line {line}.", importing.name));
        importing.done = before;
    }
    importing.all(&mut lines).await?;
    bar.finish_and_clear();
    if let Some(note) = &note {
        note.remove();
    }
    Ok(importing.done)
}

struct Importing<'a> {
    store: &'a Store,
    bar: &'a ProgressBar,
    note: Option<&'a Note>,
    done: Imported,
    name: String,
}

impl Importing<'_> {
    async fn all(&mut self, lines: &mut Lines) -> Result<(), CliError> {
        let mut chunk = Vec::new();
        let mut count = 0;
        loop {
            let next = lines.next();
            let number = self.done.lines + count as u64 + 1;
            match next {
                Ok(None) => return self.send(chunk, count, lines.bytes).await,
                Ok(Some(Line::Text(text))) => chunk.extend(text),
                Ok(Some(Line::TooLong)) => self.refuse(number, "it is far too long for a span"),
                Err(error) => {
                    self.send(chunk, count, lines.bytes).await?;
                    let why = format!("the file cannot be read on from here ({error})");
                    self.refuse(number, &why);
                    return Ok(());
                }
            }
            // Every line stands in the chunk, if only as an empty one: its place is its number.
            chunk.push(b'\n');
            count += 1;
            if chunk.len() >= CHUNK_BYTES || count >= CHUNK_LINES {
                self.send(std::mem::take(&mut chunk), count, lines.bytes)
                    .await?;
                count = 0;
            }
        }
    }

    /// Sends lines, tells what was refused, and notes how far it is.
    async fn send(&mut self, chunk: Vec<u8>, count: usize, bytes: u64) -> Result<(), CliError> {
        if count == 0 {
            return Ok(());
        }
        let answer = self.store.post("import", Bytes::from(chunk)).await?;
        let taken: Taken = serde_json::from_slice(answer.body())
            .map_err(|error| CliError::failed(error, "this is a bug: please report it"))?;
        for refused in taken.refused {
            self.refuse(self.done.lines + refused.line, &refused.reason);
        }
        self.done.spans += taken.spans;
        self.done.evaluations += taken.evaluations;
        self.done.lines += count as u64;
        self.done.bytes = bytes;
        if let Some(note) = self.note
            && let Err(error) = note.write(&self.done)
        {
            tracing::warn!("how far the import is cannot be noted: {error}");
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, reason: &str) {
        self.done.refused += 1;
        if self.done.refused <= TOLD {
            let name = &self.name;
            self.bar
                .suspend(|| output::print_note(&format!("{name}: line {line}: {reason}")));
        }
    }
}
