//! `preview_llmobs_evaluator`: what a saved or a draft evaluator would have judged in a window,
//! what that would cost, and the judge's prompt as it would read on real spans.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::walk::{Walked, walk};
use super::{check_name, not_found, parse, refused};
use crate::render::{Budget, Shrink, cut_middle, fit, to_json};
use crate::tools::answer::{Notes, Window};
use crate::tools::args::{self, Count, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{SpanSearch, SpanSelection};
use llmobs_core::analysis::estimate_tokens;
use llmobs_core::analysis::evaluators::{
    RenderedPrompt, find_problems, nested_form, read_draft, render_prompt, session_context,
    span_context, trace_context,
};
use llmobs_core::model::{EvalScope, Evaluator, Span, TimeWindow};
use llmobs_core::query::combine::SpanFilters;

const NAME: &str = "preview_llmobs_evaluator";
/// Spans that are counted at most, of the matching ones and of the application each.
const MOST_SPANS: usize = 5_000;
const TIME: Duration = Duration::from_secs(12);
const DEFAULT_SAMPLE: usize = 2;
const MAX_SAMPLE: usize = 5;
/// Traces of a session that are read for its prompt.
const MAX_TRACES: usize = 10;
/// A longer message of a shown prompt loses its middle, in characters.
const MAX_MESSAGE: usize = 4_000;
const DAY_MS: f64 = 86_400_000.0;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Preview an evaluator",
    description: "Before an LLM evaluator runs: how many spans its filter, scope and sampling would \
        have matched in a window, their share of the application's traffic, estimated prompt tokens \
        per day, and the judge's prompt filled in on real spans, with the placeholders that came out \
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
    eval_name: Option<Text>,
    /// A draft instead.
    draft: Option<Fields>,
    /// Start. Default now-1d.
    from: Option<When>,
    /// End. Default now.
    to: Option<When>,
    /// Prompts to fill in. Default 2, at most 5.
    sample: Option<Count>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<Count>,
}

/// An object, or its JSON text.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Fields(Map<String, Value>);

impl TryFrom<Value> for Fields {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, &'static str> {
        let value = match value {
            Value::String(text) => serde_json::from_str(&text).unwrap_or_default(),
            other => other,
        };
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err("expected an object of evaluator fields"),
        }
    }
}

impl JsonSchema for Fields {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fields".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}

#[derive(Serialize)]
struct Answer {
    eval_name: String,
    saved: bool,
    eval_scope: &'static str,
    application_name: String,
    filter: Option<String>,
    root_spans_only: bool,
    sampling_percentage: Value,
    traffic: Traffic,
    tokens: Value,
    samples: Vec<Sample>,
    #[serde(skip_serializing_if = "is_zero")]
    samples_left_out: usize,
    window: Window,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        let size = |sample| to_json(sample).map_or(0, |text| text.chars().count());
        self.samples.iter().map(size)
    }

    fn keep(&mut self, count: usize) {
        self.samples_left_out += self.samples.len().saturating_sub(count);
        self.samples.truncate(count);
    }
}

/// How much would be judged; `unit` is what one judgement is about.
#[derive(Serialize)]
struct Traffic {
    unit: &'static str,
    matched: u64,
    of_app: u64,
    share_percent: Option<f64>,
    matched_per_day: f64,
    judged_per_day: f64,
    /// `all` when every span of the window was counted, else `estimated`.
    counted: &'static str,
    #[serde(skip_serializing_if = "Value::is_null")]
    sample: Value,
}

#[derive(Serialize)]
struct Sample {
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    prompt_tokens: usize,
    messages: Vec<Message>,
    empty_placeholders: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut_placeholders: Vec<String>,
}

#[derive(Serialize)]
struct Message {
    role: String,
    content: String,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = parse(NAME, arguments)?;
    let mut notes = Notes::default();
    let (evaluator, saved) =
        chosen(context, arguments.eval_name, arguments.draft, &mut notes).await?;
    let window = args::window(
        NAME,
        arguments.from.as_ref(),
        arguments.to.as_ref(),
        "now-1d",
        context.now_ms,
        || json!({"eval_name": evaluator.eval_name, "from": "now-7d"}),
    )?;
    let wanted = arguments.sample.map_or(DEFAULT_SAMPLE, |count| count.0);
    if wanted > MAX_SAMPLE {
        notes.add(format!("sample was brought down to {MAX_SAMPLE}"));
    }
    let target = &evaluator.target;
    let sampling = target
        .sampling_percentage
        .as_ref()
        .and_then(serde_json::Number::as_f64)
        .unwrap_or(100.0);
    let (traffic, matched) = traffic(context, &evaluator, window, sampling).await?;
    let mut samples = Vec::new();
    for span in spread(&matched, wanted.min(MAX_SAMPLE)) {
        samples.extend(sample(context, &evaluator, &span, window, &mut notes).await?);
    }
    if matched.is_empty() {
        notes.add("nothing in the window would be judged: check application_name and filter with search_llmobs_spans");
    }
    let total: usize = samples.iter().map(|sample| sample.prompt_tokens).sum();
    let average = total.checked_div(samples.len());
    let per_day = average.map(|average| (average as f64 * traffic.judged_per_day).round());
    let tokens = json!({
        "prompt_tokens_per_judgement": average,
        "estimated_prompt_tokens_per_day": per_day.map(crate::tools::spans::number),
        "basis": "four characters per token, on the samples; the judge's own answer comes on top",
    });
    let answer = Answer {
        eval_name: evaluator.eval_name.clone(),
        saved,
        eval_scope: target.eval_scope.as_str(),
        application_name: target.application_name.clone(),
        filter: target.filter.clone(),
        root_spans_only: target.root_spans_only,
        sampling_percentage: crate::tools::spans::number(sampling),
        traffic,
        tokens,
        samples,
        samples_left_out: 0,
        window: window.into(),
        notes,
    };
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );
    Ok(fit(answer, budget)?)
}

