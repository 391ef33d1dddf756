//! `serve`: MCP over stdio or HTTP, until the client or the user has enough.

use std::process::ExitCode;

use crate::server::{HttpError, McpServer, serve_http, serve_stdio};

use super::args::ServeArgs;
use super::backend::bind;
use super::error::CliError;
use super::gate::front;
use super::output::tell;
use super::settings::Settings;
use super::signals::stop_on_signal;
use super::upstream::{Connected, connect};

pub(crate) async fn run(mut settings: Settings, args: &ServeArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    // The port before the store: a taken one should not cost its opening.
    let http = match args.http {
        Some(address) => {
            let front = front(&mut settings, args, address)?;
            front.check(&settings).await?;
            Some((front, bind(Some(address), 0..0).await?))
        }
        None => None,
    };
    let wish = settings.wish.clone();
    let because = settings.because.clone();
    let Connected { upstreams, backend } = connect(settings).await?;
    let url = upstreams.described().url.clone().unwrap_or_default();
    tracing::info!("upstream: {url} ({because})");
    let http = match http {
        Some((front, listener)) => {
            let told = front.told.clone();
            Some((front.open(&upstreams)?, told, listener))
        }
        None => None,
    };
    let server = McpServer::new(upstreams, wish);
    let served = match http {
        Some((gate, told, listener)) => {
            let address = listener
                .local_addr()
                .map_err(|error| CliError::failed(error, "try again"))?;
            tell(&format!("MCP over HTTP at http://{address}/mcp (Ctrl-C stops it)"));
            tracing::info!("callers: {told}");
            serve_http(server, gate, listener, stop)
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
