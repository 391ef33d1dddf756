//! Experiments: an application's task run over the records of a dataset, and what evaluators said
//! of each run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Assessment, EvalStatus, MetricType, SpanError, SpanId, SpanKind, Status, TraceId};

/// One experiment, as the control plane knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Experiment {
    /// Its id, a UUID.
    pub id: String,
    /// The unique name of this run: `<name asked for>-<Unix milliseconds>` in SDK data.
    pub name: String,
    /// The name asked for, which several runs share.
    pub experiment: Option<String>,
    /// The project it belongs to.
    pub project_id: Option<String>,
    /// The dataset it ran over.
    pub dataset_id: Option<String>,
    /// The version of that dataset.
    pub dataset_version: Option<i64>,
    /// What it is about.
    pub description: Option<String>,
    /// Parameters of the task, as sent.
    pub config: Map<String, Value>,
    /// Free-form metadata; the SDK puts `tags` here.
    pub metadata: Map<String, Value>,
    /// How often each record runs.
    pub run_count: Option<i64>,
    /// `running`, `completed`, `failed`, `interrupted`, or another word of the upstream.
    pub status: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The experiment whose outputs this one evaluated again.
    pub parent_experiment_id: Option<String>,
    /// When it was made, as the upstream writes it.
    pub created_at: Option<String>,
    /// When it was changed last, as the upstream writes it.
    pub updated_at: Option<String>,
}

impl Experiment {
    /// Whether more events are to be expected.
    pub fn is_running(&self) -> bool {
        matches!(self.status.as_deref(), Some("running" | "created"))
    }
}

/// One judgement about a run of a record, or (`summary`) about all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentMetric {
    /// Name of the metric.
    pub label: String,
    /// How to read `value`.
    pub metric_type: MetricType,
    /// A finite number, a boolean, text or any JSON, by `metric_type`; `None` when there is none.
    pub value: Option<Value>,
    /// Whether the evaluator itself worked.
    pub status: EvalStatus,
    /// Pass or fail, when criteria exist.
    pub assessment: Option<Assessment>,
    /// Why, in the judge's words.
    pub reasoning: Option<String>,
    /// What went wrong with the evaluator: `{type, message, …}`.
    pub error: Option<Value>,
    /// Tags that the evaluator added, `key:value`.
    pub tags: Vec<String>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// When it was made, in milliseconds since the Unix epoch. The newest of a label counts.
    pub timestamp_ms: i64,
}

impl ExperimentMetric {
    /// The value, unless the evaluator failed: what a failed one leaves behind is none.
    pub fn valid_value(&self) -> Option<&Value> {
        match self.status {
            EvalStatus::Error => None,
            EvalStatus::Ok | EvalStatus::Warn => self.value.as_ref(),
        }
    }
}

/// A span of an experiment, as the events endpoint gives it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentSpan {
    /// The trace this span belongs to.
    pub trace_id: TraceId,
    /// This span within its trace.
    pub span_id: SpanId,
    /// The enclosing span; `None` on a root.
    pub parent_id: Option<SpanId>,
    /// The kind, where the upstream says it: the documented answer does not.
    pub kind: Option<SpanKind>,
    /// Name of the task, or of the operation within it.
    pub name: String,
    /// Whether it failed.
    pub status: Status,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Length in nanoseconds.
    pub duration_ns: i64,
    /// Tags as sent, `key:value`.
    pub tags: Vec<String>,
    /// The dataset record, where the upstream says it beside the tags.
    pub dataset_record_id: Option<String>,
    /// What went in.
    pub input: Option<Value>,
    /// What came out.
    pub output: Option<Value>,
    /// What should have come out.
    pub expected_output: Option<Value>,
    /// Metadata of the record.
    pub metadata: Map<String, Value>,
    /// What went wrong.
    pub error: Option<SpanError>,
    /// Numeric metrics: token counts, costs in USD.
    pub usage: BTreeMap<String, f64>,
    /// What evaluators said of this span, in the order given.
    pub metrics: Vec<ExperimentMetric>,
}

/// One run of one dataset record: the root span of kind `experiment`, with what was said of it and
/// what the spans below it used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentEvent {
    /// The root span. Its `metrics` are empty: see the field beside it.
    pub span: ExperimentSpan,
    /// The newest metric of each label, by label.
    pub metrics: Vec<ExperimentMetric>,
    /// Tokens and cost of the model calls below the root; `None` where nothing was sent.
    pub usage: Usage,
}

/// Where a label stands in a list that is in the order of labels; looked for first at a place where
/// it is likely.
///
/// # Errors
/// The place where it belongs, when it is not there.
pub fn find_label<T>(
    list: &[T],
    likely: usize,
    label_of: impl Fn(&T) -> &str,
    label: &str,
) -> Result<usize, usize> {
    match list.get(likely) {
        Some(item) if label_of(item) == label => Ok(likely),
        _ => list.binary_search_by(|item| label_of(item).cmp(label)),
    }
}

impl ExperimentEvent {
    /// The metric of that label.
    pub fn metric(&self, label: &str) -> Option<&ExperimentMetric> {
        self.metric_from(label, &mut 0)
    }

    /// The same for many events in turn: most have the same labels, so a label is looked for first
    /// at the place where it was found last.
    pub fn metric_from(&self, label: &str, place: &mut usize) -> Option<&ExperimentMetric> {
        *place = find_label(&self.metrics, *place, |metric| &metric.label, label).ok()?;
        self.metrics.get(*place)
    }

    /// Whether the task itself failed.
    pub fn is_error(&self) -> bool {
        self.span.status == Status::Error
    }

    /// The id of the dataset record, if known.
    pub fn record_id(&self) -> Option<&str> {
        self.tag("dataset_record_id")
            .or(self.span.dataset_record_id.as_deref())
    }

    /// The id that the record keeps through all versions of its dataset, if known.
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

/// What model calls used. Each part is `None` where nothing was sent.
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
