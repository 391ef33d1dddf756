//! `submit_llmobs_experiment_events`: appends metrics to an experiment.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use super::paged::Single;
use crate::render::candidate;
use crate::tools::answer::Notes;
use crate::tools::args::{self, Objects, Tags, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::ClientError;
use llmobs_core::analysis::candidates::closest;
use llmobs_core::model::{Assessment, MetricType};

const NAME: &str = "submit_llmobs_experiment_events";
const MOST_METRICS: usize = 1_000;
const FIELDS: [&str; 14] = [
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
const TYPES: [MetricType; 4] = [
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
        overwritten; readers take the newest of a label.",
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
    experiment_id: Text,
    /// Metrics.
    metrics: Objects,
    /// Tags for all of them.
    tags: Option<Tags>,
}

fn example(id: &str) -> Value {
    json!({"experiment_id": candidate(id), "metrics": [{"label": "accuracy", "metric_type": "score", "score_value": 0.9}]})
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse_strict(NAME, arguments, example("<experiment id>"))?;
    let id = arguments.experiment_id.0;
    if arguments.metrics.0.len() > MOST_METRICS {
        return Err(ToolError::arguments(
            format!("more than {MOST_METRICS} metrics at once; nothing was written"),
            "send them in several calls",
        )
        .example(NAME, example(&id)));
    }
    let mut metrics = Vec::new();
    for (at, row) in arguments.metrics.0.into_iter().enumerate() {
        let metric = metric(row, context.now_ms).map_err(|what| {
            ToolError::arguments(
                format!("metrics[{at}] {what}; nothing was written"),
                "a metric holds label, metric_type and its value under <metric_type>_value",
            )
            .example(NAME, example(&id))
        })?;
        metrics.push(metric);
    }
    let count = metrics.len();
    let tags: Vec<String> = arguments
        .tags
        .iter()
        .flat_map(|tags| &tags.0)
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    match context.client.push_metrics(&id, metrics, &tags).await {
        Ok(()) => {}
        Err(ClientError::ExperimentNotFound(_)) => {
            return Err(ToolError::new(
                Some(404),
                format!(
                    "experiment not found: {}; nothing was written",
                    candidate(&id)
                ),
                "create_llmobs_experiment makes one; list_llmobs_experiments shows those there are",
            )
            .example("list_llmobs_projects", json!({})));
        }
        Err(error) => return Err(error.into()),
    }
    let mut keys = Keys::default();
    keys.put("experiment_id", id);
    keys.put("metrics_ingested", count);
    keys.put("status", "ok");
    Single::fit(keys, &Notes::default(), None)
}

/// A metric as the wire wants it, or what is wrong with it, in our words.
fn metric(mut row: Map<String, Value>, now_ms: i64) -> Result<Value, String> {
    row.retain(|_, value| !value.is_null());
    if let Some(key) = row.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        let meant = closest(key, FIELDS);
        let meant = meant.map_or(String::new(), |meant| {
            format!("; `{meant}` was probably meant")
        });
        return Err(format!("has the unknown key `{}`{meant}", candidate(key)));
    }
    match row.get("label").and_then(Value::as_str) {
        None | Some("") => return Err("has no label".to_owned()),
        Some(label) if label.contains('.') => {
            return Err("has a label with a dot, which labels cannot hold".to_owned());
        }
        Some(_) => {}
    }
    let given: Vec<MetricType> = TYPES
        .into_iter()
        .filter(|one| row.contains_key(&value_key(*one)))
        .collect();
    let named = row.get("metric_type").and_then(Value::as_str);
    let metric_type = match (named, given.as_slice()) {
        (Some(text), _) => TYPES
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or("has a metric_type that is none of score, boolean, categorical, json")?,
        (None, [one]) => *one,
        (None, _) => return Err("has no metric_type".to_owned()),
    };
    let key = value_key(metric_type);
    if given.iter().any(|one| *one != metric_type) {
        return Err(format!(
            "has a value of another type than its metric_type: {key} is wanted"
        ));
    }
    let fits = match (metric_type, row.get(&key)) {
        (_, None) => row.contains_key("error"),
        (MetricType::Score, Some(value)) => value.is_number(),
        (MetricType::Boolean, Some(value)) => value.is_boolean(),
        (MetricType::Categorical, Some(value)) => value.is_string(),
        (_, Some(value)) => value.is_object(),
    };
    if !fits {
        return Err(format!(
            "needs {key}: a number, true or false, text or an object, by its type"
        ));
    }
    if let Some(text) = row.get("assessment")
        && text.as_str().and_then(Assessment::from_wire).is_none()
    {
        return Err("has an assessment that is neither pass nor fail".to_owned());
    }
    row.insert("metric_type".to_owned(), metric_type.as_str().into());
    row.entry("timestamp_ms").or_insert(now_ms.into());
    Ok(Value::Object(row))
}

fn value_key(metric_type: MetricType) -> String {
    format!("{}_value", metric_type.as_str())
}
