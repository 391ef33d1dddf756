//! `preview_llmobs_evaluator`: the spans that a saved or draft evaluator would have evaluated in a
//! time window, the estimated cost, and the prompt filled in with real spans.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::configuration::{draft_error, read_evaluator};
use super::preview_sample::{Sample, read_sample};
use super::scan::{ScanExtent, ScanLimits, scan_spans};
use crate::render::{Budget, candidate, json_chars};
use crate::tools::answer::{Notes, WindowText};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::{JsonObject, number};
use crate::tools::page::Page;
use crate::tools::spans::span_search;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::SpanSearch;
use llmobs_core::analysis::evaluators::{find_problems, nested_form, read_draft};
use llmobs_core::model::{EvalScope, Evaluator, Span, TimeWindow};
use llmobs_core::query::combine::SpanFilters;

const NAME: &str = "preview_llmobs_evaluator";
/// The limits of each of the two scans: of the matching spans and of all spans of the application.
const SCAN_LIMITS: ScanLimits = ScanLimits {
    spans: 5_000,
    time: Duration::from_secs(12),
};
const DEFAULT_SAMPLES: usize = 2;
const MAX_SAMPLES: usize = 5;
const DAY_MS: f64 = 86_400_000.0;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Preview an evaluator",
    description: "Before an LLM evaluator runs: how many spans its filter, scope and sampling would \
        have matched in a window, their share of the application's traffic, estimated prompt tokens \
        per day, and the judge's prompt filled in with real spans, with the placeholders that were \
        empty. For a saved evaluator (eval_name) or a draft (the fields of \
        create_or_update_llmobs_evaluator). Calls no model, writes nothing.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// A saved evaluator.
    eval_name: Option<String>,
    /// A draft instead.
    draft: Option<Map<String, Value>>,
    /// Start. Default now-1d.
    from: Option<String>,
    /// End. Default now.
    to: Option<String>,
    /// Prompts to fill in. Default 2, at most 5.
    sample: Option<usize>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<usize>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let budget = Budget::of_answer(arguments.max_tokens);
    let mut notes = Notes::default();
    let saved = arguments.draft.is_none();
    let evaluator =
        select_evaluator(context, arguments.eval_name, arguments.draft, &mut notes).await?;
    let window = (arguments.from.as_deref(), arguments.to.as_deref());
    let window = args::window(
        NAME,
        window,
        "now-1d",
        context.now_ms,
        || json!({"eval_name": evaluator.eval_name, "from": "now-7d"}),
    )?;
    let sample_count = arguments.sample.unwrap_or(DEFAULT_SAMPLES);
    if sample_count > MAX_SAMPLES {
        notes.add(format!(
            "`sample` was reduced to the maximum of {MAX_SAMPLES}"
        ));
    }
    let traffic = Traffic::count(context, &evaluator, window).await?;
    let mut samples = Vec::new();
    for span in spread(&traffic.spans, sample_count.min(MAX_SAMPLES)) {
        samples.extend(read_sample(context, &evaluator, span, window, &mut notes).await?);
    }
    if traffic.spans.is_empty() {
        notes.add(
            "nothing in the time window would be evaluated: check application_name and filter with \
             search_llmobs_spans",
        );
    }
    let mut head = head(&evaluator, saved);
    head.set("traffic", traffic.object());
    head.set(
        "tokens",
        token_estimate(&samples, traffic.evaluated_per_day()),
    );
    let mut tail = JsonObject::default();
    tail.set("window", WindowText::from(window));
    let total = samples.len();
    Page::custom(head, samples, json_chars::<Sample>, |samples, _| {
        let mut keys = JsonObject::default();
        keys.set("samples", json!(samples));
        keys.set_unless_empty("samples_left_out", total - samples.len());
        keys.0
    })
    .tail(tail)
    .notes(notes)
    .write(budget)
}

/// The keys that describe the evaluator.
fn head(evaluator: &Evaluator, saved: bool) -> JsonObject {
    let target = &evaluator.target;
    let mut head = JsonObject::default();
    head.set("eval_name", evaluator.eval_name.as_str());
    head.set("saved", saved);
    head.set("eval_scope", target.eval_scope.as_str());
    head.set("application_name", target.application_name.as_str());
    head.set("filter", target.filter.clone());
    head.set("root_spans_only", target.root_spans_only);
    head.set(
        "sampling_percentage",
        number(sampling_percentage(evaluator)),
    );
    head
}

fn token_estimate(samples: &[Sample], evaluated_per_day: f64) -> Value {
    let total: usize = samples.iter().map(Sample::prompt_tokens).sum();
    let average = total.checked_div(samples.len());
    let per_day = average.map(|average| (average as f64 * evaluated_per_day).round());
    json!({
        "prompt_tokens_per_judgement": average,
        "estimated_prompt_tokens_per_day": per_day.map(number),
        "basis": "four characters per token, from the samples; the completion of the judge is not \
                  included",
    })
}

fn draft_arguments(fields: Map<String, Value>) -> Value {
    Value::Object(Map::from_iter([(
        "draft".to_owned(),
        Value::Object(fields),
    )]))
}

