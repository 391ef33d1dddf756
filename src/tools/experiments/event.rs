//! `get_llmobs_experiment_event`: one event with everything about it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::{experiment_notes, load, summary_example};
use crate::render::{Budget, candidate, cut_middle, trace_url};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::{JsonObject, statistic};
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{LoadedExperiment, Upstream};
use llmobs_core::analysis::experiment::dimension_values;
use llmobs_core::model::{ExperimentEvent, ExperimentMetric};

const NAME: &str = "get_llmobs_experiment_event";
const MAX_STACK_CHARS: usize = 4_000;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment event",
    description: "One complete event of an LLM experiment: input, output, expected output, every \
        metric with value, assessment and reasoning, dimensions, error, tokens. event_id is the id \
        from list_llmobs_experiment_events. Follow what the task did with get_llmobs_trace and the \
        event's trace_id.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Event id.
    event_id: String,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, event_id) = (&arguments.experiment_id, &arguments.event_id);
    let example = |id: &str| Some(json!({"experiment_id": id, "event_id": candidate(event_id)}));
    let loaded = load(context, NAME, id, example).await?;
    let events = &loaded.data.events;
    let with_id = || {
        let events = events.iter();
        events.filter(|event| event.span.span_id.as_str() == event_id)
    };
    let Some(event) = with_id().next() else {
        return Err(event_not_found(id, event_id, events));
    };
    let mut notes = experiment_notes(&loaded);
    let count = with_id().count();
    if count > 1 {
        notes.add(format!(
            "{count} events in different traces have this id; this is the earliest"
        ));
    }
    let answer = event_object(context, id, &loaded, event);
    write_object(answer, &notes, Budget::of_answer(arguments.max_tokens))
}

fn event_object(
    context: &ToolContext,
    experiment_id: &str,
    loaded: &LoadedExperiment,
    event: &ExperimentEvent,
) -> JsonObject {
    let span = &event.span;
    let metrics: Map<String, Value> = event
        .metrics
        .iter()
        .map(|metric| (metric.label.clone(), metric_object(metric, &span.tags)))
        .collect();
    let mut object = JsonObject::default();
    object.set("id", span.span_id.as_str());
    object.set("experiment_id", experiment_id);
    object.set("status", span.status.as_str());
    object.set("start_ms", span.start_ns.div_euclid(1_000_000));
    object.set("duration_ms", statistic(span.duration_ns as f64 / 1e6));
    object.set("trace_id", span.trace_id.as_str());
    object.set("span_id", span.span_id.as_str());
    object.set("input", span.input.clone());
    object.set("output", span.output.clone());
    object.set("expected_output", span.expected_output.clone());
    object.set("metrics", metrics);
    object.set("dimensions", dimensions(event));
    object.set_unless_empty("metadata", span.metadata.clone());
    if let Some(error) = span.error.as_ref() {
        let stack = cut_middle(&error.stack, MAX_STACK_CHARS);
        object.set(
            "error",
            json!({"type": error.error_type, "message": error.message, "stack": stack}),
        );
    }
    object.set_unless_empty("usage", usage(event));
    let experiment = loaded.experiment.as_ref();
    let project_id = experiment.and_then(|experiment| experiment.project_id.clone());
    let dataset_id = experiment.and_then(|experiment| experiment.dataset_id.clone());
    for (key, value) in [
        ("project_id", project_id),
        ("dataset_id", dataset_id),
        ("project_name", None),
    ] {
        let value = value.or_else(|| event.tag(key).map(str::to_owned));
        object.set_unless_empty(key, value);
    }
    if let Upstream::Site(site) = context.client.upstream() {
        let url = trace_url(site.app_base(), span.trace_id.as_str());
        object.set("trace_url", url);
    }
    object
}

fn usage(event: &ExperimentEvent) -> JsonObject {
    let mut usage = JsonObject::default();
    usage.set_unless_empty("input_tokens", statistic(event.usage.input_tokens));
    usage.set_unless_empty("output_tokens", statistic(event.usage.output_tokens));
    usage.set_unless_empty("total_tokens", statistic(event.usage.total_tokens));
    usage.set_unless_empty("cost_usd", statistic(event.usage.cost_usd));
    usage
}

/// A metric. Its tags are those that the event does not have, which come from the evaluator.
fn metric_object(metric: &ExperimentMetric, event_tags: &[String]) -> Value {
    let tags = metric.tags.iter().filter(|tag| !event_tags.contains(tag));
    let mut object = JsonObject::default();
    object.set("metric_type", metric.metric_type.as_str());
    object.set("value", metric.valid_value().cloned());
    let assessment = metric.assessment;
    object.set_unless_empty(
        "assessment",
        assessment.map(|assessment| assessment.as_str()),
    );
    object.set_unless_empty("reasoning", metric.reasoning.clone());
    object.set("status", metric.status.as_str());
    object.set_unless_empty("error", metric.error.clone());
    object.set_unless_empty("tags", json!(tags.collect::<Vec<_>>()));
    object.set_unless_empty("metadata", metric.metadata.clone());
    object.into()
}

/// Every dimension with its value; several values of one key are a list.
fn dimensions(event: &ExperimentEvent) -> Map<String, Value> {
    let tags = event.span.tags.iter().filter_map(|tag| tag.split_once(':'));
    let keys = tags.map(|(key, _)| key);
    let mut dimensions = Map::new();
    for key in keys.chain(["dataset_record_id", "error_type"]) {
        let value = match dimension_values(event, key).as_slice() {
            [] => continue,
            [value] => json!(value),
            values => json!(values),
        };
        dimensions.insert(key.to_owned(), value);
    }
    dimensions
}

fn event_not_found(id: &str, event_id: &str, events: &[ExperimentEvent]) -> ToolError {
    // The usual mistake is the id of a record or trace.
    let has_id = |event: &&ExperimentEvent| {
        let trace_id = event.span.trace_id.as_str();
        [event.record_id(), event.canonical_id(), Some(trace_id)].contains(&Some(event_id))
    };
    let span_ids = |events: &mut dyn Iterator<Item = &ExperimentEvent>| -> Vec<String> {
        let ids = events.map(|event| event.span.span_id.as_str().to_owned());
        ids.take(10).collect()
    };
    let of_record = span_ids(&mut events.iter().filter(has_id));
    let (hint, ids) = if of_record.is_empty() {
        (
            "event_id must be the id of an event from list_llmobs_experiment_events",
            span_ids(&mut events.iter()),
        )
    } else {
        (
            "this is the id of a record or trace; `candidates` lists its events",
            of_record,
        )
    };
    let error = ToolError::new(
        Some(404),
        format!("event not found: {}", candidate(event_id)),
        hint,
    );
    let error = match ids.first() {
        Some(first) => error.example(
            NAME,
            json!({"experiment_id": candidate(id), "event_id": candidate(first)}),
        ),
        None => summary_example(error, id),
    };
    error.candidates(ids)
}
