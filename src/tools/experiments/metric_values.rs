//! `get_llmobs_experiment_metric_values`: one metric, over all events and by segment.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::{check_dimension, experiment_notes, find_label, load};
use super::objects::{MAX_NAME_CHARS, summary_metric};
use super::stats::{KeyNames, stats};
use crate::render::{Budget, candidate, cut_middle};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{LabelInfo, dimension_values, metric_stats};
use llmobs_core::model::ExperimentEvent;

const NAME: &str = "get_llmobs_experiment_metric_values";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment metric values",
    description: "Statistics of one evaluator metric of an LLM experiment: count, mean, percentiles \
        (linear interpolation), true rate or value counts, overall and, with segment_by_dimension, \
        for each value of a dimension (region, model, error_type …), to find where quality is \
        low. run_iteration as dimension compares the runs.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Metric label.
    metric_label: String,
    /// Dimension to segment by.
    segment_by_dimension: Option<String>,
    /// Only the segment with this value.
    segment_dimension_value: Option<String>,
    /// Include events whose task failed in the statistics.
    include_failed: Option<bool>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
    /// next_cursor of the previous answer: more segments.
    cursor: Option<String>,
}

impl Arguments {
    /// The arguments without segments.
    fn base(&self) -> Map<String, Value> {
        let id = json!(candidate(&self.experiment_id));
        let label = json!(candidate(&self.metric_label));
        Map::from_iter([
            ("experiment_id".to_owned(), id),
            ("metric_label".to_owned(), label),
        ])
    }

    /// Refuses the value of a segment without its dimension.
    fn check(&self) -> Result<(), ToolError> {
        if self.segment_by_dimension.is_some() || self.segment_dimension_value.is_none() {
            return Ok(());
        }
        Err(ToolError::arguments(
            "segment_dimension_value needs segment_by_dimension",
            "send both; available_dimensions of get_llmobs_experiment_summary lists the dimensions",
        )
        .example(NAME, Value::Object(self.base())))
    }

    fn list_request(&self) -> ListRequest {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let parts = [
            self.experiment_id.clone(),
            self.metric_label.clone(),
            text(&self.segment_by_dimension),
            text(&self.segment_dimension_value),
            self.include_failed.unwrap_or(false).to_string(),
        ];
        ListRequest::new(NAME, parts, Value::Object(self.base()))
    }
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, label) = (&arguments.experiment_id, &arguments.metric_label);
    arguments.check()?;
    let list = arguments.list_request();
    let first = list.offset(arguments.cursor.as_deref())?;
    let budget = Budget::of_answer(arguments.max_tokens);
    let example = |id: &str| Some(json!({"experiment_id": id, "metric_label": candidate(label)}));
    let loaded = load(context, NAME, id, example).await?;
    let events = &loaded.data.events;
    let summary_metrics = loaded.data.summary_metrics.iter();
    let summary_metrics: Vec<Value> = summary_metrics
        .filter(|metric| metric.label == *label)
        .map(summary_metric)
        .collect();
    let mut notes = experiment_notes(&loaded);
    let mut head = JsonObject::default();
    head.set("metric_label", label.as_str());
    let info = find_label(NAME, id, events, label, |near| {
        Some(json!({"experiment_id": id, "metric_label": near}))
    });
    let info = match info {
        Ok(info) => info,
        Err(_) if !summary_metrics.is_empty() => {
            head.set("total_events", events.len());
            head.set("overall", Value::Null);
            head.set("summary_metrics", summary_metrics);
            notes.add("this metric is about the experiment as a whole: events have no value of it");
            return Page::list(head, "segments", Vec::new())
                .next_cursor(|_| None)
                .notes(notes)
                .write(budget);
        }
        Err(error) => return Err(error),
    };
    head.set("metric_type", info.metric_type.as_str());
    head.set("total_events", events.len());
    let include_failed = arguments.include_failed.unwrap_or(false);
    let overall = metric_stats(events, &info, include_failed);
    if overall.failed_left_out > 0 {
        notes.add(format!(
            "{} events whose task failed are excluded; include_failed: true includes them",
            overall.failed_left_out
        ));
    }
    head.set("overall", stats(&info, &overall, KeyNames::Metric));
    head.set_unless_empty("summary_metrics", summary_metrics);
    let mut rows = Vec::new();
    if let Some(dimension) = &arguments.segment_by_dimension {
        rows = segment_rows(&arguments, dimension, events, &info, &mut notes)?;
        head.set("segment_by_dimension", dimension.as_str());
        head.set("total_segments", rows.len());
    }
    let total = rows.len();
    let rows = rows.into_iter().skip(first).collect();
    Page::list(head, "segments", rows)
        .next_offset(&list, first, total)
        .notes(notes)
        .write(budget)
}

/// The statistics of each segment, largest first.
fn segment_rows(
    arguments: &Arguments,
    dimension: &str,
    events: &[ExperimentEvent],
    info: &LabelInfo,
    notes: &mut Notes,
) -> Result<Vec<JsonObject>, ToolError> {
    let mut example = arguments.base();
    let argument = "segment_by_dimension";
    check_dimension(NAME, argument, example.clone(), events, dimension)?;
    let (segments, without_value) = segments(events, dimension);
    let value = arguments.segment_dimension_value.as_deref();
    if let Some(value) = value
        && !segments.contains_key(value)
    {
        example.insert(argument.to_owned(), json!(candidate(dimension)));
        return Err(ToolError::new(
            Some(404),
            format!(
                "no event has the value {} in this dimension",
                candidate(value)
            ),
            "`candidates` lists existing values, nearest first; without segment_dimension_value \
             all segments are shown",
        )
        .example(NAME, Value::Object(example))
        .candidates(rank(value, segments.keys().copied())));
    }
    if without_value > 0 {
        notes.add(format!(
            "{without_value} events have no value of this dimension"
        ));
    }
    let mut segments: Vec<(&str, Vec<&ExperimentEvent>)> = segments.into_iter().collect();
    segments.retain(|(segment, _)| value.is_none_or(|value| value == *segment));
    segments.sort_by_key(|(_, events)| Reverse(events.len()));
    let include_failed = arguments.include_failed.unwrap_or(false);
    let rows = segments.into_iter().map(|(value, events)| {
        let found = metric_stats(events.iter().copied(), info, include_failed);
        let mut row = JsonObject::default();
        row.set("dimension_value", cut_middle(value, MAX_NAME_CHARS));
        row.set("events", events.len());
        row.set("stats", stats(info, &found, KeyNames::Metric));
        row
    });
    Ok(rows.collect())
}

/// The events with each value, and the number of events without a value.
fn segments<'a>(
    events: &'a [ExperimentEvent],
    dimension: &str,
) -> (BTreeMap<&'a str, Vec<&'a ExperimentEvent>>, usize) {
    let mut segments: BTreeMap<&str, Vec<&ExperimentEvent>> = BTreeMap::new();
    let mut without_value = 0;
    for event in events {
        let values = dimension_values(event, dimension);
        without_value += usize::from(values.is_empty());
        for value in values {
            segments.entry(value).or_default().push(event);
        }
    }
    (segments, without_value)
}
