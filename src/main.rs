//! The `llmobs-mcp` command.
fn main() {}
