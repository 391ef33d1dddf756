//! `local verify` and `local reindex`: is all that is kept there and readable, and the index anew.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::args::{ReindexArgs, VerifyArgs};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;
use llmobs_local::store::{CheckStep, Checked};

use super::store::{Needs, Store, progress};

/// Faults that are told; further ones are counted.
const TOLD: usize = 1_000;

#[derive(Default)]
struct Report {
    spans: u64,
    evaluations: u64,
    faults: Vec<String>,
    /// How many were found, told or not.
    found: usize,
}

pub(super) async fn run(settings: &Settings, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, Needs::Data).await?;
    let checked = check(&store).await;
    store.close().await;
    let report = checked?;
    let clean = report.found == 0;
    if args.json {
        let told = json!({
            "clean": clean,
            "spans": report.spans,
            "evaluations": report.evaluations,
            "faults_found": report.found,
            "faults": report.faults,
        });
        output::print(&told.to_string())?;
    } else {
        output::print(&for_people(&report))?;
    }
    if clean {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::failed(
        format!("{} faults were found", report.found),
        "what can still be read is saved by `llmobs-mcp local export saved.ndjson.gz`; import it into a \
         new folder with `llmobs-mcp local import saved.ndjson.gz --data-dir NEW`; an index that \
         disagrees is built anew by `llmobs-mcp local reindex`",
    ))
}

fn for_people(report: &Report) -> String {
    let looked = format!(
        "Checked {} spans and {} evaluations",
        report.spans, report.evaluations
    );
    if report.found == 0 {
        return format!("{looked}: nothing is wrong.");
    }
    format!("{looked}:\n  {}", report.faults.join("\n  "))
}

async fn check(store: &Store) -> Result<Report, CliError> {
    let stats: Value = store.ask("stats", json!({})).await?;
    let count = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let bar = progress("checked", count("/spans") + count("/evaluations"));
    let mut report = Report::default();
    let mut at = Some(CheckStep::File);
    while let Some(step) = at {
        let checked: Checked = store.ask("verify", json!({"step": step})).await?;
        match step {
            CheckStep::Spans { .. } => report.spans += checked.looked_at,
            CheckStep::Evaluations { .. } => report.evaluations += checked.looked_at,
            CheckStep::File | CheckStep::Changes | CheckStep::Index => {}
        }
        bar.set_position(report.spans + report.evaluations);
        report.found += checked.faults.len();
        let room = TOLD.saturating_sub(report.faults.len());
        report.faults.extend(checked.faults.into_iter().take(room));
        at = behind(step, checked.next);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// The step after one.
fn behind(step: CheckStep, next: Option<i64>) -> Option<CheckStep> {
    match (step, next) {
        (CheckStep::File, _) => Some(CheckStep::Spans { after: None }),
        (CheckStep::Spans { .. }, after @ Some(_)) => Some(CheckStep::Spans { after }),
        (CheckStep::Spans { .. }, None) => Some(CheckStep::Evaluations { after: None }),
        (CheckStep::Evaluations { .. }, after @ Some(_)) => Some(CheckStep::Evaluations { after }),
        (CheckStep::Evaluations { .. }, None) => Some(CheckStep::Changes),
        (CheckStep::Changes, _) => Some(CheckStep::Index),
        (CheckStep::Index, _) => None,
    }
}

/// How often it is asked how far the index is.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn reindex(settings: &Settings, args: &ReindexArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, Needs::Data).await?;
    let built = build(&store).await;
    store.close().await;
    let built = built?;
    output::print(&if args.json {
        built.to_string()
    } else {
        match built.get("indexed_spans").and_then(Value::as_u64) {
            Some(spans) => format!("The index was built anew over {spans} spans."),
            None => "There is no index to build: searches read the data themselves.".to_owned(),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Begins, and waits until the index is whole.
async fn build(store: &Store) -> Result<Value, CliError> {
    let bar = progress("indexed", 0);
    let mut told: Value = store.ask("reindex", json!({"begin": true})).await?;
    while let Some(building) = told.get("building") {
        let count = |key: &str| building.get(key).and_then(Value::as_u64).unwrap_or(0);
        bar.set_length(count("total"));
        bar.set_position(count("done"));
        tokio::time::sleep(LOOK).await;
        told = store.ask("reindex", json!({"begin": false})).await?;
    }
    bar.finish_and_clear();
    Ok(told)
}
