//! `list_llmobs_experiment_events`: events of an experiment, filtered and sorted by dimensions and
//! metrics.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::{check_dimension, experiment_notes, find_label, id_example, load};
use crate::render::{Budget, candidate, cut_middle, squeeze};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::{JsonObject, preview, statistic};
use crate::tools::page::Page;
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::experiment::{dimension_values, dimensions};
use llmobs_core::model::{ExperimentEvent, ExperimentMetric};

const NAME: &str = "list_llmobs_experiment_events";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;
const MAX_VALUE_CHARS: usize = 200;
/// Dimensions of a row.
const MAX_DIMENSIONS: usize = 12;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "List experiment events",
    description: "List the events (one dataset record run each) of an LLM experiment with metric \
        values, dimensions and previews of input and output. Filter by dimension or metric, sort \
        by a metric to see the worst rows; page with offset until offset + returned reaches \
        total_matching. Then read one with get_llmobs_experiment_event.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Rows. Default 20, at most 500.
    limit: Option<usize>,
    /// Rows to skip.
    offset: Option<usize>,
    /// Dimension, such as region or error_type.
    filter_dimension_key: Option<String>,
    /// Value of that dimension; without it, any value matches.
    filter_dimension_value: Option<String>,
    /// Only events that have this metric.
    filter_metric_label: Option<String>,
    /// Only events where that metric has this value, e.g. false.
    filter_metric_value: Option<String>,
    /// Metric to sort by.
    sort_by_metric_label: Option<String>,
    /// asc or desc (default).
    sort_direction: Option<String>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    arguments.check()?;
    let id = arguments.experiment_id.as_str();
    let loaded = load(context, NAME, id, |id| Some(id_example(id))).await?;
    let all = &loaded.data.events;
    let mut notes = experiment_notes(&loaded);
    let matching = matching_events(&arguments, all)?;
    let offset = arguments.offset.unwrap_or(0);
    let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT);
    if limit > MAX_LIMIT {
        notes.add(format!(
            "`limit` was reduced to the maximum of {MAX_LIMIT}; use offset for the remaining rows"
        ));
    }
    let dimensions = varying_dimensions(all);
    let page = matching.iter().skip(offset).take(limit.clamp(1, MAX_LIMIT));
    let rows: Vec<JsonObject> = page.map(|event| row(event, &dimensions)).collect();
    if rows.is_empty() && !matching.is_empty() {
        notes.add(format!(
            "offset {offset} is after the last of {} events",
            matching.len()
        ));
    } else if matching.is_empty() && !all.is_empty() {
        notes.add(format!(
            "none of the {} events matches; get_llmobs_experiment_dimension_values and \
             get_llmobs_experiment_metric_values list existing values",
            all.len()
        ));
    }
    let mut tail = JsonObject::default();
    tail.set("offset", offset);
    tail.set("total_matching", matching.len());
    Page::list(JsonObject::default(), "events", rows)
        .tail(tail)
        .notes(notes)
        .write(Budget::of_answer(arguments.max_tokens))
}

impl Arguments {
    /// Refuses a value without its key, and an unknown direction.
    fn check(&self) -> Result<(), ToolError> {
        let id = &self.experiment_id;
        let pairs = [
            (
                ("filter_dimension_value", &self.filter_dimension_value),
                ("filter_dimension_key", &self.filter_dimension_key),
                "error_type",
            ),
            (
                ("filter_metric_value", &self.filter_metric_value),
                ("filter_metric_label", &self.filter_metric_label),
                "accuracy",
            ),
        ];
        for ((value_name, value), (key_name, key), example) in pairs {
            if value.is_some() && key.is_none() {
                return Err(ToolError::arguments(
                    format!("{value_name} needs {key_name}"),
                    format!(
                        "send both, for example {key_name}: {example}; \
                         get_llmobs_experiment_summary lists dimensions and metrics"
                    ),
                )
                .example(NAME, id_example(id)));
            }
        }
        let direction = self.sort_direction.as_ref().map(|text| text.to_lowercase());
        if direction.is_some_and(|direction| direction != "asc" && direction != "desc") {
            return Err(ToolError::arguments(
                "sort_direction must be asc or desc",
                "desc (the default) shows the highest values first",
            )
            .example(NAME, json!({"experiment_id": id, "sort_direction": "desc"})));
        }
        Ok(())
    }

    fn sorts(&self, direction: &str) -> bool {
        let text = self.sort_direction.as_ref();
        text.is_some_and(|text| text.eq_ignore_ascii_case(direction))
    }
}

