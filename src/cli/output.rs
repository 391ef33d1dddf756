//! Results on standard output, notes and errors on standard error.
//!
//! `println!` panics when the reader of a pipe closes it; a command that is piped into `head` must
//! end without an error.

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
            format!("cannot write to standard output: {error}"),
            "check the disk or the program that reads the output",
        )),
        _ => Ok(()),
    }
}

/// Writes a human-readable line to standard error.
pub(crate) fn print_note(text: &str) {
    // A closed standard error must not stop the command.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The name or path that this program was started by, so that printed commands work even if it is not
/// on the `PATH`.
#[cfg(feature = "local")]
pub(crate) fn program() -> String {
    let name = std::env::args().next().unwrap_or_default();
    match name {
        empty if empty.is_empty() => "llmobs-mcp".to_owned(),
        spaced if spaced.contains(' ') => format!("\"{spaced}\""),
        name => name,
    }
}

/// Prints an error with its hint, and returns its exit code.
pub(crate) fn report(error: &CliError) -> ExitCode {
    print_note(&format!("error: {error}"));
    if let Some(hint) = error.hint() {
        print_note(&format!("  {hint}"));
    }
    ExitCode::from(error.code())
}
