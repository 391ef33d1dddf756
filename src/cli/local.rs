//! `local`: serves the local backend, for SDKs that send and for processes that attach. Its subcommands
//! maintain the data.

mod export;
mod import;
mod purge;
mod source;
mod stats;
mod store;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use llmobs_local::owner::{AGENT_ADDRESS, Listen};
use llmobs_local::serve;

use super::args::{LocalArgs, LocalCommand};
use super::backend::{Backend, options};
use super::bind::bind;
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::signals::stop_on_signal;

/// How long running requests may take to finish after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(settings: &Settings, args: &LocalArgs) -> Result<ExitCode, CliError> {
    match &args.command {
        None => serve_backend(settings, args).await,
        Some(LocalCommand::Stats(args)) => stats::run(settings, args).await,
        Some(LocalCommand::Purge(args)) => purge::run(settings, args).await,
        Some(LocalCommand::Reindex(args)) => verify::reindex(settings, args).await,
        Some(LocalCommand::Verify(args)) => verify::run(settings, args).await,
        Some(LocalCommand::Export(args)) => export::run(settings, args).await,
        Some(LocalCommand::Import(args)) => import::run(settings, args).await,
    }
}

async fn serve_backend(settings: &Settings, args: &LocalArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    let listen = args.listen.map_or(Listen::Default, Listen::Exactly);
    let directory = &settings.local.data_dir;
    let options = options(&settings.local);
    let backend = Backend::share(options, listen).await?;
    let url = backend.url();
    let Some(owned) = backend.owned() else {
        backend.close().await;
        return Err(CliError::failed(
            format!("{} is already served at {url}", directory.display()),
            format!(
                "use that backend, or name another directory: llmobs-mcp local --data-dir {}-2",
                directory.display()
            ),
        ));
    };
    let mut otlp = None;
    if let Some(address) = args.otlp_listen {
        let listener = match bind(Some(address), 0..0).await {
            Ok(listener) => listener,
            Err(error) => {
                backend.close().await;
                return Err(error);
            }
        };
        let url = listener.local_addr().unwrap_or(address);
        let stopped = stop.clone().cancelled_owned();
        otlp = Some((url, tokio::spawn(serve(owned, listener, stopped))));
    }
    let otlp_url = otlp
        .as_ref()
        .map(|(address, _)| format!("http://{address}"));
    let directory = directory.display().to_string();
    output::print(&greeting(&url, otlp_url.as_deref(), &directory))?;
    stop.cancelled().await;
    if let Some((_, serving)) = otlp {
        // Spans are durable before they are acknowledged, so a timeout loses none.
        if tokio::time::timeout(STOP_TIMEOUT, serving).await.is_err() {
            tracing::debug!("the OpenTelemetry listener did not stop in time");
        }
    }
    backend.close().await;
    Ok(ExitCode::SUCCESS)
}

/// `otlp_url` is the second listener for OpenTelemetry traces, if there is one.
fn greeting(url: &str, otlp_url: Option<&str>, directory: &str) -> String {
    // SDKs send to the address of the Agent by default.
    let agent_url = if url.ends_with(&AGENT_ADDRESS.to_string()) {
        String::new()
    } else {
        format!("DD_TRACE_AGENT_URL={url} ")
    };
    let program = output::program();
    let otlp = otlp_url.unwrap_or(url);
    format!(
        "Local backend at {url}, data in {directory}\n\n\
         Send traces of a Python application with ddtrace:\n  \
         {agent_url}DD_LLMOBS_ENABLED=1 DD_LLMOBS_ML_APP=my-app ddtrace-run python app.py\n\n\
         Send OpenTelemetry traces (GenAI, OpenLLMetry, OpenInference):\n  \
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={otlp}/v1/traces OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf …\n\n\
         Read them:\n  \
         {program} call search_llmobs_spans --api-url {url}\n\n\
         Ctrl-C stops it."
    )
}
