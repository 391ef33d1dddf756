//! `list_llmobs_experiment_events`: rows of an experiment, filtered and sorted by what evaluators
//! said.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paged::{Paged, Row};
use super::{Keys, find_dimension, find_label, load, notes_of, number, preview};
use crate::render::{candidate, cut_middle, squeeze};
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::experiment::{dimension_values, dimensions};
use llmobs_core::model::{ExperimentEvent, ExperimentMetric};

pub(super) const NAME: &str = "list_llmobs_experiment_events";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;
const MAX_VALUE: usize = 200;
/// Dimensions that a row names.
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
    experiment_id: Text,
    /// Rows. Default 20, at most 500.
    limit: Option<Count>,
    /// Rows to pass over.
    offset: Option<Count>,
    /// Dimension, such as region or error_type.
    filter_dimension_key: Option<Text>,
    /// Its value; any value without it.
    filter_dimension_value: Option<Text>,
    /// Only events that have this metric.
    filter_metric_label: Option<Text>,
    /// Only events where that metric has this value, e.g. false.
    filter_metric_value: Option<Text>,
    /// Metric to sort by.
    sort_by_metric_label: Option<Text>,
    /// asc or desc (default).
    sort_direction: Option<Text>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let id = &arguments.experiment_id.0;
    check(&arguments)?;
    let loaded = load(context, NAME, id).await?;
    let all = &loaded.data.events;
    let mut notes = notes_of(&loaded);
    let matching = matching(&arguments, all)?;
    let offset = arguments.offset.map_or(0, |count| count.0);
    let limit = arguments.limit.map_or(DEFAULT_LIMIT, |count| count.0);
    if limit > MAX_LIMIT {
        notes.add(format!(
            "limit was brought down to {MAX_LIMIT}; offset leads to the rest"
        ));
    }
    // Dimensions that are the same everywhere tell nothing on a row.
    let telling: Vec<String> = dimensions(all)
        .into_iter()
        .filter(|one| {
            (one.unique > 1 || one.events < all.len())
                && !["run_id", "error"].contains(&one.key.as_str())
        })
        .map(|one| one.key)
        .take(MAX_DIMENSIONS)
        .collect();
    let rows: Vec<Row> = matching
        .iter()
        .skip(offset)
        .take(limit.clamp(1, MAX_LIMIT))
        .map(|event| Row {
            key: String::new(),
            value: row(event, &telling),
            next_cursor: None,
        })
        .collect();
    if rows.is_empty() && !matching.is_empty() {
        notes.add(format!(
            "offset {offset} is behind the last of {} events",
            matching.len()
        ));
    } else if matching.is_empty() && !all.is_empty() {
        notes.add(format!(
            "none of the {} events matches; get_llmobs_experiment_dimension_values and \
             get_llmobs_experiment_metric_values show the values there are",
            all.len()
        ));
    }
    let mut answer = Paged::list(Keys::default(), "events", rows, notes);
    answer.tail.insert("offset".to_owned(), json!(offset));
    answer
        .tail
        .insert("total_matching".to_owned(), json!(matching.len()));
    answer.by_offset().fit(arguments.max_tokens)
}

fn check(arguments: &Arguments) -> Result<(), ToolError> {
    let id = &arguments.experiment_id.0;
    let alone = |value: &Option<Text>, key: &Option<Text>| value.is_some() && key.is_none();
    let (value, key, example) = if alone(
        &arguments.filter_dimension_value,
        &arguments.filter_dimension_key,
    ) {
        (
            "filter_dimension_value",
            "filter_dimension_key",
            "error_type",
        )
    } else if alone(
        &arguments.filter_metric_value,
        &arguments.filter_metric_label,
    ) {
        ("filter_metric_value", "filter_metric_label", "accuracy")
    } else {
        let known = ["asc", "desc"];
        let direction = arguments
            .sort_direction
            .as_ref()
            .map(|text| text.0.to_lowercase());
        if direction
            .as_deref()
            .is_none_or(|text| known.contains(&text))
        {
            return Ok(());
        }
        return Err(ToolError::arguments(
            "sort_direction is neither asc nor desc",
            "send one of the two",
        )
        .example(NAME, json!({"experiment_id": id, "sort_direction": "desc"})));
    };
    Err(ToolError::arguments(
        format!("{value} was sent without {key}"),
        format!("send both, for example {key}: {example}; get_llmobs_experiment_summary names what there is"),
    )
    .example(NAME, json!({"experiment_id": id})))
}

