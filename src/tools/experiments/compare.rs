//! `compare_llmobs_experiments`: whether the candidate is better than the baseline, and where it is
//! not.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::compare_answer::{flips, head, tail};
use super::compare_notes::add_notes;
use super::loading::{experiment_notes, load};
use crate::render::{Budget, candidate};
use crate::tools::args::{self, IdList};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::LoadedExperiment;
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{
    self, CompareOptions, ExperimentComparison, dimensions, metric_labels,
};

const NAME: &str = "compare_llmobs_experiments";
/// Metrics that are compared if none is named. The correction for their number grows with it.
const MAX_METRICS: usize = 50;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Compare experiments",
    description: "Compare two LLM experiments record by record and give a verdict per metric: \
        improved, regressed, no clear change, or too few records. Pairs records by canonical id, \
        averages runs, gives difference, 95 % interval (paired bootstrap), p-value (exact McNemar \
        for pass or fail) corrected for the number of metrics (Holm), records that flipped, worst \
        segments, task errors, latency, tokens and cost. Higher is better unless assessments or \
        lower_is_better say otherwise.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID to compare against.
    baseline_experiment_id: String,
    /// Experiment UUID to assess.
    candidate_experiment_id: String,
    /// Only these metrics; all by default.
    metric_labels: Option<IdList>,
    /// Metrics for which lower values are better.
    lower_is_better: Option<IdList>,
    /// Dimension whose segments to show; by default the worst segments of all dimensions.
    segment_by_dimension: Option<String>,
    /// Include events whose task failed in the statistics.
    include_failed: Option<bool>,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
    /// next_cursor of the previous answer: more flips.
    cursor: Option<String>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    arguments.check()?;
    let list = arguments.list_request();
    let first = list.offset(arguments.cursor.as_deref())?;
    let budget = Budget::of_answer(arguments.max_tokens);
    let (baseline, candidate) = tokio::join!(
        load(context, NAME, &arguments.baseline_experiment_id, |_| None),
        load(context, NAME, &arguments.candidate_experiment_id, |_| None)
    );
    let (baseline, candidate) = (baseline?, candidate?);
    arguments.check_labels(&baseline, &candidate)?;
    arguments.check_dimension(&baseline, &candidate)?;
    let mut labels = arguments.metric_labels.clone().unwrap_or_default().0;
    if labels.is_empty() {
        labels = shared_labels(&baseline, &candidate);
    }
    let more_labels = if arguments.metric_labels.is_none() {
        labels.len().saturating_sub(MAX_METRICS)
    } else {
        0
    };
    labels.truncate(labels.len() - more_labels);
    let include_failed = arguments.include_failed.unwrap_or(false);
    let comparison = compare(&baseline, &candidate, labels, arguments).await?;
    let mut notes = experiment_notes(&baseline);
    add_notes(
        &baseline,
        &candidate,
        &comparison,
        include_failed,
        &mut notes,
    );
    if more_labels > 0 {
        notes.add(format!(
            "only the first {MAX_METRICS} metrics are compared; name the other {more_labels} in \
             metric_labels"
        ));
    }
    let flips = flips(&comparison);
    let total = flips.len();
    // Further pages have flips only.
    let (head, tail) = if first > 0 {
        (JsonObject::default(), JsonObject::default())
    } else {
        (head(&baseline, &candidate, &comparison), tail(&comparison))
    };
    Page::list(head, "flips", flips.into_iter().skip(first).collect())
        .next_offset(&list, first, total)
        .tail(tail)
        .notes(notes)
        .write(budget)
}

