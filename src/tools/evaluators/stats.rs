//! `get_llmobs_eval_aggregate_stats`: statistics of the evaluations with one name.
//!
//! The statistics of the site are used if it returns them. Otherwise spans are counted here, and the
//! answer describes the sample.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::configuration::check_name;
use super::scan::{ScanLimits, scan_spans};
use crate::render::Budget;
use crate::tools::answer::{Notes, WindowText};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::spans::span_search;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::SpanSearch;
use llmobs_core::analysis::evaluators::EvaluationCounter;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::{Field, combine::SpanFilters};

const NAME: &str = "get_llmobs_eval_aggregate_stats";
const SCAN_LIMITS: ScanLimits = ScanLimits {
    spans: 20_000,
    time: Duration::from_secs(25),
};

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
    eval_name: String,
    /// Only spans of this application.
    ml_app: Option<String>,
    /// Start, by span start. Default now-1d.
    from: Option<String>,
    /// End. Default now.
    to: Option<String>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (name, ml_app) = (arguments.eval_name.as_str(), arguments.ml_app.as_deref());
    check_name(name)?;
    let window = (arguments.from.as_deref(), arguments.to.as_deref());
    let window = args::window(
        NAME,
        window,
        "now-1d",
        context.now_ms,
        || json!({"eval_name": name, "from": "now-7d"}),
    )?;
    let mut notes = Notes::default();
    let site_stats = context.client.evaluation_stats(name, ml_app, window).await;
    let (mut stats, source, sample) = match site_stats {
        Ok(stats) => (stats, "site", Value::Null),
        Err(gap) => {
            notes.add_gaps(&[gap]);
            let (stats, sample) = count_spans(context, name, ml_app, window, &mut notes).await?;
            (stats, "counted", sample)
        }
    };
    add_pass_rate(&mut stats);
    if stats.get("total_count").and_then(Value::as_u64) == Some(0) {
        notes.add(
            "no span in the time window has an evaluation with this name: extend `from`, check the \
             name with list_llmobs_evals, and if it is enabled, check with preview_llmobs_evaluator \
             that its filter matches spans",
        );
    }
    let mut answer = JsonObject::default();
    answer.set("eval_name", name);
    answer.set("ml_app", ml_app);
    answer.0.extend(stats);
    answer.set("source", source);
    answer.set_unless_empty("sample", sample);
    answer.set("window", WindowText::from(window));
    write_object(answer, &notes, Budget::of_answer(None))
}

/// Counts the evaluations on spans: the statistics and the sample.
async fn count_spans(
    context: &ToolContext,
    name: &str,
    ml_app: Option<&str>,
    window: TimeWindow,
    notes: &mut Notes,
) -> Result<(Map<String, Value>, Value), ToolError> {
    let filters = SpanFilters {
        ml_app: ml_app.map(str::to_owned),
        ..SpanFilters::default()
    };
    let search = SpanSearch {
        query: Some(has_evaluation(name)),
        ..span_search(filters, window)
    };
    let mut counter = EvaluationCounter::new(name);
    let extent = scan_spans(context, search, SCAN_LIMITS, |span| counter.add(span)).await?;
    if !extent.complete {
        notes
            .add("only the newest spans were counted; a shorter time window is counted completely");
    }
    let stats = match serde_json::to_value(counter.finish())? {
        Value::Object(stats) => stats,
        _ => Map::new(),
    };
    let sample = json!({"spans_read": extent.spans, "complete": extent.complete,
        "oldest_ms": extent.oldest_ms});
    Ok((stats, sample))
}

fn add_pass_rate(stats: &mut Map<String, Value>) {
    let count = |key: &str| stats.get(key).and_then(Value::as_f64);
    if let (None, Some(pass), Some(fail)) = (
        stats.get("pass_rate"),
        count("pass_count"),
        count("fail_count"),
    ) && pass + fail > 0.0
    {
        stats.insert("pass_rate".to_owned(), json!(pass / (pass + fail)));
    }
}

/// A query for spans with an evaluation of that name. It uses both spellings of the facet, because
/// neither finds every type of evaluation on every upstream.
fn has_evaluation(name: &str) -> String {
    let facet = |path: String| Field::Attribute(path);
    format!(
        "{}:* OR {}:*",
        facet(format!("evaluations.custom.{name}")),
        facet(format!("evaluation.{name}.value"))
    )
}
