//! Experiments, and the projects and datasets they stand on.
//!
//! The reading tools load an experiment's events once (the client keeps them), let
//! `analysis::experiment` count, and give small answers. The writing tools refuse keys they do not
//! know, and are never sent twice unless the first attempt surely did not happen.

mod compare;
mod compare_answer;
mod create;
mod dataset_records;
mod datasets;
mod dimension_values;
mod event;
mod events;
mod full_records;
mod list;
mod metric_values;
mod paged;
mod projects;
mod records_add;
mod stats;
mod submit;
mod summary;
mod update;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answer::Notes;
use super::{Tool, ToolContext, ToolError};
use crate::render;
use datadog_llmobs::{ClientError, ExperimentFilter, LoadedExperiment};
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{
    ExperimentDimension, LabelInfo, dimensions, metric_labels,
};
use llmobs_core::model::ExperimentEvent;

/// The tools in the order in which an analysis uses them, those that write last.
pub(super) const TOOLS: &[Tool] = &[
    summary::TOOL,
    events::TOOL,
    event::TOOL,
    metric_values::TOOL,
    dimension_values::TOOL,
    compare::TOOL,
    list::TOOL,
    projects::LIST_TOOL,
    projects::GET_TOOL,
    datasets::TOOL,
    dataset_records::TOOL,
    full_records::TOOL,
    records_add::TOOL,
    create::TOOL,
    update::TOOL,
    submit::TOOL,
];

/// The tool that gives records whole.
const NAME_FULL: &str = "get_llmobs_full_dataset_records";
/// How much of an input or output a list shows.
const PREVIEW_CHARS: usize = 200;

/// Loads an experiment. An id that is a name is looked up, so that the refusal can say the id.
async fn load(
    context: &ToolContext,
    tool: &str,
    id: &str,
) -> Result<Arc<LoadedExperiment>, ToolError> {
    match context.client.experiment(id).await {
        Ok(loaded) => Ok(loaded),
        Err(ClientError::ExperimentNotFound(_)) => Err(not_found(context, tool, id).await),
        Err(error) => Err(error.into()),
    }
}

async fn not_found(context: &ToolContext, tool: &str, id: &str) -> ToolError {
    let named = ExperimentFilter {
        experiment: Some(id.to_owned()),
        ..ExperimentFilter::default()
    };
    // Only a hint hangs on it: whatever goes wrong here, the 404 stands.
    let rows = match context.client.experiments(&named, 10, None).await {
        Ok(page) => page.rows,
        Err(_) => Vec::new(),
    };
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let error = ToolError::new(
        Some(404),
        format!("experiment not found: {}", render::candidate(id)),
        "experiment_id is the experiment's UUID; list_llmobs_experiments gives those of a project, \
         list_llmobs_projects the projects; the site and the organisation must be the ones it ran on",
    );
    match ids.first() {
        Some(first) if tool != compare::NAME => ToolError {
            hint: "this is an experiment's name; `candidates` holds the ids of its runs, the \
                   newest first"
                .to_owned(),
            ..error
        }
        .example(tool, json!({"experiment_id": first}))
        .candidates(&ids),
        _ => error
            .example("list_llmobs_projects", json!({}))
            .candidates(&ids),
    }
}

/// What a reader of any number of this experiment should know.
fn notes_of(loaded: &LoadedExperiment) -> Notes {
    let mut notes = Notes::default();
    notes.extend(loaded.notes.iter().cloned());
    let data = &loaded.data;
    if loaded
        .experiment
        .as_ref()
        .is_some_and(llmobs_core::model::Experiment::is_running)
    {
        notes.add("the experiment is still running: these numbers will change");
    }
    if data.events.is_empty() {
        notes
            .add("the experiment has no events: nothing ran yet, or its spans are not indexed yet");
    } else if data.events.iter().all(|event| event.metrics.is_empty()) {
        notes.add("no event has a metric: no evaluator ran, or its metrics are not indexed yet");
    }
    if data.duplicate_metrics > 0 {
        notes.add(format!(
            "{} metrics were replaced by newer ones of the same label on the same span; each label counts once",
            data.duplicate_metrics
        ));
    }
    if data.descendant_metrics > 0 {
        notes.add(format!(
            "{} metrics stand on spans below an event; they count for the event where it has none of that label",
            data.descendant_metrics
        ));
    }
    if data.unassigned_spans > 0 {
        notes.add(format!(
            "{} spans ({} metrics) belong to no event, because their root is missing; they are not counted",
            data.unassigned_spans, data.unassigned_metrics
        ));
    }
    notes
}

