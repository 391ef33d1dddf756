//! `local stats`: shows the number of spans and the size on disk.

use std::process::ExitCode;

use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::cli::args::StatsArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;
use llmobs_core::query::time::format_rfc3339;

use super::store::{Store, StoreRequirement};

pub(super) async fn run(settings: &Settings, args: &StatsArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, StoreRequirement::Existing).await?;
    let stats = store.ask::<Value>("stats", json!({})).await;
    let owner = store.owner();
    store.close().await;
    let mut stats = stats?;
    if args.json {
        if let Some(map) = stats.as_object_mut() {
            map.insert("held_by".to_owned(), json!(owner));
        }
        output::print(&stats.to_string())?;
    } else {
        output::print(&to_text(&stats, owner.as_deref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_text(stats: &Value, owner: Option<&str>) -> String {
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| {
        stats
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let size = |path: &str| DecimalBytes(number(path));
    let time = |path: &str| {
        let ns = stats.pointer(path).and_then(Value::as_i64);
        ns.map(|ns| format_rfc3339(ns.div_euclid(1_000_000)))
    };
    let time_window = match (time("/oldest_start_ns"), time("/newest_start_ns")) {
        (Some(oldest), Some(newest)) => format!(", from {oldest} to {newest}"),
        _ => String::new(),
    };
    let owner = owner.map_or_else(String::new, |url| format!("\nOwner        {url}"));
    format!(
        "Data in      {} (store {}){owner}\n\
         Spans        {} in {} traces{time_window}\n\
         Evaluations  {}\n\
         On disk      {} used, {} free in the file, {} log, {} index, {} experiments\n\
         Index        {}",
        text("/folder"),
        text("/store_id"),
        number("/spans"),
        number("/traces"),
        number("/evaluations"),
        size("/bytes/used"),
        size("/bytes/free"),
        size("/bytes/log"),
        size("/bytes/index"),
        size("/bytes/experiments"),
        index_to_text(stats),
    )
}

fn index_to_text(stats: &Value) -> String {
    let field = |key: &str| stats.pointer(&format!("/index/{key}"));
    let number = |key: &str| field(key).and_then(Value::as_u64).unwrap_or(0);
    let text = |key: &str| field(key).and_then(Value::as_str);
    let slower = "until then searches scan the data, which is slower";
    match text("state") {
        None => "none; searches scan the data".to_owned(),
        Some("ready") if number("changes_behind") == 0 => "complete".to_owned(),
        Some("ready") => format!(
            "{} changes behind; searches scan those in the data",
            number("changes_behind")
        ),
        Some("building") => format!(
            "being built, {} of {} spans; {slower}",
            number("done"),
            number("total")
        ),
        Some(_) => format!(
            "could not be built ({}), and building is retried; {slower}",
            text("reason").unwrap_or_default()
        ),
    }
}
