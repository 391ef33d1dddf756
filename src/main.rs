//! The `llmobs-mcp` command. All of it is in the library, so that tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    llmobs_mcp::cli::run()
}
