//! `demo`: sample data, MCP over HTTP in front of it, and lines to paste into a client.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::server::{McpServer, Upstreams, serve_http};
use llmobs_authz::Open;
use llmobs_local::demo::{DemoSummary, load};
use llmobs_local::owner::Listen;
use llmobs_local::{DataDir, LocalOptions};

use super::args::{DemoArgs, Shared};
use super::backend::{Backend, bind};
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::signals::stop_on_signal;
use super::upstream::{described, local_hub};

/// The name under which the official skills look for the server.
const CLIENT_NAME: &str = "datadog-llmo-mcp";

/// The ports tried for MCP when none was named.
const MCP_PORTS: std::ops::Range<u16> = 8787..8797;

pub(crate) async fn run(
    flags: &Shared,
    settings: &Settings,
    args: &DemoArgs,
) -> Result<ExitCode, CliError> {
    if flags.api_url.is_some() || flags.site.as_deref().is_some_and(|site| site != "local") {
        return Err(CliError::usage(
            "the demo shows sample data, so --site and --api-url have no place here",
            "to serve real data: llmobs-mcp serve --http 127.0.0.1:8787 --site datadoghq.eu",
        ));
    }
    let stop = stop_on_signal();
    let mcp = bind(args.http, MCP_PORTS).await?;
    let mcp_url = match mcp.local_addr() {
        Ok(address) => format!("http://{address}/mcp"),
        Err(error) => return Err(CliError::failed(error, "try again")),
    };
    // Only a folder named on purpose: the demo must not fill the shared store.
    let data_dir = match &flags.data_dir {
        Some(folder) => DataDir::Folder(folder.clone()),
        None => DataDir::Temporary,
    };
    let options = LocalOptions {
        documented_only: args.documented_only,
        ..LocalOptions::new(data_dir)
    };
    let listen = args.listen.map_or(Listen::Default, Listen::Exactly);
    let shared = Backend::share(options, listen).await?;
    let Some(backend) = shared.owned() else {
        let url = shared.url();
        shared.close().await;
        return Err(CliError::failed(
            format!("that data folder is already served at {url}"),
            "name another one with --data-dir, or none for temporary data",
        ));
    };
    let now_ms = now_ms();
    let loaded = tokio::task::spawn_blocking(move || load(&backend, now_ms))
        .await
        .map_or_else(
            // What a panic said may quote data.
            |_| Err("loading the sample data ended early".to_owned()),
            |loaded| loaded.map_err(|error| error.to_string()),
        )
        .map_err(|error| CliError::failed(error, "this is a bug: please report it"))?;
    let upstreams = Upstreams::local(local_hub(&shared), true, described(&shared));
    let server = McpServer::new(upstreams, settings.wish.clone());
    output::print(&greeting(
        &output::program(),
        &mcp_url,
        &shared.url(),
        loaded,
    ))?;
    let served = serve_http(server, Arc::new(Open), mcp, stop)
        .await
        .map_err(|error| CliError::failed(error, ""));
    shared.close().await;
    served.map(|()| ExitCode::SUCCESS)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

fn greeting(program: &str, mcp: &str, backend: &str, loaded: DemoSummary) -> String {
    let generic = json!({"mcpServers": {CLIENT_NAME: {"type": "http", "url": mcp}}});
    format!(
        "\
Demo: {spans} spans and {evaluations} evaluations of the last week, from the applications
support-agent, docs-assistant and code-agent.

  MCP over HTTP   {mcp}
  local backend   {backend}   (SDKs may send here: DD_TRACE_AGENT_URL={backend})

Connect a client:

  Claude Code
    claude mcp add --transport http {CLIENT_NAME} {mcp}

  Codex (~/.codex/config.toml)
    [mcp_servers.{CLIENT_NAME}]
    url = \"{mcp}\"

  Gemini CLI
    gemini mcp add --transport http {CLIENT_NAME} {mcp}

  Any other (mcpServers JSON)
    {generic}

Then ask, for example:

  - Which errors does code-agent run into most this week, and where do they begin?
  - Show me the last failed trace of support-agent as a tree. Which span raised the error?
  - Follow the loop of a failed code-agent run: which tool did it call again and again?
  - In docs-assistant, what exactly did the model answer where parsing failed?

Or without a client:

  {program} call search_llmobs_spans ml_app=support-agent query='@status:error' from=now-7d limit=5 --api-url {backend}
  {program} call search_llmobs_spans ml_app=support-agent root_spans_only=true limit=3 --api-url {backend}
  {program} call get_llmobs_trace trace_id=TRACE_ID --api-url {backend}

The data lives as long as this process unless --data-dir names a folder. Ctrl-C stops it.",
        spans = loaded.spans,
        evaluations = loaded.evaluations,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_holds_lines_that_can_be_pasted() {
        let loaded = DemoSummary {
            spans: 40,
            ..DemoSummary::default()
        };
        let text = greeting(
            "target/release/llmobs-mcp",
            "http://127.0.0.1:8787/mcp",
            "http://127.0.0.1:8126",
            loaded,
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
