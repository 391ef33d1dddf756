//! `get_llmobs_eval_aggregate_stats`: what the evaluations of one name add up to. The site's own
//! sums where it gives them, else counted from spans, with the sample stated.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::walk::walk;
use super::{check_name, parse};
use crate::render::{Budget, Shrink, fit};
use crate::tools::answer::{Notes, Window};
use crate::tools::args::{self, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::SpanSearch;
use llmobs_core::analysis::evaluators::EvaluationCounter;
use llmobs_core::query::{Field, combine::SpanFilters};

const NAME: &str = "get_llmobs_eval_aggregate_stats";
/// Spans that are counted at most.
const MOST_SPANS: usize = 20_000;
const TIME: Duration = Duration::from_secs(25);

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Evaluation statistics",
    description: "Statistics of one LLM evaluation over a time window: total_count, pass_count, \
        fail_count, pass_rate (0 to 1), score distribution, top_values. Failing spans: \
        search_llmobs_spans with @evaluation.NAME.assessment:fail.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Name of the evaluation.
    eval_name: Text,
    /// Only spans of this application.
    ml_app: Option<Text>,
    /// Start, by span start. Default now-1d.
    from: Option<When>,
    /// End. Default now.
    to: Option<When>,
}

#[derive(Serialize)]
struct Answer {
    eval_name: String,
    ml_app: Option<String>,
    #[serde(flatten)]
    sums: Map<String, Value>,
    source: &'static str,
    #[serde(skip_serializing_if = "Value::is_null")]
    sample: Value,
    window: Window,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
}

/// A handful of numbers: there is nothing to leave out.
impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    fn keep(&mut self, _count: usize) {}
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = parse(NAME, arguments)?;
    let name = arguments.eval_name.0;
    check_name(&name)?;
    let ml_app = arguments.ml_app.map(|app| app.0);
    let window = args::window(
        NAME,
        arguments.from.as_ref(),
        arguments.to.as_ref(),
        "now-1d",
        context.now_ms,
        || json!({"eval_name": name, "from": "now-7d"}),
    )?;
    let mut notes = Notes::default();
    let asked = context
        .client
        .evaluation_stats(&name, ml_app.as_deref(), window)
        .await;
    let (mut sums, source, sample) = match asked {
        Ok(sums) => (sums, "site", Value::Null),
        Err(gap) => {
            notes.gaps(&[gap]);
            let search = SpanSearch {
                query: Some(has_evaluation(&name)),
                filters: SpanFilters {
                    ml_app: ml_app.clone(),
                    ..SpanFilters::default()
                },
                apm_trace_id: None,
                window,
                limit: 1,
                cursor: None,
                newest_first: true,
                content: false,
            };
            let mut tally = EvaluationCounter::new(&name);
            let walked = walk(context, search, MOST_SPANS, TIME, |span| tally.add(span)).await?;
            if !walked.complete {
                notes.add("counted on the newest spans only; a shorter window is counted whole");
            }
            let sums = match serde_json::to_value(tally.finish())? {
                Value::Object(sums) => sums,
                _ => Map::new(),
            };
            let sample = json!({"spans_read": walked.spans, "complete": walked.complete,
                "oldest_ms": walked.oldest_ms});
            (sums, "counted", sample)
        }
    };
    if !sums.contains_key("pass_rate")
        && let (Some(pass), Some(fail)) = (
            sums.get("pass_count").and_then(Value::as_f64),
            sums.get("fail_count").and_then(Value::as_f64),
        )
        && pass + fail > 0.0
    {
        sums.insert("pass_rate".to_owned(), json!(pass / (pass + fail)));
    }
    if sums.get("total_count").and_then(Value::as_u64) == Some(0) {
        notes.add(
            "no evaluation of this name on spans of the window: widen from, check the name with \
             list_llmobs_evals, and if it is enabled see with preview_llmobs_evaluator whether its \
             filter matches anything",
        );
    }
    let answer = Answer {
        eval_name: name,
        ml_app,
        sums,
        source,
        sample,
        window: window.into(),
        notes,
    };
    Ok(fit(answer, Budget::asked(None, Budget::MAX_TOKENS))?)
}

/// Spans with an evaluation of that name, in both spellings of the facet: not every type is found
/// by either of them everywhere.
fn has_evaluation(name: &str) -> String {
    let facet = |path: String| Field::Attribute(path);
    format!(
        "{}:* OR {}:*",
        facet(format!("evaluations.custom.{name}")),
        facet(format!("evaluation.{name}.value"))
    )
}
