//! The `llmobs-mcp` command. The library holds all of its code, so that tests can use it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Ingesting and indexing spans makes many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    llmobs_mcp::cli::run()
}
