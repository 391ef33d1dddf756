//! `compare_llmobs_experiments`: did the candidate get better, and where not.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::compare_answer::answer;
use super::paged::{Paged, counted};
use super::{Keys, load, notes_of};
use crate::render::candidate;
use crate::tools::answer::read_offset;
use crate::tools::args::{self, Count, Flag, Ids, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::LoadedExperiment;
use llmobs_core::analysis::candidates::rank;
use llmobs_core::analysis::experiment::{
    self, CompareOptions, ExperimentComparison, dimensions, metric_labels,
};

pub(super) const NAME: &str = "compare_llmobs_experiments";

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
    baseline_experiment_id: Text,
    /// Experiment UUID to judge.
    candidate_experiment_id: Text,
    /// Only these metrics; all by default.
    metric_labels: Option<Ids>,
    /// Metrics of which less is better.
    lower_is_better: Option<Ids>,
    /// Dimension whose segments to show; the worst of all by default.
    segment_by_dimension: Option<Text>,
    /// Count events whose task failed too.
    include_failed: Option<Flag>,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer: more flips.
    cursor: Option<Text>,
}

/// Metrics compared when none is named: more would drown each other in the correction.
const MOST_METRICS: usize = 50;

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (one, two) = (
        &arguments.baseline_experiment_id.0,
        &arguments.candidate_experiment_id.0,
    );
    let ids = |value: &Option<Ids>| value.as_ref().map(|ids| ids.0.clone()).unwrap_or_default();
    let mut asked = ids(&arguments.metric_labels);
    let lower = ids(&arguments.lower_is_better);
    let dimension = arguments
        .segment_by_dimension
        .as_ref()
        .map(|text| text.0.clone());
    let include_failed = arguments.include_failed.is_some_and(|flag| flag.0);
    if one == two {
        return Err(ToolError::arguments(
            "baseline and candidate are the same experiment",
            "list_llmobs_experiments gives the others; the runs of one experiment are compared by \
             get_llmobs_experiment_metric_values with segment_by_dimension: run_iteration",
        )
        .example(
            "get_llmobs_experiment_summary",
            json!({"experiment_id": candidate(one)}),
        ));
    }
    let question = format!("{one} {two} {asked:?} {lower:?} {dimension:?} {include_failed}");
    let question = [question.as_str()];
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let example = || json!({"baseline_experiment_id": candidate(one), "candidate_experiment_id": candidate(two)});
    let first = read_offset(NAME, cursor, &question, example)?;
    let (baseline, judged) = tokio::join!(load(context, NAME, one), load(context, NAME, two));
    let (baseline, judged) = (baseline?, judged?);
    check_labels(&baseline, &judged, asked.iter().chain(&lower), example)?;
    if let Some(key) = &dimension {
        check_dimension(&baseline, &judged, key, example)?;
    }
    let mut left_out = 0;
    if asked.is_empty() {
        asked = shared(&baseline, &judged);
        left_out = asked.len().saturating_sub(MOST_METRICS);
        asked.truncate(MOST_METRICS);
    }
    let sides = (baseline.clone(), judged.clone());
    let (lower_labels, segment_by) = (lower, dimension.clone());
    // Ten metrics of thousands of records take a while: not on a thread that others wait for.
    let compared = tokio::task::spawn_blocking(move || {
        let options = CompareOptions {
            labels: &asked,
            lower_is_better: &lower_labels,
            segment_by: segment_by.as_deref(),
            include_failed,
        };
        experiment::compare(&sides.0.data.events, &sides.1.data.events, options)
    });
    let compared: ExperimentComparison = compared
        .await
        .map_err(|_| ToolError::new(Some(500), "the comparison was given up", "ask again"))?;
    let mut notes = notes_of(&baseline);
    for (loaded, side) in [(&baseline, "baseline"), (&judged, "candidate")] {
        let known = loaded.experiment.as_ref();
        if known.is_some_and(llmobs_core::model::Experiment::is_running) {
            notes.add(format!(
                "the {side} is still running: the verdict may change"
            ));
        }
        if loaded.data.events.is_empty() {
            notes.add(format!("the {side} has no events"));
        }
    }
    notes.extend(judged.notes.iter().cloned());
    strangers(&baseline, &judged, &mut notes);
    if left_out > 0 {
        notes.add(format!(
            "only the first {MOST_METRICS} metrics are compared; name the other {left_out} in metric_labels"
        ));
    }
    let (head, tail, flips) = answer(&baseline, &judged, &compared, include_failed, &mut notes);
    let rows = flips
        .into_iter()
        .map(|flip| (String::new(), flip))
        .collect();
    let mut paged = Paged::list(head, "flips", counted(rows, first, &question), notes);
    if first > 0 {
        // A further page is asked for its flips.
        paged.head = Keys::default().0;
    } else {
        paged.tail = tail.0;
    }
    paged.fit(arguments.max_tokens)
}

/// Metrics that both have.
fn shared(baseline: &LoadedExperiment, candidate: &LoadedExperiment) -> Vec<String> {
    let other = metric_labels(&candidate.data.events);
    metric_labels(&baseline.data.events)
        .into_iter()
        .filter(|info| other.contains(info))
        .map(|info| info.label)
        .collect()
}

fn check_labels<'a>(
    baseline: &LoadedExperiment,
    judged: &LoadedExperiment,
    asked: impl Iterator<Item = &'a String>,
    example: impl Fn() -> Value,
) -> Result<(), ToolError> {
    let known = shared(baseline, judged);
    for label in asked {
        if !known.contains(label) {
            return Err(ToolError::new(
                Some(404),
                format!("metric not found on both sides: {}", candidate(label)),
                "`candidates` holds the metrics that both experiments have under the same type, \
                 the nearest first",
            )
            .example(NAME, example())
            .candidates(rank(label, known.iter().map(String::as_str))));
        }
    }
    Ok(())
}

fn check_dimension(
    baseline: &LoadedExperiment,
    judged: &LoadedExperiment,
    key: &str,
    example: impl Fn() -> Value,
) -> Result<(), ToolError> {
    let mut known = dimensions(&baseline.data.events);
    known.extend(dimensions(&judged.data.events));
    if known.iter().any(|one| one.key == key) {
        return Ok(());
    }
    let mut near = rank(key, known.iter().map(|one| one.key.as_str()));
    near.dedup();
    Err(ToolError::new(
        Some(404),
        format!("dimension not found: {}", candidate(key)),
        "`candidates` holds dimensions of these experiments, the nearest first; without \
         segment_by_dimension the worst segments of all are shown",
    )
    .example(NAME, example())
    .candidates(near))
}

/// Says when the two were not made to be compared.
fn strangers(
    baseline: &LoadedExperiment,
    judged: &LoadedExperiment,
    notes: &mut crate::tools::answer::Notes,
) {
    let (Some(one), Some(two)) = (&baseline.experiment, &judged.experiment) else {
        return;
    };
    let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
    if two.parent_experiment_id.as_ref() == Some(&one.id) {
        notes.add(
            "the candidate is a re-run of evaluators on the baseline's outputs: what differs is \
             the evaluators, not the task",
        );
    }
    if differ(&one.project_id, &two.project_id) {
        notes.add("the experiments belong to different projects");
    }
    if differ(&one.dataset_id, &two.dataset_id) {
        notes.add("they ran over different datasets: only records with the same id are paired");
    } else if one.dataset_version != two.dataset_version {
        notes.add(
            "they ran over different versions of the dataset: a record may have changed in between",
        );
    }
}