/// The events that all filters let through, in order.
fn matching<'a>(
    arguments: &Arguments,
    all: &'a [ExperimentEvent],
) -> Result<Vec<&'a ExperimentEvent>, ToolError> {
    let id = arguments.experiment_id.0.as_str();
    let mut events: Vec<&ExperimentEvent> = all.iter().collect();
    if let Some(Text(key)) = &arguments.filter_dimension_key {
        let example = Map::from_iter([("experiment_id".to_owned(), json!(candidate(id)))]);
        find_dimension(NAME, "filter_dimension_key", example, all, key)?;
        let wanted = arguments.filter_dimension_value.as_ref();
        events.retain(|event| {
            let values = dimension_values(event, key);
            wanted.map_or(!values.is_empty(), |wanted| {
                values.contains(&wanted.0.as_str())
            })
        });
    }
    if let Some(Text(label)) = &arguments.filter_metric_label {
        find_label(NAME, id, all, label)?;
        let wanted = arguments.filter_metric_value.as_ref();
        events.retain(|event| {
            event.metric(label).is_some_and(|metric| {
                wanted.is_none_or(|wanted| metric.valid_value().is_some_and(|v| is(v, &wanted.0)))
            })
        });
    }
    if let Some(Text(label)) = &arguments.sort_by_metric_label {
        find_label(NAME, id, all, label)?;
        let ascending = arguments
            .sort_direction
            .as_ref()
            .is_some_and(|text| text.0.eq_ignore_ascii_case("asc"));
        events.sort_by(|a, b| by_value(a.metric(label), b.metric(label), ascending));
    } else if arguments
        .sort_direction
        .as_ref()
        .is_some_and(|text| text.0.eq_ignore_ascii_case("desc"))
    {
        events.reverse();
    }
    Ok(events)
}

/// Whether a value is what the caller wrote as text.
fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text.eq_ignore_ascii_case(wanted),
        Value::Number(number) => number
            .as_f64()
            .zip(wanted.parse::<f64>().ok())
            .is_some_and(|(number, wanted)| (number - wanted).abs() <= number.abs() * 1e-9),
        other => other.to_string().eq_ignore_ascii_case(wanted),
    }
}

/// Numbers by size, false before true, words by letters; what has no value comes last either way.
fn by_value(
    a: Option<&ExperimentMetric>,
    b: Option<&ExperimentMetric>,
    ascending: bool,
) -> Ordering {
    let value = |metric: Option<&ExperimentMetric>| metric.and_then(|m| m.valid_value().cloned());
    match (value(a), value(b)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let order = match (rank(&a), rank(&b)) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => a.to_string().cmp(&b.to_string()),
            };
            if ascending { order } else { order.reverse() }
        }
    }
}

fn rank(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64(),
    }
}

fn row(event: &ExperimentEvent, telling: &[String]) -> Value {
    let span = &event.span;
    let mut keys = Keys::default();
    keys.put("id", span.span_id.as_str());
    keys.put("trace_id", span.trace_id.as_str());
    keys.put("status", span.status.as_str());
    keys.put("duration_ms", number(span.duration_ns as f64 / 1e6));
    let metrics: Map<String, Value> = event
        .metrics
        .iter()
        .map(|metric| {
            let value = metric
                .valid_value()
                .map_or(Value::Null, |value| match value.as_f64() {
                    Some(value) => number(value),
                    None => squeeze(value, MAX_VALUE).0,
                });
            (metric.label.clone(), value)
        })
        .collect();
    keys.put("metrics", metrics);
    let shown: Map<String, Value> = telling
        .iter()
        .filter_map(|key| {
            let value = dimension_values(event, key)
                .first()
                .map(|value| cut_middle(value, MAX_VALUE))?;
            Some((key.clone(), Value::from(value)))
        })
        .collect();
    keys.put("dimensions", shown);
    keys.some("input_preview", span.input.as_ref().map(preview));
    keys.some("output_preview", span.output.as_ref().map(preview));
    keys.some(
        "expected_output_preview",
        span.expected_output.as_ref().map(preview),
    );
    keys.into()
}