/// Dimensions whose value differs between events. The others do not distinguish rows.
fn varying_dimensions(events: &[ExperimentEvent]) -> Vec<String> {
    dimensions(events)
        .into_iter()
        .filter(|dimension| {
            (dimension.unique > 1 || dimension.events < events.len())
                && !["run_id", "error"].contains(&dimension.key.as_str())
        })
        .map(|dimension| dimension.key)
        .take(MAX_DIMENSIONS)
        .collect()
}

/// The events that match all filters, sorted.
fn matching_events<'a>(
    arguments: &Arguments,
    all: &'a [ExperimentEvent],
) -> Result<Vec<&'a ExperimentEvent>, ToolError> {
    let id = arguments.experiment_id.as_str();
    let check_label = |label: &str| {
        find_label(NAME, id, all, label, |near| {
            Some(json!({"experiment_id": id, "filter_metric_label": near}))
        })
    };
    let mut events: Vec<&ExperimentEvent> = all.iter().collect();
    if let Some(key) = &arguments.filter_dimension_key {
        let example = Map::from_iter([("experiment_id".to_owned(), json!(candidate(id)))]);
        check_dimension(NAME, "filter_dimension_key", example, all, key)?;
        let wanted = arguments.filter_dimension_value.as_deref();
        events.retain(|event| {
            let values = dimension_values(event, key);
            wanted.map_or(!values.is_empty(), |wanted| values.contains(&wanted))
        });
    }
    if let Some(label) = &arguments.filter_metric_label {
        check_label(label)?;
        let wanted = arguments.filter_metric_value.as_deref();
        events.retain(|event| {
            event.metric(label).is_some_and(|metric| {
                let value = metric.valid_value();
                wanted.is_none_or(|wanted| value.is_some_and(|value| equals(value, wanted)))
            })
        });
    }
    if let Some(label) = &arguments.sort_by_metric_label {
        check_label(label)?;
        let ascending = arguments.sorts("asc");
        events.sort_by(|a, b| compare_values(a.metric(label), b.metric(label), ascending));
    } else if arguments.sorts("desc") {
        events.reverse();
    }
    Ok(events)
}

/// Whether a value equals the text that a caller sent for it.
fn equals(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value.eq_ignore_ascii_case(text),
        Value::Number(number) => number
            .as_f64()
            .zip(text.parse::<f64>().ok())
            .is_some_and(|(a, b)| (a - b).abs() <= a.abs() * 1e-9),
        other => other.to_string().eq_ignore_ascii_case(text),
    }
}

/// Orders numbers by size, false before true, text alphabetically. Events without a value are last
/// in both directions.
fn compare_values(
    a: Option<&ExperimentMetric>,
    b: Option<&ExperimentMetric>,
    ascending: bool,
) -> Ordering {
    let a = a.and_then(ExperimentMetric::valid_value);
    let b = b.and_then(ExperimentMetric::valid_value);
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let order = match (as_number(a), as_number(b)) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => a.to_string().cmp(&b.to_string()),
            };
            if ascending { order } else { order.reverse() }
        }
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64(),
    }
}

fn row(event: &ExperimentEvent, dimensions: &[String]) -> JsonObject {
    let span = &event.span;
    let metrics: Map<String, Value> = event
        .metrics
        .iter()
        .map(|metric| {
            let value = metric.valid_value();
            let value = value.map_or(Value::Null, |value| match value.as_f64() {
                Some(value) => statistic(value),
                None => squeeze(value, MAX_VALUE_CHARS).0,
            });
            (metric.label.clone(), value)
        })
        .collect();
    let dimensions: Map<String, Value> = dimensions
        .iter()
        .filter_map(|key| {
            let value = *dimension_values(event, key).first()?;
            Some((key.clone(), cut_middle(value, MAX_VALUE_CHARS).into()))
        })
        .collect();
    let mut row = JsonObject::default();
    row.set("id", span.span_id.as_str());
    row.set("trace_id", span.trace_id.as_str());
    row.set("status", span.status.as_str());
    row.set("duration_ms", statistic(span.duration_ns as f64 / 1e6));
    row.set("metrics", metrics);
    row.set("dimensions", dimensions);
    for (key, value) in [
        ("input_preview", &span.input),
        ("output_preview", &span.output),
        ("expected_output_preview", &span.expected_output),
    ] {
        row.set_unless_empty(key, value.as_ref().map(preview));
    }
    row
}
