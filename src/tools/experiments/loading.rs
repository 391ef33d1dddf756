//! Loading an experiment, and finding metrics and dimensions in it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::render::candidate;
use crate::tools::answer::Notes;
use crate::tools::error::ToolError;
use crate::tools::tool::ToolContext;
use datadog_llmobs::{ClientError, ExperimentFilter, LoadedExperiment};
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{LabelInfo, dimensions, metric_labels};
use llmobs_core::model::{Experiment, ExperimentEvent};

/// The tool that describes an experiment.
const SUMMARY: &str = "get_llmobs_experiment_summary";

/// Loads an experiment.
///
/// # Errors
///
/// For an unknown id. If it is the name of an experiment, the error has the ids; `example` returns
/// the arguments for one of them.
pub(super) async fn load(
    context: &ToolContext,
    tool: &str,
    id: &str,
    example: impl FnOnce(&str) -> Option<Value>,
) -> Result<Arc<LoadedExperiment>, ToolError> {
    match context.client.experiment(id).await {
        Ok(loaded) => Ok(loaded),
        Err(ClientError::ExperimentNotFound(_)) => Err(not_found(context, tool, id, example).await),
        Err(error) => Err(error.into()),
    }
}

async fn not_found(
    context: &ToolContext,
    tool: &str,
    id: &str,
    example: impl FnOnce(&str) -> Option<Value>,
) -> ToolError {
    let named = ExperimentFilter {
        experiment: Some(id.to_owned()),
        ..ExperimentFilter::default()
    };
    // The list only improves the hint: if it fails, the error is the same without it.
    let rows = match context.client.experiments(&named, 10, None).await {
        Ok(page) => page.rows,
        Err(_) => Vec::new(),
    };
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let error = ToolError::new(
        Some(404),
        format!("experiment not found: {}", candidate(id)),
        "experiment_id must be the UUID of the experiment: list_llmobs_experiments lists those of a \
         project, list_llmobs_projects lists the projects; site and organisation must be those that \
         it ran on",
    );
    let Some(first) = ids.first() else {
        return error.example("list_llmobs_projects", json!({}));
    };
    let error = match example(first) {
        Some(arguments) => error.example(tool, arguments),
        None => error.example("list_llmobs_projects", json!({})),
    };
    error
        .hint("this is the name of an experiment; `candidates` lists its runs, newest first")
        .candidates(&ids)
}

/// Arguments with the id of an experiment only.
pub(super) fn id_example(id: &str) -> Value {
    json!({"experiment_id": id})
}

/// The error of a write to an unknown experiment; other errors are unchanged.
pub(super) fn write_error(error: ClientError, id: &str, hint: &str) -> ToolError {
    match error {
        ClientError::ExperimentNotFound(_) => ToolError::new(
            Some(404),
            format!(
                "experiment not found: {}; nothing was written",
                candidate(id)
            ),
            hint,
        )
        .example("list_llmobs_projects", json!({})),
        error => error.into(),
    }
}

/// Notes that apply to every number of an experiment.
pub(super) fn experiment_notes(loaded: &LoadedExperiment) -> Notes {
    let mut notes = Notes::default();
    notes.extend(loaded.notes.iter().cloned());
    let data = &loaded.data;
    let running = loaded
        .experiment
        .as_ref()
        .is_some_and(Experiment::is_running);
    if running {
        notes.add("the experiment is still running: these numbers will change");
    }
    if data.events.is_empty() {
        notes.add(
            "the experiment has no events: no task has run yet, or its spans are not indexed yet",
        );
    } else if data.events.iter().all(|event| event.metrics.is_empty()) {
        notes
            .add("no event has a metric: no evaluator has run, or its metrics are not indexed yet");
    }
    if data.duplicate_metrics > 0 {
        notes.add(format!(
            "{} metrics were replaced by newer ones with the same label on the same span; each label \
             counts once",
            data.duplicate_metrics
        ));
    }
    if data.descendant_metrics > 0 {
        notes.add(format!(
            "{} metrics are on descendants of an event's span; each counts for the event, unless the \
             event has a metric with that label",
            data.descendant_metrics
        ));
    }
    if data.unassigned_spans > 0 {
        notes.add(format!(
            "{} spans ({} metrics) belong to no event, because their root span is missing; they are \
             not counted",
            data.unassigned_spans, data.unassigned_metrics
        ));
    }
    notes
}

/// The metric with a label.
///
/// # Errors
///
/// For an unknown label, with the nearest labels. `example` are the arguments for one of them; the
/// example is the summary if there are none.
pub(super) fn find_label(
    tool: &str,
    experiment_id: &str,
    events: &[ExperimentEvent],
    label: &str,
    example: impl FnOnce(&str) -> Option<Value>,
) -> Result<LabelInfo, ToolError> {
    let known = metric_labels(events);
    if let Some(info) = known.iter().find(|info| info.label == label) {
        return Ok(info.clone());
    }
    let near = rank(label, known.iter().map(|info| info.label.as_str()));
    let error = ToolError::new(
        Some(404),
        format!("metric not found: {}", candidate(label)),
        if near.is_empty() {
            "no event of this experiment has a metric"
        } else {
            "`candidates` lists the labels of this experiment, nearest first"
        },
    );
    let example = near.first().and_then(|first| example(&candidate(first)));
    let error = match example {
        Some(example) => error.example(tool, example),
        None => summary_example(error, experiment_id),
    };
    Err(error.candidates(near))
}

/// Checks that an experiment has a dimension. `argument` is the argument that names it, and
/// `example` are the other arguments.
pub(super) fn check_dimension(
    tool: &str,
    argument: &str,
    mut example: Map<String, Value>,
    events: &[ExperimentEvent],
    key: &str,
) -> Result<(), ToolError> {
    let known = dimensions(events);
    if known.iter().any(|dimension| dimension.key == key) {
        return Ok(());
    }
    let near = rank(key, known.iter().map(|dimension| dimension.key.as_str()));
    let error = ToolError::new(
        Some(404),
        format!("dimension not found: {}", candidate(key)),
        "`candidates` lists the dimensions of this experiment, nearest first; they are the tags of \
         its records and runs, and error_type if a task failed",
    );
    let error = match near.first() {
        Some(first) => {
            example.insert(argument.to_owned(), Value::from(candidate(first)));
            error.example(tool, Value::Object(example))
        }
        None => {
            let id = example.get("experiment_id").and_then(Value::as_str);
            summary_example(error, id.unwrap_or_default())
        }
    };
    Err(error.candidates(near))
}

/// Adds a call of the summary as the example.
pub(super) fn summary_example(error: ToolError, experiment_id: &str) -> ToolError {
    error.example(SUMMARY, id_example(&candidate(experiment_id)))
}
