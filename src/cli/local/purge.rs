//! `local purge`: old spans go for good.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cli::args::PurgeArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;

use super::store::{Needs, Store, progress};

pub(super) async fn run(settings: &Settings, args: &PurgeArgs) -> Result<ExitCode, CliError> {
    let before_ms = args.older_than.map(|age| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let before = now.unwrap_or_default().saturating_sub(age);
        i64::try_from(before.as_millis()).unwrap_or(i64::MAX)
    });
    let store = Store::open(settings, Needs::Data).await?;
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

/// Piece by piece, so that whoever holds the data goes on taking in and answering.
async fn remove(
    store: &Store,
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
) -> Result<(u64, u64), CliError> {
    let bar = progress("spans removed", 0);
    bar.unset_length();
    let (mut spans, mut evaluations) = (0, 0);
    let mut asked = json!({"before_ms": before_ms, "max_bytes": max_bytes});
    loop {
        let told: Value = store.ask("purge", asked).await?;
        let count = |path: &str| told.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        spans += count("/removed/spans");
        evaluations += count("/removed/evaluations");
        bar.set_position(spans);
        match told.get("purge") {
            None | Some(Value::Null) => break,
            Some(rest) => asked = json!({"purge": rest}),
        }
    }
    bar.finish_and_clear();
    Ok((spans, evaluations))
}