fn as_draft(mended: Map<String, Value>) -> Value {
    Value::Object(Map::from_iter([(
        "draft".to_owned(),
        Value::Object(mended),
    )]))
}

/// The saved evaluator or the draft that the caller means.
async fn chosen(
    context: &ToolContext,
    eval_name: Option<Text>,
    draft: Option<Fields>,
    notes: &mut Notes,
) -> Result<(Evaluator, bool), ToolError> {
    match (eval_name, draft) {
        (_, Some(Fields(fields))) => {
            let draft = read_draft(&fields);
            let found = find_problems(&draft);
            if found.is_empty() {
                Ok((draft.evaluator, false))
            } else {
                Err(refused(NAME, as_draft, &draft, &found))
            }
        }
        (Some(Text(name)), None) => {
            check_name(&name)?;
            let Some(evaluator) = context.client.evaluator(&name).await? else {
                return Err(not_found(context, &name).await);
            };
            for problem in find_problems(&read_draft(&nested_form(&evaluator))) {
                notes.add(format!(
                    "the saved configuration has a fault: `{}` {}",
                    crate::render::candidate(&problem.field),
                    problem.reason
                ));
            }
            Ok((evaluator, true))
        }
        (None, None) => {
            let nothing = read_draft(&Map::new());
            let error = refused(NAME, as_draft, &nothing, &nothing.problems);
            Err(ToolError {
                error: "neither `eval_name` nor `draft` was given".to_owned(),
                hint: "name a saved evaluator, or give the fields of a draft as in `example`"
                    .to_owned(),
                ..error
            })
        }
    }
}

/// Counts what matches beside all that the application sent. Gives one span per judgement too.
async fn traffic(
    context: &ToolContext,
    evaluator: &Evaluator,
    window: TimeWindow,
    sampling: f64,
) -> Result<(Traffic, Vec<Arc<Span>>), ToolError> {
    let target = &evaluator.target;
    let scope = target.eval_scope;
    let search = |query: Option<String>, root_spans_only| SpanSearch {
        query,
        filters: SpanFilters {
            ml_app: Some(target.application_name.clone()),
            root_spans_only,
            ..SpanFilters::default()
        },
        apm_trace_id: None,
        window,
        limit: 1,
        cursor: None,
        newest_first: true,
        content: false,
    };
    let roots = target.root_spans_only || scope != EvalScope::Span;
    let mut units = Units::new(scope);
    let matching = search(target.filter.clone(), roots);
    let walked = walk(context, matching, MOST_SPANS, TIME, |span| units.add(span)).await?;
    let mut all = Units::new(scope);
    let everything = search(None, scope != EvalScope::Span);
    let walked_all = walk(context, everything, MOST_SPANS, TIME, |span| all.add(span)).await?;
    let days = ((window.to_ms - window.from_ms) as f64 / DAY_MS).max(1e-6);
    let (matched, of_app) = (
        projected(units.count, walked, window),
        projected(all.count, walked_all, window),
    );
    let complete = walked.complete && walked_all.complete;
    let traffic = Traffic {
        unit: match scope {
            EvalScope::Span => "spans",
            EvalScope::Trace => "traces",
            EvalScope::Session => "sessions",
        },
        matched: whole(matched),
        of_app: whole(of_app),
        share_percent: (of_app > 0.0).then(|| hundredths((matched / of_app * 100.0).min(100.0))),
        matched_per_day: hundredths(matched / days),
        judged_per_day: hundredths(matched / days * sampling / 100.0),
        counted: if complete { "all" } else { "estimated" },
        sample: if complete {
            Value::Null
        } else {
            json!({"newest_matching_spans_read": walked.spans, "newest_spans_of_app_read": walked_all.spans})
        },
    };
    Ok((traffic, units.spans))
}

/// What one judgement is about, counted once each.
struct Units {
    scope: EvalScope,
    seen: HashSet<String>,
    count: usize,
    spans: Vec<Arc<Span>>,
}

