//! `llmobs-mcp`: Datadog's `llmobs` toolset for any MCP client, over a Datadog site or over an
//! embedded backend that needs no account.
//!
//! The modules of this crate, from the bottom up; a module imports only from those above it in
//! this list:
//!
//! 1. [`render`]: answers within a token budget, untrusted text, links.
//! 2. [`tools`]: the toolset, one file per tool.
//! 3. [`server`]: the MCP server: handler, stdio, Streamable HTTP.
//! 4. [`cli`]: the commands.
//!
//! The root crate builds on `llmobs-core` (types, query language, analysis), `datadog-llmobs` (the
//! typed API client), `llmobs-authz` (who may call over HTTP) and `llmobs-local` (the backend that
//! speaks Datadog's HTTP API on this machine). `ARCHITECTURE.md` describes all of them.

pub mod cli;
mod clock;
pub mod render;
pub mod server;
pub mod tools;