/// The draft, or the saved evaluator.
async fn select_evaluator(
    context: &ToolContext,
    eval_name: Option<String>,
    draft: Option<Map<String, Value>>,
    notes: &mut Notes,
) -> Result<Evaluator, ToolError> {
    if let Some(fields) = draft {
        let draft = read_draft(&fields);
        let problems = find_problems(&draft);
        return if problems.is_empty() {
            Ok(draft.evaluator)
        } else {
            Err(draft_error(NAME, draft_arguments, &draft, &problems))
        };
    }
    let Some(name) = eval_name else {
        let empty = read_draft(&Map::new());
        let error = draft_error(NAME, draft_arguments, &empty, &empty.problems);
        return Err(ToolError {
            error: "either `eval_name` or `draft` is required".to_owned(),
            ..error
        }
        .hint("name a saved evaluator, or send the fields of a draft as in `example`"));
    };
    let evaluator = read_evaluator(context, &name).await?;
    for problem in find_problems(&read_draft(&nested_form(&evaluator))) {
        notes.add(format!(
            "the saved configuration has a problem: `{}` {}",
            candidate(&problem.field),
            problem.reason
        ));
    }
    Ok(evaluator)
}

fn sampling_percentage(evaluator: &Evaluator) -> f64 {
    let percentage = evaluator.target.sampling_percentage.as_ref();
    percentage.and_then(Number::as_f64).unwrap_or(100.0)
}

/// How much would be evaluated. The unit is a span, trace or session, by the scope of the evaluator.
struct Traffic {
    scope: EvalScope,
    /// Units that match.
    matched: f64,
    /// Units of the application.
    of_app: f64,
    matched_per_day: f64,
    sampling_percentage: f64,
    /// The two scans, if one of them is incomplete and the numbers are therefore estimates.
    incomplete: Option<(ScanExtent, ScanExtent)>,
    /// One span of each matching unit.
    spans: Vec<Arc<Span>>,
}

impl Traffic {
    async fn count(
        context: &ToolContext,
        evaluator: &Evaluator,
        window: TimeWindow,
    ) -> Result<Self, ToolError> {
        let target = &evaluator.target;
        let scope = target.eval_scope;
        let search = |query: Option<String>, root_spans_only| {
            let filters = SpanFilters {
                ml_app: Some(target.application_name.clone()),
                root_spans_only,
                ..SpanFilters::default()
            };
            SpanSearch {
                query,
                ..span_search(filters, window)
            }
        };
        let units_are_roots = scope != EvalScope::Span;
        let matching = search(
            target.filter.clone(),
            target.root_spans_only || units_are_roots,
        );
        let mut units = Units::new(scope);
        let extent = scan_spans(context, matching, SCAN_LIMITS, |span| units.add(span)).await?;
        let of_app = search(None, units_are_roots);
        let mut app_units = Units::new(scope);
        let app_extent =
            scan_spans(context, of_app, SCAN_LIMITS, |span| app_units.add(span)).await?;
        let days = ((window.to_ms - window.from_ms) as f64 / DAY_MS).max(1e-6);
        let matched = extrapolate(units.spans.len(), extent, window);
        let complete = extent.complete && app_extent.complete;
        Ok(Self {
            scope,
            matched,
            of_app: extrapolate(app_units.spans.len(), app_extent, window),
            matched_per_day: matched / days,
            sampling_percentage: sampling_percentage(evaluator),
            incomplete: (!complete).then_some((extent, app_extent)),
            spans: units.spans,
        })
    }

    fn evaluated_per_day(&self) -> f64 {
        round_hundredths(self.matched_per_day * self.sampling_percentage / 100.0)
    }

    fn object(&self) -> JsonObject {
        let unit = match self.scope {
            EvalScope::Span => "spans",
            EvalScope::Trace => "traces",
            EvalScope::Session => "sessions",
        };
        let percent = (self.matched / self.of_app * 100.0).min(100.0);
        let percent = (self.of_app > 0.0).then(|| round_hundredths(percent));
        let mut object = JsonObject::default();
        object.set("unit", unit);
        object.set("matched", number(self.matched.round()));
        object.set("of_app", number(self.of_app.round()));
        object.set("share_percent", percent);
        object.set("matched_per_day", round_hundredths(self.matched_per_day));
        object.set("judged_per_day", self.evaluated_per_day());
        let Some((extent, app_extent)) = self.incomplete else {
            object.set("counted", "all");
            return object;
        };
        object.set("counted", "estimated");
        object.set(
            "sample",
            json!({"newest_matching_spans_read": extent.spans,
                "newest_spans_of_app_read": app_extent.spans}),
        );
        object
    }
}

/// The units of an evaluation, each with its first span.
struct Units {
    scope: EvalScope,
    seen_ids: HashSet<String>,
    spans: Vec<Arc<Span>>,
}

impl Units {
    fn new(scope: EvalScope) -> Self {
        Self {
            scope,
            seen_ids: HashSet::new(),
            spans: Vec::new(),
        }
    }

    fn add(&mut self, span: &Arc<Span>) {
        let is_new = match self.scope {
            EvalScope::Span => true,
            EvalScope::Trace => self.seen_ids.insert(span.trace_id.as_str().to_owned()),
            EvalScope::Session => match &span.session_id {
                Some(session) => self.seen_ids.insert(session.clone()),
                None => false,
            },
        };
        if is_new {
            self.spans.push(Arc::clone(span));
        }
    }
}

/// The number in the whole time window, from the number in its newest part that was read.
fn extrapolate(count: usize, extent: ScanExtent, window: TimeWindow) -> f64 {
    let count = count as f64;
    match extent.oldest_ms {
        Some(oldest_ms) if !extent.complete => {
            let read_ms = (window.to_ms - oldest_ms).max(1) as f64;
            count * ((window.to_ms - window.from_ms) as f64 / read_ms).max(1.0)
        }
        _ => count,
    }
}

fn round_hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// `count` spans at equal distances.
fn spread(spans: &[Arc<Span>], count: usize) -> impl Iterator<Item = &Arc<Span>> {
    let count = count.min(spans.len());
    (0..count).filter_map(move |index| spans.get(index * spans.len() / count))
}
