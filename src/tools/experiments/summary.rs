//! `get_llmobs_experiment_summary`: the start of the analysis of an experiment.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::{experiment_notes, id_example, load};
use super::objects::{set_experiment, summary_metric};
use super::stats::{KeyNames, stats};
use crate::render::{Budget, cut_middle, experiment_url, json_chars};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::{JsonObject, statistic};
use crate::tools::page::{ListRequest, Page, offset_token};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{LoadedExperiment, Upstream};
use llmobs_core::analysis::experiment::{dimensions, metric_labels, metric_stats, percentile};
use llmobs_core::model::{ExperimentEvent, Usage};

const NAME: &str = "get_llmobs_experiment_summary";
const MAX_SUMMARY_METRICS: usize = 60;
const MAX_DIMENSIONS: usize = 60;
const MAX_DIMENSION_CHARS: usize = 120;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment summary",
    description: "Start here to analyse an LLM experiment: events (one per dataset record and run), \
        task errors, statistics of each evaluator metric (score, boolean, categorical, json), \
        summary metrics, latency, tokens, cost, and the dimensions to segment by (most useful \
        first). Events whose task failed are excluded from metric statistics and counted.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Include events whose task failed in the statistics.
    include_failed: Option<bool>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
    /// next_cursor of the previous answer: more metrics.
    cursor: Option<String>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let id = arguments.experiment_id.as_str();
    let include_failed = arguments.include_failed.unwrap_or(false);
    let events = if include_failed { "all" } else { "" };
    let list = ListRequest::new(NAME, [id, events], id_example(id));
    let first = list.offset(arguments.cursor.as_deref())?;
    let loaded = load(context, NAME, id, |id| Some(id_example(id))).await?;
    let events = &loaded.data.events;
    let mut notes = experiment_notes(&loaded);
    let labels = metric_labels(events);
    let failed = events.iter().filter(|event| event.is_error()).count();
    if failed > 0 && !include_failed && !labels.is_empty() {
        notes.add(format!(
            "the metrics exclude {failed} events whose task failed; include_failed: true includes \
             them"
        ));
    }
    let total = labels.len();
    let labels = labels.into_iter().skip(first);
    let rows: Vec<(String, Value)> = labels
        .map(|info| {
            let found = metric_stats(events, &info, include_failed);
            let stats = stats(&info, &found, KeyNames::Summary);
            (info.label, stats)
        })
        .collect();
    let page_len = rows.len();
    // Key, quotes and colon.
    let row_chars =
        |(label, stats): &(String, Value)| json_chars(stats) + label.chars().count() + 4;
    let tail = tail(&loaded, include_failed, &mut notes);
    Page::custom(head(context, id, &loaded), rows, row_chars, |rows, _| {
        let evals: Map<String, Value> = rows.iter().cloned().collect();
        let mut keys = JsonObject::default();
        keys.set("evals", evals);
        if rows.len() < page_len {
            keys.set("truncated", true);
        }
        keys.set_some(
            "next_cursor",
            offset_token(&list, first + rows.len(), total),
        );
        keys.0
    })
    .tail(tail)
    .notes(notes)
    .write(Budget::of_answer(arguments.max_tokens))
}

/// The keys before the metrics.
fn head(context: &ToolContext, id: &str, loaded: &LoadedExperiment) -> JsonObject {
    let events = &loaded.data.events;
    let mut head = JsonObject::default();
    head.set("experiment_id", id);
    if let Some(experiment) = &loaded.experiment {
        set_experiment(&mut head, experiment);
    }
    if let Upstream::Site(site) = context.client.upstream() {
        head.set("experiment_url", experiment_url(site.app_base(), id));
    }
    head.set("total_events", events.len());
    let errors = events.iter().filter(|event| event.is_error());
    head.set("error_count", errors.count());
    let distinct = |value: fn(&ExperimentEvent) -> Option<&str>| {
        events
            .iter()
            .filter_map(value)
            .collect::<BTreeSet<_>>()
            .len()
    };
    head.set_unless_empty(
        "records",
        distinct(|event| event.canonical_id().or(event.record_id())),
    );
    head.set_unless_empty("runs", distinct(|event| event.tag("run_iteration")));
    head
}

/// The keys after the metrics.
fn tail(loaded: &LoadedExperiment, include_failed: bool, notes: &mut Notes) -> JsonObject {
    let data = &loaded.data;
    let metrics = data.summary_metrics.iter().take(MAX_SUMMARY_METRICS);
    let metrics: Vec<Value> = metrics.map(summary_metric).collect();
    if data.summary_metrics.len() > metrics.len() {
        notes.add(format!(
            "{} more summary metrics are not shown",
            data.summary_metrics.len() - metrics.len()
        ));
    }
    let dimensions = dimensions(&data.events).into_iter().take(MAX_DIMENSIONS);
    let dimensions: Vec<String> = dimensions
        .map(|dimension| cut_middle(&dimension.key, MAX_DIMENSION_CHARS))
        .collect();
    let mut tail = JsonObject::default();
    tail.set_unless_empty("summary_metrics", metrics);
    tail.set("usage", usage(&data.events, include_failed));
    tail.set("available_dimensions", json!(dimensions));
    tail.set("percentiles", "linear interpolation");
    tail
}

fn usage(events: &[ExperimentEvent], include_failed: bool) -> JsonObject {
    let counted: Vec<&ExperimentEvent> = events
        .iter()
        .filter(|event| include_failed || !event.is_error())
        .collect();
    let durations = counted
        .iter()
        .map(|event| event.span.duration_ns as f64 / 1e6);
    let mut durations: Vec<f64> = durations.collect();
    durations.sort_by(f64::total_cmp);
    let sum = |value: fn(&Usage) -> Option<f64>| {
        let values: Vec<f64> = counted
            .iter()
            .filter_map(|event| value(&event.usage))
            .collect();
        statistic((!values.is_empty()).then(|| values.iter().sum::<f64>()))
    };
    let mut usage = JsonObject::default();
    usage.set("duration_ms_p50", statistic(percentile(&durations, 0.5)));
    usage.set("duration_ms_p95", statistic(percentile(&durations, 0.95)));
    usage.set_unless_empty("input_tokens", sum(|usage| usage.input_tokens));
    usage.set_unless_empty("output_tokens", sum(|usage| usage.output_tokens));
    usage.set_unless_empty("total_tokens", sum(|usage| usage.total_tokens));
    usage.set_unless_empty("cost_usd", sum(|usage| usage.cost_usd));
    usage
}