/// The metric of that label, or the refusal that names the nearest.
fn find_label(
    tool: &str,
    experiment_id: &str,
    events: &[ExperimentEvent],
    label: &str,
) -> Result<LabelInfo, ToolError> {
    let known = metric_labels(events);
    if let Some(info) = known.iter().find(|info| info.label == label) {
        return Ok(info.clone());
    }
    let near = rank(label, known.iter().map(|info| info.label.as_str()));
    let error = ToolError::new(
        Some(404),
        format!("metric not found: {}", render::candidate(label)),
        "`candidates` holds the labels of this experiment, the nearest first",
    );
    Err(match near.first() {
        Some(first) if tool == metric_values::NAME => error.example(
            tool,
            json!({"experiment_id": experiment_id, "metric_label": render::candidate(first)}),
        ),
        Some(first) if tool == events::NAME => error.example(
            tool,
            json!({"experiment_id": experiment_id, "filter_metric_label": render::candidate(first)}),
        ),
        Some(_) => summary_example(error, experiment_id),
        None => summary_example(
            ToolError {
                hint: "no event of this experiment has a metric".to_owned(),
                ..error
            },
            experiment_id,
        ),
    }
    .candidates(near))
}

/// The dimensions of an experiment, if `key` is one of them; else the refusal.
fn find_dimension(
    tool: &str,
    argument: &str,
    mut example: Map<String, Value>,
    events: &[ExperimentEvent],
    key: &str,
) -> Result<Vec<ExperimentDimension>, ToolError> {
    let known = dimensions(events);
    if known.iter().any(|one| one.key == key) {
        return Ok(known);
    }
    let near = rank(key, known.iter().map(|one| one.key.as_str()));
    let error = ToolError::new(
        Some(404),
        format!("dimension not found: {}", render::candidate(key)),
        "`candidates` holds the dimensions of this experiment, the nearest first; they are the tags \
         of its records and runs, and error_type once a task failed",
    );
    let id = example.get("experiment_id").cloned().unwrap_or_default();
    Err(match near.first() {
        Some(first) => {
            example.insert(argument.to_owned(), Value::from(render::candidate(first)));
            error.example(tool, Value::Object(example))
        }
        None => summary_example(error, id.as_str().unwrap_or_default()),
    }
    .candidates(near))
}

fn summary_example(error: ToolError, experiment_id: &str) -> ToolError {
    error.example(
        summary::NAME,
        json!({"experiment_id": render::candidate(experiment_id)}),
    )
}

/// A number to ten significant digits, whole numbers without a decimal point; `null` if there is
/// none. Nothing that is not finite comes out of here.
fn number(value: impl Into<Option<f64>>) -> Value {
    let Some(value) = value.into().filter(|value| value.is_finite()) else {
        return Value::Null;
    };
    let rounded = format!("{value:.9e}").parse().unwrap_or(value);
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 {
        Value::from(rounded as i64)
    } else {
        Value::from(rounded)
    }
}

/// The start of a value, as one text.
fn preview(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(PREVIEW_CHARS).collect();
    let more = chars.next().map_or("", |_| "…");
    format!("{start}{more}")
}

/// Collects the keys of an answer in order, leaving out what is not there.
#[derive(Default)]
struct Keys(Map<String, Value>);

impl Keys {
    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Puts what is there: not `null`, not empty, not zero.
    fn some(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let nothing = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(_) => false,
        };
        if !nothing {
            self.put(key, value);
        }
        self
    }
}

impl From<Keys> for Value {
    fn from(keys: Keys) -> Self {
        Value::Object(keys.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_finite() {
        assert_eq!(number(2.0 / 7.0).to_string(), "0.2857142857");
        assert_eq!(number(3.0).to_string(), "3");
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number(None), Value::Null);
        assert_eq!(number(-1.5e-12).to_string(), "-1.5e-12");
        assert_eq!(number(1e300), json!(1e300));
    }
}
