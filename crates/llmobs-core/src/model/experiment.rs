//! Experiments: runs of an application's task over the records of a dataset, with the evaluations
//! of each run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Assessment, EvalStatus, MetricType, SpanError, SpanId, SpanKind, Status, TraceId};

/// An experiment in the control plane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Experiment {
    /// Its id, a UUID.
    pub id: String,
    /// The unique name of this run: `<experiment>-<Unix milliseconds>` in SDK data.
    pub name: String,
    /// The name that the application gives, which several runs share.
    pub experiment: Option<String>,
    /// The project it belongs to.
    pub project_id: Option<String>,
    /// The dataset it ran over.
    pub dataset_id: Option<String>,
    /// The version of that dataset.
    pub dataset_version: Option<i64>,
    /// A description.
    pub description: Option<String>,
    /// Parameters of the task, as sent.
    pub config: Map<String, Value>,
    /// Free-form metadata; the SDK puts `tags` here.
    pub metadata: Map<String, Value>,
    /// Number of runs per record.
    pub run_count: Option<i64>,
    /// `running`, `completed`, `failed`, `interrupted`, or another status of the upstream.
    pub status: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The experiment whose outputs this one re-evaluates.
    pub parent_experiment_id: Option<String>,
    /// When it was created, in the upstream's format.
    pub created_at: Option<String>,
    /// When it was last changed, in the upstream's format.
    pub updated_at: Option<String>,
}

impl Experiment {
    /// Whether more events may follow.
    pub fn is_running(&self) -> bool {
        matches!(self.status.as_deref(), Some("running" | "created"))
    }
}

/// An evaluation of one run of a record or, as a summary metric, of the complete experiment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentMetric {
    /// Name of the metric.
    pub label: String,
    /// The type of `value`.
    pub metric_type: MetricType,
    /// A finite number, a boolean, text or any JSON, by `metric_type`; `None` when absent.
    pub value: Option<Value>,
    /// Whether the evaluator succeeded.
    pub status: EvalStatus,
    /// Pass or fail, if criteria are defined.
    pub assessment: Option<Assessment>,
    /// The judge's explanation.
    pub reasoning: Option<String>,
    /// Why the evaluator failed: `{type, message, …}`.
    pub error: Option<Value>,
    /// Tags of the evaluator, `key:value`.
    pub tags: Vec<String>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// When it was made, in milliseconds since the Unix epoch. The newest of a label is used.
    pub timestamp_ms: i64,
}

impl ExperimentMetric {
    /// The value, unless the evaluator failed: a failed evaluator may leave an invalid value.
    pub fn valid_value(&self) -> Option<&Value> {
        match self.status {
            EvalStatus::Error => None,
            EvalStatus::Ok | EvalStatus::Warn => self.value.as_ref(),
        }
    }
}

/// A span of an experiment, as the events endpoint returns it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentSpan {
    /// The id of its trace.
    pub trace_id: TraceId,
    /// The span's id within its trace.
    pub span_id: SpanId,
    /// The parent's id; `None` for a root span.
    pub parent_id: Option<SpanId>,
    /// The kind, if the upstream returns it. The documented response does not contain it.
    pub kind: Option<SpanKind>,
    /// Name of the task, or of an operation within the task.
    pub name: String,
    /// Whether it failed.
    pub status: Status,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Tags as sent, `key:value`.
    pub tags: Vec<String>,
    /// The dataset record, if the upstream returns it outside the tags.
    pub dataset_record_id: Option<String>,
    /// The input.
    pub input: Option<Value>,
    /// The output.
    pub output: Option<Value>,
    /// The expected output.
    pub expected_output: Option<Value>,
    /// Metadata of the record.
    pub metadata: Map<String, Value>,
    /// The error of a failed span.
    pub error: Option<SpanError>,
    /// Numeric metrics, such as token counts and costs; see [`super::cost`] for their units.
    pub usage: BTreeMap<String, f64>,
    /// The evaluations of this span, in the upstream's order.
    pub metrics: Vec<ExperimentMetric>,
}

/// One run of one dataset record: the root span of kind `experiment`, its evaluations, and the
/// usage of its descendants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentEvent {
    /// The root span. Its `metrics` are moved to [`ExperimentEvent::metrics`].
    pub span: ExperimentSpan,
    /// The newest metric of each label, sorted by label.
    pub metrics: Vec<ExperimentMetric>,
    /// Tokens and cost of the model calls among its descendants.
    pub usage: Usage,
}

/// The index of a label in a list sorted by label. Tries the index `guess` first.
///
/// # Errors
///
/// The index at which to insert the label, if it is absent.
pub(crate) fn find_label<T>(
    list: &[T],
    guess: usize,
    label_of: impl Fn(&T) -> &str,
    label: &str,
) -> Result<usize, usize> {
    match list.get(guess) {
        Some(item) if label_of(item) == label => Ok(guess),
        _ => list.binary_search_by(|item| label_of(item).cmp(label)),
    }
}

impl ExperimentEvent {
    /// The metric with the given label.
    pub fn metric(&self, label: &str) -> Option<&ExperimentMetric> {
        self.metric_near(label, &mut 0)
    }

    /// Like [`ExperimentEvent::metric`], for reading many events: tries the index `guess` first
    /// and updates it. Most events of an experiment have the same labels.
    pub(crate) fn metric_near(&self, label: &str, guess: &mut usize) -> Option<&ExperimentMetric> {
        *guess = find_label(&self.metrics, *guess, |metric| &metric.label, label).ok()?;
        self.metrics.get(*guess)
    }

    /// Whether the task failed.
    pub fn is_error(&self) -> bool {
        self.span.status == Status::Error
    }

    /// The id of the dataset record, if known.
    pub fn record_id(&self) -> Option<&str> {
        self.tag("dataset_record_id")
            .or(self.span.dataset_record_id.as_deref())
    }

    /// The record's id that is stable across all versions of the dataset, if known.
    pub fn canonical_id(&self) -> Option<&str> {
        self.tag("dataset_record_canonical_id")
    }

    /// The first non-empty value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.span.tags.iter().find_map(|tag| {
            let (name, value) = tag.split_once(':')?;
            (name == key && !value.is_empty()).then_some(value)
        })
    }
}

/// Token counts and cost of model calls. A field is `None` where no call reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Input tokens.
    pub input_tokens: Option<f64>,
    /// Output tokens.
    pub output_tokens: Option<f64>,
    /// Input and output tokens.
    pub total_tokens: Option<f64>,
    /// Cost in USD.
    pub cost_usd: Option<f64>,
}
