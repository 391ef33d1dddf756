//! The part of `doctor` about the local backend: its data directory and the Agent's port.

use std::io::ErrorKind;
use std::path::Path;

use llmobs_local::owner::AGENT_ADDRESS;

use crate::cli::peer::{Peer, identify};
use crate::cli::settings::{Choice, Settings};

use super::{Level, Report};

/// Checks the data directory, and what listens on the Agent's port.
pub(super) async fn check(report: &mut Report, settings: &Settings) {
    if matches!(settings.choice, Choice::Datadog(_)) {
        return;
    }
    check_directory(report, settings);
    check_port(report, settings).await;
}

fn check_directory(report: &mut Report, settings: &Settings) {
    let directory = &settings.local.data_dir;
    let source = if settings.local.data_dir_named {
        ""
    } else {
        " (the default)"
    };
    let name = format!("data directory {}{source}", directory.display());
    match usable(directory) {
        Ok(state) => report.add(Level::Ok, &format!("{name}: {state}")),
        Err(why) => {
            report.add(Level::Problem, &format!("{name}: {why}"));
            report.hint("name a writable directory: --data-dir DIR or LLMOBS_MCP_DATA_DIR");
        }
    }
}

async fn check_port(report: &mut Report, settings: &Settings) {
    let address = format!("http://{AGENT_ADDRESS}");
    let other = match identify(settings, &address).await {
        None => {
            let line = format!("{address}: free; the local backend will listen here");
            report.add(Level::Ok, &line);
            return;
        }
        Some(Peer::LocalBackend) => {
            let line = format!("{address}: a local backend of llmobs-mcp answers");
            report.add(Level::Ok, &line);
            return;
        }
        Some(Peer::Agent) => "a Datadog Agent",
        Some(Peer::Other) => "another program",
    };
    report.add(
        Level::Note,
        &format!("{address}: {other} answers, so the local backend uses another port"),
    );
    report
        .hint("set DD_TRACE_AGENT_URL to the address that the local backend prints when it starts");
}

fn usable(directory: &Path) -> Result<&'static str, String> {
    match std::fs::metadata(directory) {
        Ok(meta) if !meta.is_dir() => Err("not a directory".to_owned()),
        Ok(meta) if meta.permissions().readonly() => Err("not writable".to_owned()),
        Ok(_) => Ok("exists"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok("does not exist yet; the first start creates it")
        }
        Err(error) => Err(error.to_string()),
    }
}
