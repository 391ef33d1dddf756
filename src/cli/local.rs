//! `local`: the local backend alone, for SDKs to send to and for other processes to attach to.

use std::process::ExitCode;

use crate::local::owner::{AGENT_ADDRESS, Listen};

use super::args::LocalArgs;
use super::backend::{Backend, in_folder};
use super::error::CliError;
use super::output;
use super::settings::Settings;
use super::signals::stop_on_signal;

pub(crate) async fn run(settings: &Settings, args: &LocalArgs) -> Result<ExitCode, CliError> {
    let stop = stop_on_signal();
    let listen = args.listen.map_or(Listen::Default, Listen::Exactly);
    let folder = &settings.data_dir;
    let backend = Backend::share(in_folder(folder, args.documented_only), listen).await?;
    let url = backend.url();
    if backend.owned().is_none() {
        backend.close().await;
        return Err(CliError::failed(
            format!("{} is already served at {url}", folder.display()),
            format!(
                "use that one, or name another folder: llmobs-mcp local --data-dir {}-2",
                folder.display()
            ),
        ));
    }
    output::print(&greeting(&url, &folder.display().to_string()))?;
    stop.cancelled().await;
    backend.close().await;
    Ok(ExitCode::SUCCESS)
}

fn greeting(url: &str, folder: &str) -> String {
    // SDKs look for an Agent at its own address; anywhere else they must be told.
    let tell = if url.ends_with(&AGENT_ADDRESS.to_string()) {
        String::new()
    } else {
        format!("DD_TRACE_AGENT_URL={url} ")
    };
    let program = output::program();
    format!(
        "Local backend at {url}, data in {folder}\n\n\
         Send traces of a Python application that uses ddtrace:\n  \
         {tell}DD_LLMOBS_ENABLED=1 DD_LLMOBS_ML_APP=my-app ddtrace-run python app.py\n\n\
         Read them:\n  \
         {program} call search_llmobs_spans --api-url {url}\n\n\
         Ctrl-C stops it."
    )
}
