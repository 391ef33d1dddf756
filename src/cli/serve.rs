//! `serve`: MCP over stdio or HTTP, until the client closes it or a signal stops it.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use llmobs_authz::Gate;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{McpServer, serve_http, serve_stdio};

use super::args::ServeArgs;
use super::bind::bind;
use super::error::CliError;
use super::gate::plan_gate;
use super::output::print_note;
use super::settings::{Choice, Settings};
use super::signals::stop_on_signal;
use super::upstream::{Connection, close_backend, connect};

pub(crate) async fn run(mut settings: Settings, args: &ServeArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    // The port before the store: a port in use is reported without opening the store.
    let http = match args.http {
        Some(address) => {
            let plan = plan_gate(&mut settings, address)?;
            plan.check_verifier(&settings).await?;
            Some((plan, bind(Some(address), 0..0).await?))
        }
        None => None,
    };
    let tool_filter = settings.tool_filter.clone();
    let data = describe_data(&settings);
    let Connection { upstreams, backend } = connect(settings).await?;
    match &upstreams.info().url {
        Some(url) if backend.is_some() => tracing::info!("{data}; SDKs send to {url}"),
        _ => tracing::info!("{data}"),
    }
    let http = match http {
        Some((plan, listener)) => {
            let description = plan.description.clone();
            Some((plan.open(&upstreams)?, description, listener))
        }
        None => None,
    };
    let server = McpServer::new(upstreams, tool_filter);
    let served = match http {
        Some((gate, description, listener)) => {
            tracing::info!("auth: {description}");
            over_http(server, gate, listener, stop).await
        }
        None => over_stdio(server, stop).await,
    };
    close_backend(backend).await;
    served.map(|()| ExitCode::SUCCESS)
}

/// Which data the server reads, for the log.
fn describe_data(settings: &Settings) -> String {
    let because = &settings.because;
    match &settings.choice {
        Choice::Datadog(upstream) => format!("reading {} ({because})", upstream.api_base()),
        Choice::Local | Choice::Unchosen(_) => {
            let directory = settings.local.data_dir.display();
            format!("reading local data in {directory} ({because})")
        }
    }
}

async fn over_http(
    server: McpServer,
    gate: Arc<dyn Gate>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let address = listener
        .local_addr()
        .map_err(|error| CliError::failed(error, "try again"))?;
    print_note(&format!(
        "MCP over HTTP at http://{address}/mcp (Ctrl-C stops it)"
    ));
    serve_http(server, gate, listener, stop)
        .await
        .map_err(|error| CliError::failed(error, ""))
}

async fn over_stdio(server: McpServer, stop: CancellationToken) -> Result<(), CliError> {
    if std::io::stdin().is_terminal() {
        print_note(
            "Waiting for an MCP client on standard input (Ctrl-C stops it). To try it by hand, run \
             `llmobs-mcp demo`; for all commands, `llmobs-mcp --help`.",
        );
    }
    serve_stdio(server, stop).await.map_err(|error| {
        CliError::failed(
            error,
            "over stdio, the MCP client starts this program and speaks first; to try it by hand, use \
             `llmobs-mcp call` or `llmobs-mcp demo`",
        )
    })
}
