//! `submit_llmobs_experiment_events`: appends metrics to an experiment.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::write_error;
use crate::render::{Budget, candidate};
use crate::tools::answer::Notes;
use crate::tools::args::{self, ObjectList, Tags};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::model::{Assessment, MetricType};

const NAME: &str = "submit_llmobs_experiment_events";
const MAX_METRICS: usize = 1_000;
const METRIC_KEYS: [&str; 14] = [
    "label",
    "metric_type",
    "score_value",
    "boolean_value",
    "categorical_value",
    "json_value",
    "reasoning",
    "assessment",
    "timestamp_ms",
    "tags",
    "span_id",
    "trace_id",
    "metadata",
    "error",
];
const METRIC_TYPES: [MetricType; 4] = [
    MetricType::Score,
    MetricType::Boolean,
    MetricType::Categorical,
    MetricType::Json,
];

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Submit experiment metrics",
    description: "Append metrics to an LLM experiment, about one event (span_id) or the whole \
        experiment. Each: label, metric_type (score, boolean, categorical, json), the value under \
        <type>_value, optionally assessment (pass, fail), reasoning, timestamp_ms, tags. Nothing is \
        overwritten; readers use the newest metric of a label.",
    toolset: "llmobs",
    access: Access::Write {
        destructive: false,
        idempotent: false,
    },
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Metrics.
    metrics: ObjectList,
    /// Tags for all of them.
    tags: Option<Tags>,
}

fn example(id: &str) -> Value {
    json!({"experiment_id": candidate(id), "metrics": [{"label": "accuracy", "metric_type": "score", "score_value": 0.9}]})
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse_strict(NAME, arguments, example("<experiment id>"))?;
    let id = arguments.experiment_id;
    if arguments.metrics.len() > MAX_METRICS {
        return Err(ToolError::arguments(
            format!("more than {MAX_METRICS} metrics in one call; nothing was written"),
            "send them in several calls",
        )
        .example(NAME, example(&id)));
    }
    let mut metrics = Vec::new();
    for (index, row) in arguments.metrics.0.into_iter().enumerate() {
        let metric = read_metric(row, context.now_ms).map_err(|problem| {
            ToolError::arguments(
                format!("metrics[{index}] {problem}; nothing was written"),
                "a metric has label, metric_type and its value under <metric_type>_value",
            )
            .example(NAME, example(&id))
        })?;
        metrics.push(metric);
    }
    let count = metrics.len();
    let tags = arguments.tags.unwrap_or_default().texts();
    let written = context.client.push_metrics(&id, metrics, &tags).await;
    written.map_err(|error| {
        let hint = "create_llmobs_experiment creates an experiment; list_llmobs_experiments lists \
                    existing ones";
        write_error(error, &id, hint)
    })?;
    let mut answer = JsonObject::default();
    answer.set("experiment_id", id);
    answer.set("metrics_ingested", count);
    answer.set("status", "ok");
    write_object(answer, &Notes::default(), Budget::of_answer(None))
}

/// A metric in its wire form, or the problem with it.
fn read_metric(mut row: Map<String, Value>, now_ms: i64) -> Result<Value, String> {
    row.retain(|_, value| !value.is_null());
    if let Some(problem) = args::unknown_key(&row, &METRIC_KEYS) {
        return Err(problem);
    }
    match row.get("label").and_then(Value::as_str) {
        None | Some("") => return Err("has no label".to_owned()),
        Some(label) if label.contains('.') => {
            return Err("has a label with a dot, which labels must not contain".to_owned());
        }
        Some(_) => {}
    }
    let metric_type = read_type(&row)?;
    let key = value_key(metric_type);
    let valid = match (metric_type, row.get(&key)) {
        (_, None) => row.contains_key("error"),
        (MetricType::Score, Some(value)) => value.is_number(),
        (MetricType::Boolean, Some(value)) => value.is_boolean(),
        (MetricType::Categorical, Some(value)) => value.is_string(),
        (_, Some(value)) => value.is_object(),
    };
    if !valid {
        let expected = match metric_type {
            MetricType::Score => "a number",
            MetricType::Boolean => "true or false",
            MetricType::Categorical => "text",
            _ => "an object",
        };
        return Err(format!("needs {key}: {expected}"));
    }
    if let Some(text) = row.get("assessment")
        && text.as_str().and_then(Assessment::from_wire).is_none()
    {
        return Err("has an assessment other than pass or fail".to_owned());
    }
    row.insert("metric_type".to_owned(), metric_type.as_str().into());
    row.entry("timestamp_ms").or_insert(now_ms.into());
    Ok(Value::Object(row))
}

/// The type that a metric names, or the type of its only value.
fn read_type(row: &Map<String, Value>) -> Result<MetricType, String> {
    let with_value = |metric_type: &MetricType| row.contains_key(&value_key(*metric_type));
    let of_values: Vec<MetricType> = METRIC_TYPES.into_iter().filter(with_value).collect();
    let named = row.get("metric_type").and_then(Value::as_str);
    let metric_type = match (named, of_values.as_slice()) {
        (Some(name), _) => METRIC_TYPES
            .into_iter()
            .find(|metric_type| metric_type.as_str() == name)
            .ok_or("has a metric_type other than score, boolean, categorical, json")?,
        (None, [only]) => *only,
        (None, _) => return Err("has no metric_type".to_owned()),
    };
    if of_values.iter().any(|other| *other != metric_type) {
        return Err(format!(
            "has a value of another type than its metric_type: send {} only",
            value_key(metric_type)
        ));
    }
    Ok(metric_type)
}

fn value_key(metric_type: MetricType) -> String {
    format!("{}_value", metric_type.as_str())
}