/// Compares the experiments on a thread of its own: ten metrics of thousands of records take long.
async fn compare(
    baseline: &Arc<LoadedExperiment>,
    candidate: &Arc<LoadedExperiment>,
    labels: Vec<String>,
    arguments: Arguments,
) -> Result<ExperimentComparison, ToolError> {
    let (baseline, candidate) = (Arc::clone(baseline), Arc::clone(candidate));
    tokio::task::spawn_blocking(move || {
        let options = CompareOptions {
            labels: &labels,
            lower_is_better: &arguments.lower_is_better.unwrap_or_default(),
            segment_by: arguments.segment_by_dimension.as_deref(),
            include_failed: arguments.include_failed.unwrap_or(false),
        };
        experiment::compare(&baseline.data.events, &candidate.data.events, options)
    })
    .await
    .map_err(|_| ToolError::new(Some(500), "the comparison was cancelled", "try again"))
}

impl Arguments {
    fn example(&self) -> Value {
        json!({"baseline_experiment_id": candidate(&self.baseline_experiment_id),
            "candidate_experiment_id": candidate(&self.candidate_experiment_id)})
    }

    fn list_request(&self) -> ListRequest {
        let ids = |ids: &Option<IdList>| format!("{:?}", ids.as_deref());
        let parts = [
            self.baseline_experiment_id.clone(),
            self.candidate_experiment_id.clone(),
            ids(&self.metric_labels),
            ids(&self.lower_is_better),
            self.segment_by_dimension.clone().unwrap_or_default(),
            self.include_failed.unwrap_or(false).to_string(),
        ];
        ListRequest::new(NAME, parts, self.example())
    }

    fn check(&self) -> Result<(), ToolError> {
        if self.baseline_experiment_id != self.candidate_experiment_id {
            return Ok(());
        }
        Err(ToolError::arguments(
            "baseline and candidate are the same experiment",
            "list_llmobs_experiments lists other experiments; to compare the runs of one \
             experiment, call get_llmobs_experiment_metric_values with segment_by_dimension: \
             run_iteration",
        )
        .example(
            "get_llmobs_experiment_summary",
            json!({"experiment_id": candidate(&self.baseline_experiment_id)}),
        ))
    }

    fn check_labels(
        &self,
        baseline: &LoadedExperiment,
        candidate_experiment: &LoadedExperiment,
    ) -> Result<(), ToolError> {
        let known = shared_labels(baseline, candidate_experiment);
        let requested = [&self.metric_labels, &self.lower_is_better];
        let mut requested = requested.into_iter().flatten().flat_map(|ids| ids.iter());
        let Some(label) = requested.find(|label| !known.contains(label)) else {
            return Ok(());
        };
        Err(ToolError::new(
            Some(404),
            format!("metric not found in both experiments: {}", candidate(label)),
            "`candidates` lists the metrics that both experiments have with the same type, nearest \
             first",
        )
        .example(NAME, self.example())
        .candidates(rank(label, known.iter().map(String::as_str))))
    }

    fn check_dimension(
        &self,
        baseline: &LoadedExperiment,
        candidate_experiment: &LoadedExperiment,
    ) -> Result<(), ToolError> {
        let Some(key) = &self.segment_by_dimension else {
            return Ok(());
        };
        let mut known = dimensions(&baseline.data.events);
        known.extend(dimensions(&candidate_experiment.data.events));
        if known.iter().any(|dimension| dimension.key == *key) {
            return Ok(());
        }
        let mut near = rank(key, known.iter().map(|dimension| dimension.key.as_str()));
        near.dedup();
        Err(ToolError::new(
            Some(404),
            format!("dimension not found: {}", candidate(key)),
            "`candidates` lists the dimensions of these experiments, nearest first; without \
             segment_by_dimension the worst segments of all dimensions are shown",
        )
        .example(NAME, self.example())
        .candidates(near))
    }
}

/// The metrics that both experiments have with the same type.
fn shared_labels(baseline: &LoadedExperiment, candidate: &LoadedExperiment) -> Vec<String> {
    let other = metric_labels(&candidate.data.events);
    metric_labels(&baseline.data.events)
        .into_iter()
        .filter(|info| other.contains(info))
        .map(|info| info.label)
        .collect()
}
