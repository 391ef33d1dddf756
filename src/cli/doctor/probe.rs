//! The part of `doctor` that sends requests: one small read to each endpoint that the tools need.

use std::fmt::Write;

use datadog_llmobs::{ProbeResult, Upstream};

use crate::cli::error::CliError;
use crate::cli::settings::{Choice, Settings};
use crate::cli::upstream::{Connection, close_backend, connect};

use super::{Level, Report};

/// Probes the endpoints. Reports each of them if `verbose`, else the total.
pub(super) async fn check(
    report: &mut Report,
    settings: Settings,
    verbose: bool,
) -> Result<(), CliError> {
    let name = match &settings.choice {
        Choice::Datadog(upstream) => upstream.name().into_owned(),
        Choice::Local | Choice::Unchosen(_) => Upstream::Local.name().into_owned(),
    };
    let Connection { upstreams, backend } = connect(settings).await?;
    match upstreams.own_client("cli doctor").await {
        Ok(client) => add_results(report, &name, &client.probe().await, verbose),
        Err(unavailable) => {
            let finding = format!("credential: {}", unavailable.error);
            report.add(Level::Problem, &finding);
            report.hint(&unavailable.hint);
        }
    }
    close_backend(backend).await;
    Ok(())
}

fn add_results(report: &mut Report, name: &str, results: &[ProbeResult], verbose: bool) {
    let answered = results.iter().filter(|result| result.is_ok()).count();
    let total = results.len();
    let unreachable = results.iter().all(|result| result.status.is_none());
    match results.first() {
        Some(first) if unreachable => {
            // The detail starts with the elapsed time.
            let (_, cause) = first.detail.split_once("; ").unwrap_or(("", &first.detail));
            let finding = format!("could not reach {name}: {cause}");
            report.add(Level::Problem, &finding);
        }
        _ => {
            let level = if answered == 0 {
                Level::Problem
            } else {
                Level::Ok
            };
            let finding = format!(
                "{name}: {answered} of {total} endpoints gave the answers that the tools need"
            );
            report.add(level, &finding);
        }
    }
    if answered < total && !verbose {
        report.hint("`llmobs-mcp doctor --probe` shows each endpoint");
    }
    for result in results.iter().filter(|_| verbose) {
        let level = if result.is_ok() {
            Level::Ok
        } else {
            Level::Note
        };
        report.add(level, &line(result));
    }
}

/// The answer of one endpoint: status and names of keys, no content.
fn line(result: &ProbeResult) -> String {
    let status = result
        .status
        .map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let head = format!("  {} ({})", result.name, result.endpoint);
    let Some(elapsed_ms) = result.elapsed_ms else {
        return format!("{head}: {}", result.detail);
    };
    let mut line = format!("{head}: {status} in {elapsed_ms} ms");
    if !result.is_ok() {
        let _ = write!(line, "; {}", result.detail);
    }
    for (label, keys) in [
        ("keys", &result.top_level_keys),
        ("row keys", &result.row_keys),
    ] {
        if !keys.is_empty() {
            let _ = write!(line, "\n             {label}: {}", keys.join(", "));
        }
    }
    line
}
