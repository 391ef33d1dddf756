//! `get_llmobs_experiment_summary`: where the analysis of an experiment starts.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paged::{Paged, counted};
use super::stats::{Form, stats};
use super::{Keys, load, notes_of, number};
use crate::render::{cut_middle, experiment_url, squeeze};
use crate::tools::answer::read_offset;
use crate::tools::args::{self, Count, Flag, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::Upstream;
use llmobs_core::analysis::experiment::{dimensions, metric_labels, metric_stats, percentile};
use llmobs_core::model::{Experiment, ExperimentEvent, ExperimentMetric, Usage};

pub(super) const NAME: &str = "get_llmobs_experiment_summary";
const MAX_CONFIG: usize = 1_200;
const MAX_REASONING: usize = 300;
const MAX_SUMMARY_METRICS: usize = 60;
const MAX_DIMENSIONS: usize = 60;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment summary",
    description: "Start here to analyse an LLM experiment: events (one per dataset record and run), \
        task errors, statistics of each evaluator metric (score, boolean, categorical, json), \
        summary metrics, latency, tokens, cost, and the dimensions to segment by (most useful \
        first). Events whose task failed are left out of metric statistics and counted.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: Text,
    /// Count events whose task failed too.
    include_failed: Option<Flag>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer: more metrics.
    cursor: Option<Text>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let id = &arguments.experiment_id.0;
    let include_failed = arguments.include_failed.is_some_and(|flag| flag.0);
    let question = [id.as_str(), if include_failed { "all" } else { "" }];
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let first = read_offset(NAME, cursor, &question, || json!({"experiment_id": id}))?;
    let loaded = load(context, NAME, id).await?;
    let events = &loaded.data.events;
    let mut notes = notes_of(&loaded);

    let mut head = Keys::default();
    head.put("experiment_id", id.as_str());
    if let Some(experiment) = &loaded.experiment {
        describe(&mut head, experiment);
    }
    if let Upstream::Site(site) = context.client.upstream() {
        head.put("experiment_url", experiment_url(site.app_base(), id));
    }
    head.put("total_events", events.len());
    head.put(
        "error_count",
        events.iter().filter(|event| event.is_error()).count(),
    );
    let different = |key: fn(&ExperimentEvent) -> Option<&str>| {
        events.iter().filter_map(key).collect::<BTreeSet<_>>().len()
    };
    head.some(
        "records",
        different(|event| event.canonical_id().or(event.record_id())),
    );
    head.some("runs", different(|event| event.tag("run_iteration")));

    let known = metric_labels(events);
    let rows = known
        .iter()
        .map(|info| {
            let found = metric_stats(events, info, include_failed);
            (info.label.clone(), stats(info, &found, Form::Summary))
        })
        .collect();
    let left_out = events.iter().filter(|event| event.is_error()).count();
    if left_out > 0 && !include_failed && !known.is_empty() {
        notes.add(format!(
            "{left_out} events whose task failed are left out of the metrics; include_failed: true counts them"
        ));
    }
    let mut answer = Paged::map(head, "evals", counted(rows, first, &question), notes);
    let mut tail = Keys::default();
    let summary: Vec<Value> = loaded
        .data
        .summary_metrics
        .iter()
        .take(MAX_SUMMARY_METRICS)
        .map(summary_metric)
        .collect();
    if loaded.data.summary_metrics.len() > summary.len() {
        answer.notes.add(format!(
            "{} more summary metrics are not shown",
            loaded.data.summary_metrics.len() - summary.len()
        ));
    }
    tail.some("summary_metrics", summary);
    tail.put("usage", usage(events, include_failed));
    let keys: Vec<String> = dimensions(events)
        .into_iter()
        .take(MAX_DIMENSIONS)
        .map(|dimension| cut_middle(&dimension.key, 120))
        .collect();
    tail.put("available_dimensions", keys);
    tail.put("percentiles", "linear interpolation");
    answer.tail = tail.0;
    answer.fit(arguments.max_tokens)
}

/// What the control plane says of an experiment.
pub(super) fn describe(head: &mut Keys, experiment: &Experiment) {
    head.some("name", cut_middle(&experiment.name, 200));
    let text = |value: &Option<String>| value.as_ref().map(|text| cut_middle(text, 1_000));
    head.some("experiment", text(&experiment.experiment));
    head.some("description", text(&experiment.description));
    head.some("status", text(&experiment.status));
    head.some("error", text(&experiment.error));
    head.some("project_id", text(&experiment.project_id));
    head.some("dataset_id", text(&experiment.dataset_id));
    head.put("dataset_version", experiment.dataset_version);
    head.some("run_count", experiment.run_count);
    head.some(
        "parent_experiment_id",
        text(&experiment.parent_experiment_id),
    );
    head.some("created_at", text(&experiment.created_at));
    let config = Value::Object(experiment.config.clone());
    head.some("config", squeeze(&config, MAX_CONFIG).0);
}

/// A metric about the whole experiment.
pub(super) fn summary_metric(metric: &ExperimentMetric) -> Value {
    let mut keys = Keys::default();
    keys.put("label", cut_middle(&metric.label, 200));
    keys.put("metric_type", metric.metric_type.as_str());
    keys.put(
        "value",
        metric
            .valid_value()
            .map(|value| squeeze(value, MAX_CONFIG).0),
    );
    for name in ["run_iteration", "iteration"] {
        let tag = metric
            .tags
            .iter()
            .find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':'));
        keys.some(name, tag.map(|tag| cut_middle(tag, 120)));
    }
    keys.some("assessment", metric.assessment.map(|found| found.as_str()));
    let reasoning = metric.reasoning.as_ref();
    keys.some(
        "reasoning",
        reasoning.map(|text| cut_middle(text, MAX_REASONING)),
    );
    let error = metric.error.as_ref();
    keys.some("error", error.map(|error| squeeze(error, MAX_REASONING).0));
    keys.into()
}

fn usage(events: &[ExperimentEvent], include_failed: bool) -> Value {
    let counted: Vec<&ExperimentEvent> = events
        .iter()
        .filter(|event| include_failed || !event.is_error())
        .collect();
    let mut durations: Vec<f64> = counted
        .iter()
        .map(|event| event.span.duration_ns as f64 / 1e6)
        .collect();
    durations.sort_by(f64::total_cmp);
    let mut keys = Keys::default();
    keys.put("duration_ms_p50", number(percentile(&durations, 0.5)));
    keys.put("duration_ms_p95", number(percentile(&durations, 0.95)));
    let sum = |pick: fn(&Usage) -> Option<f64>| {
        let values: Vec<f64> = counted
            .iter()
            .filter_map(|event| pick(&event.usage))
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>())
    };
    keys.some("input_tokens", number(sum(|usage| usage.input_tokens)));
    keys.some("output_tokens", number(sum(|usage| usage.output_tokens)));
    keys.some("total_tokens", number(sum(|usage| usage.total_tokens)));
    keys.some("cost_usd", number(sum(|usage| usage.cost_usd)));
    keys.into()
}
