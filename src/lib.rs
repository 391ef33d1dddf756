//! `llmobs-mcp`: Datadog's `llmobs` toolset for any MCP client, over a Datadog site or over an
//! embedded backend that needs no account.
//!
//! The rooms, from the ground up; a module imports only from those above it in this list:
//!
//! 1. [`model`]: spans, evaluations, ids, time windows. No wire forms.
//! 2. [`query`]: the span query language and the time grammar.
//! 3. [`analysis`]: pure functions over spans: tree, errors, agent loop, content.
//! 4. `html`: escaping, and the headers of pages that a browser is shown.
//! 5. [`datadog`]: the typed API client.
//! 6. [`local`]: the backend that speaks Datadog's HTTP API on this machine.
//! 7. [`render`]: answers within a token budget, untrusted text, links.
//! 8. [`authz`]: who may call the MCP endpoint over HTTP, and with whose credential.
//! 9. [`tools`]: the toolset, one file per family.
//! 10. [`server`]: the MCP front: handler, stdio, Streamable HTTP.
//! 11. [`cli`]: the commands.
//!
//! `ARCHITECTURE.md` says why the walls stand where they do.

pub mod analysis;
pub mod authz;
pub mod cli;
pub mod datadog;
mod html;
pub mod local;
pub mod model;
pub mod query;
pub mod render;
pub mod server;
pub mod tools;
