//! The `llmobs-mcp` command. All of it is in the library, so that tests reach it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Taking spans in and indexing them is many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    llmobs_mcp::cli::run()
}