impl Units {
    fn new(scope: EvalScope) -> Self {
        Self {
            scope,
            seen: HashSet::new(),
            count: 0,
            spans: Vec::new(),
        }
    }

    fn add(&mut self, span: &Arc<Span>) {
        let new = match self.scope {
            EvalScope::Span => true,
            EvalScope::Trace => self.seen.insert(span.trace_id.as_str().to_owned()),
            EvalScope::Session => match &span.session_id {
                Some(session) => self.seen.insert(session.clone()),
                None => false,
            },
        };
        if new {
            self.count += 1;
            self.spans.push(Arc::clone(span));
        }
    }
}

/// The number in the whole window, from the number in the newest part of it that was read.
fn projected(count: usize, walked: Walked, window: TimeWindow) -> f64 {
    let count = count as f64;
    match walked.oldest_ms {
        Some(oldest) if !walked.complete => {
            let read = (window.to_ms - oldest).max(1) as f64;
            count * ((window.to_ms - window.from_ms) as f64 / read).max(1.0)
        }
        _ => count,
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, never negative"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// So many spans, evenly over all that there are.
fn spread(spans: &[Arc<Span>], wanted: usize) -> Vec<Arc<Span>> {
    let wanted = wanted.min(spans.len());
    (0..wanted)
        .filter_map(|number| spans.get(number * spans.len() / wanted).cloned())
        .collect()
}

/// The prompt on one span, on its trace, or on its session, by the evaluator's scope.
async fn sample(
    context: &ToolContext,
    evaluator: &Evaluator,
    span: &Arc<Span>,
    window: TimeWindow,
    notes: &mut Notes,
) -> Result<Option<Sample>, ToolError> {
    let scope = evaluator.target.eval_scope;
    let seen = match scope {
        EvalScope::Span => {
            let Some(span) = whole_span(context, span, window).await? else {
                return Ok(None);
            };
            span_context(&span)
        }
        EvalScope::Trace => whole_trace(context, span, notes).await?,
        EvalScope::Session => {
            let session = span.session_id.clone().unwrap_or_default();
            let search = SpanSearch {
                filters: SpanFilters {
                    ml_app: Some(evaluator.target.application_name.clone()),
                    session_id: Some(session.clone()),
                    root_spans_only: true,
                    ..SpanFilters::default()
                },
                limit: MAX_TRACES,
                newest_first: false,
                ..one_span(span, window)
            };
            let page = context.client.search_spans(&search).await?;
            if page.next_cursor.is_some() {
                notes.add(format!(
                    "only the first {MAX_TRACES} traces of a session were read"
                ));
            }
            let mut traces = Vec::new();
            for root in &page.spans {
                traces.push(whole_trace(context, root, notes).await?);
            }
            session_context(&session, &traces)
        }
    };
    let RenderedPrompt {
        messages,
        empty,
        cut,
    } = render_prompt(evaluator, &seen);
    let chars: usize = messages.iter().map(|(_, text)| text.chars().count()).sum();
    Ok(Some(Sample {
        trace_id: span.trace_id.as_str().to_owned(),
        span_id: (scope == EvalScope::Span).then(|| span.span_id.as_str().to_owned()),
        session_id: span
            .session_id
            .clone()
            .filter(|_| scope == EvalScope::Session),
        prompt_tokens: estimate_tokens(chars),
        messages: messages
            .into_iter()
            .map(|(role, text)| Message {
                role,
                content: cut_middle(&text, MAX_MESSAGE),
            })
            .collect(),
        empty_placeholders: empty,
        cut_placeholders: cut,
    }))
}

fn one_span(span: &Span, window: TimeWindow) -> SpanSearch {
    SpanSearch {
        query: None,
        filters: SpanFilters {
            trace_id: Some(span.trace_id.as_str().to_owned()),
            span_id: Some(span.span_id.as_str().to_owned()),
            ..SpanFilters::default()
        },
        apm_trace_id: None,
        window,
        limit: 1,
        cursor: None,
        newest_first: true,
        content: true,
    }
}

async fn whole_span(
    context: &ToolContext,
    span: &Span,
    window: TimeWindow,
) -> Result<Option<Arc<Span>>, ToolError> {
    let search = one_span(span, window);
    Ok(context
        .client
        .search_spans(&search)
        .await?
        .spans
        .into_iter()
        .next())
}

async fn whole_trace(
    context: &ToolContext,
    span: &Span,
    notes: &mut Notes,
) -> Result<Value, ToolError> {
    let loaded = context.client.trace(&span.trace_id, context.now_ms).await?;
    notes.extend(loaded.notes.iter().cloned());
    let contents = context.client.contents(&loaded, SpanSelection::All).await?;
    notes.gaps(&contents.gaps);
    let spans = loaded
        .tree
        .spans()
        .iter()
        .map(|span| contents.with_content(span).as_ref());
    Ok(trace_context(span.trace_id.as_str(), spans))
}
