//! `get_llmobs_experiment_metric_values`: one metric, over all events and by segment.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paged::{Paged, counted};
use super::stats::{Form, stats};
use super::summary::summary_metric;
use super::{Keys, find_dimension, find_label, load, notes_of};
use crate::render::{candidate, cut_middle};
use crate::tools::answer::read_offset;
use crate::tools::args::{self, Count, Flag, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{dimension_values, metric_stats};
use llmobs_core::model::ExperimentEvent;

pub(super) const NAME: &str = "get_llmobs_experiment_metric_values";

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
    experiment_id: Text,
    /// Metric label.
    metric_label: Text,
    /// Dimension to divide by.
    segment_by_dimension: Option<Text>,
    /// Only this value of it.
    segment_dimension_value: Option<Text>,
    /// Count events whose task failed too.
    include_failed: Option<Flag>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer: more segments.
    cursor: Option<Text>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, label) = (&arguments.experiment_id.0, &arguments.metric_label.0);
    let text = |value: &Option<Text>| value.as_ref().map_or("", |text| text.0.as_str()).to_owned();
    let (dimension, wanted) = (
        text(&arguments.segment_by_dimension),
        text(&arguments.segment_dimension_value),
    );
    let include_failed = arguments.include_failed.is_some_and(|flag| flag.0);
    let base = json!({"experiment_id": candidate(id), "metric_label": candidate(label)});
    let base = base.as_object().cloned().unwrap_or_default();
    if dimension.is_empty() && !wanted.is_empty() {
        return Err(ToolError::arguments(
            "segment_dimension_value was sent without segment_by_dimension",
            "send both; available_dimensions of get_llmobs_experiment_summary names what there is",
        )
        .example(NAME, Value::Object(base)));
    }
    let failed = if include_failed { "all" } else { "" };
    let question = [
        id.as_str(),
        label,
        dimension.as_str(),
        wanted.as_str(),
        failed,
    ];
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let first = read_offset(NAME, cursor, &question, || Value::Object(base.clone()))?;
    let loaded = load(context, NAME, id).await?;
    let events = &loaded.data.events;
    let about_all: Vec<Value> = loaded
        .data
        .summary_metrics
        .iter()
        .filter(|metric| metric.label == *label)
        .map(summary_metric)
        .collect();
    let mut notes = notes_of(&loaded);
    let info = match find_label(NAME, id, events, label) {
        Ok(info) => info,
        Err(_) if !about_all.is_empty() => {
            let mut head = Keys::default();
            head.put("metric_label", label.as_str());
            head.put("total_events", events.len());
            head.put("overall", Value::Null);
            head.put("summary_metrics", about_all);
            notes.add("this metric is about the whole experiment: no event has a value of its own");
            return Paged::list(head, "segments", Vec::new(), notes).fit(arguments.max_tokens);
        }
        Err(error) => return Err(error),
    };

    let mut head = Keys::default();
    head.put("metric_label", label.as_str());
    head.put("metric_type", info.metric_type.as_str());
    head.put("total_events", events.len());
    let overall = metric_stats(events, &info, include_failed);
    if overall.failed_left_out > 0 {
        notes.add(format!(
            "{} events whose task failed are left out; include_failed: true counts them",
            overall.failed_left_out
        ));
    }
    head.put("overall", stats(&info, &overall, Form::Full));
    head.some("summary_metrics", about_all);
    let mut rows = Vec::new();
    if !dimension.is_empty() {
        find_dimension(
            NAME,
            "segment_by_dimension",
            base.clone(),
            events,
            &dimension,
        )?;
        let (groups, without) = segments(events, &dimension);
        if !wanted.is_empty() && !groups.contains_key(wanted.as_str()) {
            return Err(no_such_value(
                base,
                &dimension,
                &wanted,
                groups.keys().copied(),
            ));
        }
        if without > 0 {
            notes.add(format!("{without} events have no value of this dimension"));
        }
        let mut found: Vec<(&str, Vec<&ExperimentEvent>)> = groups.into_iter().collect();
        found.retain(|(value, _)| wanted.is_empty() || *value == wanted);
        found.sort_by_key(|(_, members)| Reverse(members.len()));
        rows = found
            .into_iter()
            .map(|(value, members)| {
                let found = metric_stats(members.iter().copied(), &info, include_failed);
                let row = json!({"dimension_value": cut_middle(value, 200), "events": members.len(),
                    "stats": stats(&info, &found, Form::Full)});
                (String::new(), row)
            })
            .collect();
        head.put("segment_by_dimension", dimension.as_str());
        head.put("total_segments", rows.len());
    }
    Paged::list(head, "segments", counted(rows, first, &question), notes).fit(arguments.max_tokens)
}

/// The events of each value, and how many events have none.
fn segments<'a>(
    events: &'a [ExperimentEvent],
    dimension: &str,
) -> (BTreeMap<&'a str, Vec<&'a ExperimentEvent>>, usize) {
    let mut groups: BTreeMap<&str, Vec<&ExperimentEvent>> = BTreeMap::new();
    let mut without = 0;
    for event in events {
        let values = dimension_values(event, dimension);
        without += usize::from(values.is_empty());
        for value in values {
            groups.entry(value).or_default().push(event);
        }
    }
    (groups, without)
}

fn no_such_value<'a>(
    mut example: Map<String, Value>,
    dimension: &str,
    wanted: &str,
    known: impl Iterator<Item = &'a str>,
) -> ToolError {
    example.insert(
        "segment_by_dimension".to_owned(),
        json!(candidate(dimension)),
    );
    ToolError::new(
        Some(404),
        format!(
            "no event has the value {} in this dimension",
            candidate(wanted)
        ),
        "`candidates` holds values that exist, the nearest first; without segment_dimension_value \
         all are shown",
    )
    .example(NAME, Value::Object(example))
    .candidates(rank(wanted, known))
}
