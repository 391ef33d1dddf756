//! Experiments, metrics and dataset records as JSON objects of answers.

use serde_json::Value;

use crate::render::{cut_middle, squeeze};
use crate::tools::object::JsonObject;
use llmobs_core::model::{Experiment, ExperimentMetric};

/// Characters of a name or label.
pub(super) const MAX_NAME_CHARS: usize = 200;
/// Characters of JSON of a configuration or of the value of a metric.
pub(super) const MAX_CONFIG_CHARS: usize = 1_200;
const MAX_TEXT_CHARS: usize = 1_000;
const MAX_REASONING_CHARS: usize = 300;
const MAX_TAG_CHARS: usize = 120;

/// Sets the properties of an experiment.
pub(super) fn set_experiment(object: &mut JsonObject, experiment: &Experiment) {
    object.set_unless_empty("name", cut_middle(&experiment.name, MAX_NAME_CHARS));
    for (key, text) in [
        ("experiment", &experiment.experiment),
        ("description", &experiment.description),
        ("status", &experiment.status),
        ("error", &experiment.error),
        ("project_id", &experiment.project_id),
        ("dataset_id", &experiment.dataset_id),
    ] {
        object.set_unless_empty(key, optional_text(text.as_ref()));
    }
    object.set("dataset_version", experiment.dataset_version);
    object.set_unless_empty("run_count", experiment.run_count);
    for (key, text) in [
        ("parent_experiment_id", &experiment.parent_experiment_id),
        ("created_at", &experiment.created_at),
    ] {
        object.set_unless_empty(key, optional_text(text.as_ref()));
    }
    let config = Value::Object(experiment.config.clone());
    object.set_unless_empty("config", squeeze(&config, MAX_CONFIG_CHARS).0);
}

fn optional_text(text: Option<&String>) -> Option<String> {
    text.map(|text| cut_middle(text, MAX_TEXT_CHARS))
}

/// A metric about the experiment as a whole.
pub(super) fn summary_metric(metric: &ExperimentMetric) -> Value {
    let value = metric.valid_value();
    let mut object = JsonObject::default();
    object.set("label", cut_middle(&metric.label, MAX_NAME_CHARS));
    object.set("metric_type", metric.metric_type.as_str());
    object.set(
        "value",
        value.map(|value| squeeze(value, MAX_CONFIG_CHARS).0),
    );
    for name in ["run_iteration", "iteration"] {
        let mut tags = metric.tags.iter();
        let tag = tags.find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':'));
        object.set_unless_empty(name, tag.map(|tag| cut_middle(tag, MAX_TAG_CHARS)));
    }
    let assessment = metric.assessment;
    object.set_unless_empty(
        "assessment",
        assessment.map(|assessment| assessment.as_str()),
    );
    let reasoning = metric.reasoning.as_ref();
    object.set_unless_empty(
        "reasoning",
        reasoning.map(|text| cut_middle(text, MAX_REASONING_CHARS)),
    );
    let error = metric.error.as_ref();
    object.set_unless_empty(
        "error",
        error.map(|error| squeeze(error, MAX_REASONING_CHARS).0),
    );
    object.into()
}
