//! `serve`: MCP over stdio or HTTP, until the client or the user has enough.

use std::process::ExitCode;
use std::sync::Arc;

use crate::authz::Open;
use crate::server::{HttpError, McpServer, serve_http, serve_stdio};

use super::args::ServeArgs;
use super::backend::bind;
use super::error::CliError;
use super::output::tell;
use super::settings::Settings;
use super::signals::stop_on_signal;
use super::upstream::{Connected, connect};

pub(crate) async fn run(settings: Settings, args: &ServeArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    // The port first: a taken one should not cost the opening of the store.
    let listener = match args.http {
        Some(address) => Some(bind(Some(address), 0..0).await?),
        None => None,
    };
    let wish = settings.wish.clone();
    let because = settings.because.clone();
    let Connected { upstreams, backend } = connect(settings).await?;
    let url = upstreams.described().url.clone().unwrap_or_default();
    tracing::info!("upstream: {url} ({because})");
    let server = McpServer::new(upstreams, wish);
    let served = match listener {
        Some(listener) => {
            let address = listener
                .local_addr()
                .map_err(|error| CliError::failed(error, "try again"))?;
            tell(&format!("MCP over HTTP at http://{address}/mcp (Ctrl-C stops it)"));
            serve_http(server, Arc::new(Open), listener, stop)
                .await
                .map_err(|error: HttpError| CliError::failed(error, ""))
        }
        None => serve_stdio(server, stop).await.map_err(|error| {
            CliError::failed(
                error,
                "stdio speaks MCP with the client that started this program; to try it by hand, use \
                 `llmobs-mcp call` or `llmobs-mcp demo`",
            )
        }),
    };
    Connected::close(backend).await;
    served.map(|()| ExitCode::SUCCESS)
}
