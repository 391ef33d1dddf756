//! Writing to standard output and complaining on standard error.
//!
//! `println!` panics when the reader of a pipe has gone away; a command that is piped into `head`
//! must simply end.

use std::io::{self, Write};
use std::process::ExitCode;

use super::error::CliError;

/// Writes a text and a line break to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed(
            format!("standard output cannot be written: {error}"),
            "check the disk or the program that reads the output",
        )),
        _ => Ok(()),
    }
}

/// Writes a line for a person to standard error.
pub(crate) fn tell(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// How this program was called, so that printed lines work where it is not installed.
pub(crate) fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    match called {
        empty if empty.is_empty() => "llmobs-mcp".to_owned(),
        spaced if spaced.contains(' ') => format!("\"{spaced}\""),
        called => called,
    }
}

/// Says what went wrong and gives the exit code for it.
pub(crate) fn complain(error: &CliError) -> ExitCode {
    tell(&format!("error: {error}"));
    if let Some(mend) = error.mend() {
        tell(&format!("  {mend}"));
    }
    ExitCode::from(error.code())
}
