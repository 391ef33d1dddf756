//! `get_llmobs_experiment_event`: one run of one record, with all that was said of it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paged::Single;
use super::{Keys, load, notes_of, number};
use crate::render::{candidate, cut_middle, trace_url};
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::Upstream;
use llmobs_core::analysis::experiment::dimension_values;
use llmobs_core::model::{ExperimentEvent, ExperimentMetric};

const NAME: &str = "get_llmobs_experiment_event";
const MAX_STACK: usize = 4_000;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment event",
    description: "One event of an LLM experiment in full: input, output, expected output, every \
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
    experiment_id: Text,
    /// Event id.
    event_id: Text,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, event_id) = (&arguments.experiment_id.0, &arguments.event_id.0);
    let loaded = load(context, NAME, id).await?;
    let events = &loaded.data.events;
    let found: Vec<&ExperimentEvent> = events
        .iter()
        .filter(|event| event.span.span_id.as_str() == event_id)
        .collect();
    let Some(event) = found.first() else {
        return Err(event_not_found(id, event_id, events));
    };
    let mut notes = notes_of(&loaded);
    if found.len() > 1 {
        notes.add(format!(
            "{} events have this id, in different traces; this is the earliest",
            found.len()
        ));
    }
    let mut keys = Keys::default();
    describe(&mut keys, event);
    keys.0.insert("experiment_id".to_owned(), json!(id));
    for (key, known) in [
        (
            "project_id",
            loaded
                .experiment
                .as_ref()
                .and_then(|e| e.project_id.clone()),
        ),
        (
            "dataset_id",
            loaded
                .experiment
                .as_ref()
                .and_then(|e| e.dataset_id.clone()),
        ),
        ("project_name", None),
    ] {
        keys.some(key, known.or_else(|| event.tag(key).map(str::to_owned)));
    }
    if let Upstream::Site(site) = context.client.upstream() {
        keys.put(
            "trace_url",
            trace_url(site.app_base(), event.span.trace_id.as_str()),
        );
    }
    Single::fit(keys, &notes, arguments.max_tokens)
}

fn describe(keys: &mut Keys, event: &ExperimentEvent) {
    let span = &event.span;
    keys.put("id", span.span_id.as_str());
    keys.put("experiment_id", Value::Null);
    keys.put("status", span.status.as_str());
    keys.put("start_ms", span.start_ns.div_euclid(1_000_000));
    keys.put("duration_ms", number(span.duration_ns as f64 / 1e6));
    keys.put("trace_id", span.trace_id.as_str());
    keys.put("span_id", span.span_id.as_str());
    keys.put("input", span.input.clone());
    keys.put("output", span.output.clone());
    keys.put("expected_output", span.expected_output.clone());
    let metrics: Map<String, Value> = event
        .metrics
        .iter()
        .map(|one| (one.label.clone(), metric(one, &span.tags)))
        .collect();
    keys.put("metrics", metrics);
    keys.put("dimensions", tags(event));
    keys.some("metadata", span.metadata.clone());
    if let Some(error) = span.error.as_ref() {
        keys.put(
            "error",
            json!({"type": error.error_type, "message": error.message, "stack": cut_middle(&error.stack, MAX_STACK)}),
        );
    }
    let mut usage = Keys::default();
    usage.some("input_tokens", number(event.usage.input_tokens));
    usage.some("output_tokens", number(event.usage.output_tokens));
    usage.some("total_tokens", number(event.usage.total_tokens));
    usage.some("cost_usd", number(event.usage.cost_usd));
    keys.some("usage", usage);
}

/// A metric; of its tags those that the event does not have, which are the evaluator's own.
fn metric(metric: &ExperimentMetric, known: &[String]) -> Value {
    let mut keys = Keys::default();
    keys.put("metric_type", metric.metric_type.as_str());
    keys.put("value", metric.valid_value().cloned());
    keys.some("assessment", metric.assessment.map(|found| found.as_str()));
    keys.some("reasoning", metric.reasoning.clone());
    keys.put("status", metric.status.as_str());
    keys.some("error", metric.error.clone());
    let own: Vec<&String> = metric
        .tags
        .iter()
        .filter(|tag| !known.contains(tag))
        .collect();
    keys.some("tags", json!(own));
    keys.some("metadata", metric.metadata.clone());
    keys.into()
}

/// Every dimension with its value; several values of one key as a list.
fn tags(event: &ExperimentEvent) -> Map<String, Value> {
    let keys = event.span.tags.iter().filter_map(|tag| tag.split_once(':'));
    let mut found = Map::new();
    for key in keys
        .map(|(key, _)| key)
        .chain(["dataset_record_id", "error_type"])
    {
        let values = dimension_values(event, key);
        let value = match values.as_slice() {
            [] => continue,
            [one] => json!(one),
            several => json!(several),
        };
        found.insert(key.to_owned(), value);
    }
    found
}

fn event_not_found(id: &str, event_id: &str, events: &[ExperimentEvent]) -> ToolError {
    // A record's id is the usual mistake.
    let of_record: Vec<&str> = events
        .iter()
        .filter(|event| {
            let ids = [
                event.record_id(),
                event.canonical_id(),
                Some(event.span.trace_id.as_str()),
            ];
            ids.contains(&Some(event_id))
        })
        .map(|event| event.span.span_id.as_str())
        .collect();
    let (hint, ids) = if of_record.is_empty() {
        let first = events.iter().map(|event| event.span.span_id.as_str());
        (
            "event_id is the id of an event from list_llmobs_experiment_events",
            first.take(10).collect(),
        )
    } else {
        (
            "this is the id of a record or trace; `candidates` holds its events",
            of_record,
        )
    };
    let error = ToolError::new(
        Some(404),
        format!("event not found: {}", candidate(event_id)),
        hint,
    );
    match ids.first() {
        Some(first) => error.example(
            NAME,
            json!({"experiment_id": candidate(id), "event_id": candidate(first)}),
        ),
        None => super::summary_example(error, id),
    }
    .candidates(ids)
}
