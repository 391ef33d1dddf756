//! `local verify` checks that all data is complete and readable; `local reindex` rebuilds the index.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::args::{ReindexArgs, VerifyArgs};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;
use llmobs_local::store::{CheckOutcome, CheckStep};

use super::store::{Store, StoreRequirement, progress};

/// The most faults that are reported; further ones are only counted.
const MAX_REPORTED_FAULTS: usize = 1_000;

#[derive(Default)]
struct VerifyReport {
    spans: u64,
    evaluations: u64,
    faults: Vec<String>,
    /// The number of faults, reported or not.
    fault_count: usize,
}

pub(super) async fn run(settings: &Settings, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, StoreRequirement::Existing).await?;
    let checked = check(&store).await;
    store.close().await;
    let report = checked?;
    let clean = report.fault_count == 0;
    if args.json {
        let summary = json!({
            "clean": clean,
            "spans": report.spans,
            "evaluations": report.evaluations,
            "faults_found": report.fault_count,
            "faults": report.faults,
        });
        output::print(&summary.to_string())?;
    } else {
        output::print(&to_text(&report))?;
    }
    if clean {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::failed(
        format!("found {} faults", report.fault_count),
        "save the readable data with `llmobs-mcp local export saved.ndjson.gz`, and import it into a new \
         directory with `llmobs-mcp local import saved.ndjson.gz --data-dir NEW`; rebuild an index that \
         disagrees with `llmobs-mcp local reindex`",
    ))
}

fn to_text(report: &VerifyReport) -> String {
    let checked = format!(
        "Checked {} spans and {} evaluations",
        report.spans, report.evaluations
    );
    if report.fault_count == 0 {
        return format!("{checked}: no faults.");
    }
    format!("{checked}:\n  {}", report.faults.join("\n  "))
}

async fn check(store: &Store) -> Result<VerifyReport, CliError> {
    let stats: Value = store.ask("stats", json!({})).await?;
    let count = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let bar = progress("checked", count("/spans") + count("/evaluations"));
    let mut report = VerifyReport::default();
    let mut next_step = Some(CheckStep::Storage);
    while let Some(step) = next_step {
        let checked: CheckOutcome = store.ask("verify", json!({"step": step})).await?;
        match step {
            CheckStep::Spans { .. } => report.spans += checked.checked,
            CheckStep::Evaluations { .. } => report.evaluations += checked.checked,
            CheckStep::Storage | CheckStep::Changes | CheckStep::Index => {}
        }
        bar.set_position(report.spans + report.evaluations);
        report.fault_count += checked.faults.len();
        let remaining = MAX_REPORTED_FAULTS.saturating_sub(report.faults.len());
        report
            .faults
            .extend(checked.faults.into_iter().take(remaining));
        next_step = step_after(step, checked.next);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// The step after one.
fn step_after(step: CheckStep, next: Option<i64>) -> Option<CheckStep> {
    match (step, next) {
        (CheckStep::Storage, _) => Some(CheckStep::Spans { after: None }),
        (CheckStep::Spans { .. }, after @ Some(_)) => Some(CheckStep::Spans { after }),
        (CheckStep::Spans { .. }, None) => Some(CheckStep::Evaluations { after: None }),
        (CheckStep::Evaluations { .. }, after @ Some(_)) => Some(CheckStep::Evaluations { after }),
        (CheckStep::Evaluations { .. }, None) => Some(CheckStep::Changes),
        (CheckStep::Changes, _) => Some(CheckStep::Index),
        (CheckStep::Index, _) => None,
    }
}

/// How often the progress of the index is read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn reindex(settings: &Settings, args: &ReindexArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, StoreRequirement::Existing).await?;
    let built = build(&store).await;
    store.close().await;
    let built = built?;
    output::print(&if args.json {
        built.to_string()
    } else {
        match built.get("indexed_spans").and_then(Value::as_u64) {
            Some(spans) => format!("Rebuilt the index of {spans} spans."),
            None => "This store has no index; searches scan the data.".to_owned(),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the rebuild, and waits until the index is complete.
async fn build(store: &Store) -> Result<Value, CliError> {
    let bar = progress("indexed", 0);
    let mut state: Value = store.ask("reindex", json!({"begin": true})).await?;
    while let Some(building) = state.get("building") {
        let count = |key: &str| building.get(key).and_then(Value::as_u64).unwrap_or(0);
        bar.set_length(count("total"));
        bar.set_position(count("done"));
        tokio::time::sleep(POLL_INTERVAL).await;
        state = store.ask("reindex", json!({"begin": false})).await?;
    }
    bar.finish_and_clear();
    Ok(state)
}
