//! `local stats`: how much is kept, and how much room it takes.

use std::process::ExitCode;

use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::cli::args::StatsArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::settings::Settings;
use llmobs_core::query::time::format_rfc3339;

use super::store::{Needs, Store};

pub(super) async fn run(settings: &Settings, args: &StatsArgs) -> Result<ExitCode, CliError> {
    let store = Store::open(settings, Needs::Data).await?;
    let told = store.ask::<Value>("stats", json!({})).await;
    let holder = store.holder();
    store.close().await;
    let mut told = told?;
    if args.json {
        if let Some(map) = told.as_object_mut() {
            map.insert("held_by".to_owned(), json!(holder));
        }
        output::print(&told.to_string())?;
    } else {
        output::print(&for_people(&told, holder.as_deref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(told: &Value, holder: Option<&str>) -> String {
    let number = |path: &str| told.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| {
        told.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let size = |path: &str| DecimalBytes(number(path));
    let moment = |path: &str| {
        let ns = told.pointer(path).and_then(Value::as_i64);
        ns.map(|ns| format_rfc3339(ns.div_euclid(1_000_000)))
    };
    let between = match (moment("/oldest_start_ns"), moment("/newest_start_ns")) {
        (Some(oldest), Some(newest)) => format!(", from {oldest} to {newest}"),
        _ => String::new(),
    };
    let held = holder.map_or_else(String::new, |url| format!("\nHeld by      {url}"));
    format!(
        "Data in      {} (store {}){held}\n\
         Spans        {} in {} traces{between}\n\
         Evaluations  {}\n\
         On disk      {} used, {} free inside the file, {} log, {} index, {} experiments\n\
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
        index_for_people(told),
    )
}

fn index_for_people(told: &Value) -> String {
    let of = |key: &str| told.pointer(&format!("/index/{key}"));
    let number = |key: &str| of(key).and_then(Value::as_u64).unwrap_or(0);
    let text = |key: &str| of(key).and_then(Value::as_str);
    let slower = "searches read the data themselves until then, more slowly";
    match text("state") {
        None => "none: searches read the data themselves".to_owned(),
        Some("ready") if number("changes_behind") == 0 => "has everything".to_owned(),
        Some("ready") => format!(
            "{} changes behind; searches read those from the data",
            number("changes_behind")
        ),
        Some("building") => format!(
            "being built, {} of {} spans; {slower}",
            number("done"),
            number("total")
        ),
        Some(_) => format!(
            "cannot be built ({}) and is tried again; {slower}",
            text("reason").unwrap_or_default()
        ),
    }
}
