//! `local purge`: removes old spans permanently.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::args::PurgeArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;
use crate::clock::now_ms;

use super::store::{Store, StoreRequirement, progress};

pub(super) async fn run(settings: &Settings, args: &PurgeArgs) -> Result<ExitCode, CliError> {
    let before_ms = args.older_than.map(|age| {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        now_ms().saturating_sub(age_ms)
    });
    let store = Store::open(settings, StoreRequirement::Existing).await?;
    let removed = remove(&store, before_ms, args.down_to).await;
    store.close().await;
    let (spans, evaluations) = removed?;
    output::print(&if args.json {
        json!({"spans": spans, "evaluations": evaluations}).to_string()
    } else {
        format!("Removed {spans} spans and {evaluations} evaluations.")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Removes spans in steps, so that the owner of the data can ingest and answer in between.
async fn remove(
    store: &Store,
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
) -> Result<(u64, u64), CliError> {
    let bar = progress("spans removed", 0);
    bar.unset_length();
    let (mut spans, mut evaluations) = (0, 0);
    let mut request = json!({"before_ms": before_ms, "max_bytes": max_bytes});
    loop {
        let answer: Value = store.ask("purge", request).await?;
        let count = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        spans += count("/removed/spans");
        evaluations += count("/removed/evaluations");
        bar.set_position(spans);
        match answer.get("purge") {
            None | Some(Value::Null) => break,
            Some(rest) => request = json!({"purge": rest}),
        }
    }
    bar.finish_and_clear();
    Ok((spans, evaluations))
}
