//! `local`: the local backend alone, for SDKs to send to and for other processes to attach to; and
//! what keeps its data in order.

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

use super::address::bind;
use super::args::{LocalArgs, LocalCommand};
use super::backend::{Backend, options};
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::signals::stop_on_signal;

/// How long requests that are running may take to end.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) async fn run(settings: &Settings, args: &LocalArgs) -> Result<ExitCode, CliError> {
    match &args.command {
        None => serve_alone(settings, args).await,
        Some(LocalCommand::Stats(args)) => stats::run(settings, args).await,
        Some(LocalCommand::Purge(args)) => purge::run(settings, args).await,
        Some(LocalCommand::Reindex(args)) => verify::reindex(settings, args).await,
        Some(LocalCommand::Verify(args)) => verify::run(settings, args).await,
        Some(LocalCommand::Export(args)) => export::run(settings, args).await,
        Some(LocalCommand::Import(args)) => import::run(settings, args).await,
    }
}

async fn serve_alone(settings: &Settings, args: &LocalArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    let listen = args.listen.map_or(Listen::Default, Listen::Exactly);
    let folder = &settings.local.data_dir;
    let mut options = options(&settings.local);
    options.documented_only = args.documented_only;
    let backend = Backend::share(options, listen).await?;
    let url = backend.url();
    let Some(owned) = backend.owned() else {
        backend.close().await;
        return Err(CliError::failed(
            format!("{} is already served at {url}", folder.display()),
            format!(
                "use that one, or name another folder: llmobs-mcp local --data-dir {}-2",
                folder.display()
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
        let told = stop.clone().cancelled_owned();
        otlp = Some((url, tokio::spawn(serve(owned, listener, told))));
    }
    let also = otlp
        .as_ref()
        .map(|(address, _)| format!("http://{address}"));
    let folder = folder.display().to_string();
    output::print(&greeting(&url, also.as_deref(), &folder))?;
    stop.cancelled().await;
    if let Some((_, serving)) = otlp {
        // What it takes in is durable before it is acknowledged: nothing is lost if it is late.
        if tokio::time::timeout(GRACE, serving).await.is_err() {
            tracing::debug!("the listener for OpenTelemetry did not end in time");
        }
    }
    backend.close().await;
    Ok(ExitCode::SUCCESS)
}

/// `also` is where a second listener takes OpenTelemetry traces.
fn greeting(url: &str, also: Option<&str>, folder: &str) -> String {
    // SDKs look for an Agent at its own address; anywhere else they must be told.
    let tell = if url.ends_with(&AGENT_ADDRESS.to_string()) {
        String::new()
    } else {
        format!("DD_TRACE_AGENT_URL={url} ")
    };
    let program = output::program();
    let otlp = also.unwrap_or(url);
    format!(
        "Local backend at {url}, data in {folder}\n\n\
         Send traces of a Python application that uses ddtrace:\n  \
         {tell}DD_LLMOBS_ENABLED=1 DD_LLMOBS_ML_APP=my-app ddtrace-run python app.py\n\n\
         Send OpenTelemetry traces (GenAI, OpenLLMetry, OpenInference):\n  \
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={otlp}/v1/traces OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf …\n\n\
         Read them:\n  \
         {program} call search_llmobs_spans --api-url {url}\n\n\
         Ctrl-C stops it."
    )
}
