//! `demo`: serves sample data over MCP and HTTP, and prints the commands that connect a client.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::clock::now_ms;
use crate::server::{McpServer, Upstreams, serve_http};
use llmobs_authz::OpenGate;
use llmobs_local::demo::{DemoSummary, load};
use llmobs_local::owner::Listen;
use llmobs_local::{DataDir, LocalOptions};

use super::args::{DemoArgs, SharedFlags};
use super::backend::Backend;
use super::bind::bind;
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::signals::stop_on_signal;

/// The server name that the official skills expect.
const CLIENT_NAME: &str = "datadog-llmo-mcp";

/// The ports for MCP if no flag names one.
const MCP_PORTS: std::ops::Range<u16> = 8787..8797;

pub(crate) async fn run(
    flags: &SharedFlags,
    settings: &Settings,
    args: &DemoArgs,
) -> Result<ExitCode, CliError> {
    if flags.api_url.is_some() || flags.site.as_deref().is_some_and(|site| site != "local") {
        return Err(CliError::usage(
            "the demo serves sample data, so --site and --api-url are not allowed",
            "to serve real data: llmobs-mcp serve --http 127.0.0.1:8787 --site datadoghq.eu",
        ));
    }
    let stop = stop_on_signal();
    let mcp = bind(args.http, MCP_PORTS).await?;
    let mcp_url = match mcp.local_addr() {
        Ok(address) => format!("http://{address}/mcp"),
        Err(error) => return Err(CliError::failed(error, "try again")),
    };
    // Only a directory that the flag names: the demo must not fill the shared store.
    let data_dir = match &flags.data_dir {
        Some(directory) => DataDir::Path(directory.clone()),
        None => DataDir::Temporary,
    };
    let options = LocalOptions::new(data_dir);
    let listen = args.listen.map_or(Listen::Default, Listen::Exactly);
    let shared = Backend::share(options, listen).await?;
    let Some(backend) = shared.owned() else {
        let url = shared.url();
        shared.close().await;
        return Err(CliError::failed(
            format!("the data directory is already served at {url}"),
            "name another one with --data-dir, or omit --data-dir for temporary data",
        ));
    };
    let now_ms = now_ms();
    let summary = tokio::task::spawn_blocking(move || load(&backend, now_ms))
        .await
        .map_or_else(
            // The message of a panic may quote data.
            |_| Err("loading the sample data failed".to_owned()),
            |summary| summary.map_err(|error| error.to_string()),
        )
        .map_err(|error| CliError::failed(error, "this is a bug: please report it"))?;
    let upstreams = Upstreams::local(shared.hub(), true, shared.describe());
    let server = McpServer::new(upstreams, settings.tool_filter.clone());
    output::print(&greeting(
        &output::program(),
        &mcp_url,
        &shared.url(),
        summary,
    ))?;
    let served = serve_http(server, Arc::new(OpenGate), mcp, stop)
        .await
        .map_err(|error| CliError::failed(error, ""));
    shared.close().await;
    served.map(|()| ExitCode::SUCCESS)
}

fn greeting(program: &str, mcp: &str, backend: &str, summary: DemoSummary) -> String {
    let mcp_servers = json!({"mcpServers": {CLIENT_NAME: {"type": "http", "url": mcp}}});
    format!(
        "\
Demo: {spans} spans and {evaluations} evaluations of the last week, from the applications
support-agent, docs-assistant and code-agent.

  MCP over HTTP   {mcp}
  local backend   {backend}   (SDKs can send here: DD_TRACE_AGENT_URL={backend})

Connect a client:

  Claude Code
    claude mcp add --transport http {CLIENT_NAME} {mcp}

  Codex (~/.codex/config.toml)
    [mcp_servers.{CLIENT_NAME}]
    url = \"{mcp}\"

  Gemini CLI
    gemini mcp add --transport http {CLIENT_NAME} {mcp}

  Others (mcpServers JSON)
    {mcp_servers}

Then ask, for example:

  - Which errors are the most frequent in code-agent this week, and where do they start?
  - Show me the last failed trace of support-agent as a tree. Which span raised the error?
  - Follow the loop of a failed code-agent run: which tool did it call repeatedly?
  - In docs-assistant, what did the model answer when parsing failed?

Without a client:

  {program} call search_llmobs_spans ml_app=support-agent query='@status:error' from=now-7d limit=5 --api-url {backend}
  {program} call search_llmobs_spans ml_app=support-agent root_spans_only=true limit=3 --api-url {backend}
  {program} call get_llmobs_trace trace_id=TRACE_ID --api-url {backend}

The data is temporary; to keep it, name a directory with --data-dir. Ctrl-C stops the demo.",
        spans = summary.spans,
        evaluations = summary.evaluations,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_contains_commands_to_paste() {
        let summary = DemoSummary {
            spans: 40,
            ..DemoSummary::default()
        };
        let text = greeting(
            "target/release/llmobs-mcp",
            "http://127.0.0.1:8787/mcp",
            "http://127.0.0.1:8126",
            summary,
        );
        for line in [
            "claude mcp add --transport http datadog-llmo-mcp http://127.0.0.1:8787/mcp",
            "[mcp_servers.datadog-llmo-mcp]",
            "url = \"http://127.0.0.1:8787/mcp\"",
            "gemini mcp add --transport http datadog-llmo-mcp http://127.0.0.1:8787/mcp",
            r#"{"mcpServers":{"datadog-llmo-mcp":{"type":"http","url":"http://127.0.0.1:8787/mcp"}}}"#,
            "target/release/llmobs-mcp call search_llmobs_spans ml_app=support-agent",
            "--api-url http://127.0.0.1:8126",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
