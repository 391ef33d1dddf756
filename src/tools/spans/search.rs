//! `search_llmobs_spans`: find spans by a query and by plain filters, all of them together.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::summary::Summary;
use super::why_empty;
use super::{id_window, trace_url};
use crate::render::{Budget, Shrink, fit, to_json};
use crate::tools::answer::{self, Notes, Window, decode, encode, mark};
use crate::tools::args::{self, Count, Flag, Tags, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{ClientError, SpanPage, SpanSearch, SpanSelection};
use llmobs_core::model::{Span, SpanId, SpanKind, TimeWindow, TraceId};
use llmobs_core::query::{self, combine::SpanFilters};

const NAME: &str = "search_llmobs_spans";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;
/// Up to this many rows are read with inputs and outputs of any length for their previews.
const FULL_PREVIEW_ROWS: usize = 100;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Search spans",
    description: "Search LLM observability spans and traces: LLM calls, agents, tools, retrievals, \
        errors, sessions, evaluations. All filters must hold together. query uses Datadog syntax: \
        @ml_app:\"my app\" @status:error -@name:ping @duration:>5s @meta.span.kind:llm \
        @meta.error.type:*Timeout* @metrics.total_tokens:>1000 @session_id:abc env:prod \
        @evaluation.faithfulness.value:<0.5 @evaluations.custom.tone:* (a OR b) \"free text\". \
        OR and NOT are upper case. Newest first; next_cursor leads to older spans. Then open a \
        trace with get_llmobs_trace or read a span with get_llmobs_span_details.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Span query; see the description.
    query: Option<Text>,
    /// Tags that must all match, e.g. {"env": "prod"}; session_id works here too.
    tags: Option<Tags>,
    /// Exact trace id.
    trace_id: Option<Text>,
    /// Exact span id.
    span_id: Option<Text>,
    /// APM trace id: finds the LLM trace of an APM trace.
    apm_trace_id: Option<Text>,
    /// agent, workflow, llm, tool, task, embedding, retrieval or experiment.
    span_kind: Option<Text>,
    /// Exact span name.
    span_name: Option<Text>,
    /// Exact application name.
    ml_app: Option<Text>,
    /// Exact session id.
    session_id: Option<Text>,
    /// Only spans without a parent: one per trace as a rule.
    root_spans_only: Option<Flag>,
    /// Start: now-7d, 15m (ago), RFC 3339 or epoch ms. Default now-1d; now-90d when an id is given.
    from: Option<When>,
    /// End. Default now.
    to: Option<When>,
    /// Rows per page. Default 20, at most 500.
    limit: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// true: rows without tags, model and previews.
    summary: Option<Flag>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<Count>,
}

#[derive(Serialize)]
struct Answer {
    spans: Vec<Summary>,
    returned: usize,
    next_cursor: Option<String>,
    window: Window,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip_serializing_if = "Value::is_null")]
    why_empty: Value,
}

/// A page that came whole: [`page_that_fits`] asked for no more rows than there is room for, so
/// that the cursor is the upstream's own and stands exactly after the last row.
impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    fn keep(&mut self, _count: usize) {}
}

/// A place in a search: the upstream's cursor, and the window as it was when the search began, so
/// that `now` does not move between pages.
#[derive(Serialize, Deserialize)]
struct Place {
    u: String,
    f: i64,
    t: i64,
    q: u64,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let mut notes = Notes::default();
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );
    let brief = arguments.summary.is_some_and(|flag| flag.0);
    let limit = limit(arguments.limit, &mut notes);
    let mut search = question(&arguments, context.now_ms, &mut notes)?;
    let mark = question_mark(&search);
    if let Some(cursor) = &arguments.cursor {
        let place: Place =
            decode(&cursor.0).ok_or_else(|| answer::unreadable_cursor(NAME, example()))?;
        if place.q != mark {
            return Err(answer::foreign_cursor(NAME, example()));
        }
        search.cursor = Some(place.u);
        search.window = TimeWindow {
            from_ms: place.f,
            to_ms: place.t,
        };
    }
    let mut found = page_that_fits(context, &mut search, limit, budget, brief).await?;
    if found.rows.is_empty() && names_an_id(&search) && search.cursor.is_none() {
        let asked = std::mem::replace(&mut search.window, id_window(context.now_ms));
        found = page_that_fits(context, &mut search, limit, budget, brief).await?;
        if found.rows.is_empty() {
            search.window = asked;
        } else {
            notes.add("nothing lies in the asked window; these were found by id outside it");
        }
    }
    notes.extend(found.notes);
    if found.partial {
        notes.add("the site ran out of time: rows may be missing; narrow the window or the query");
    }
    let why_empty = if found.rows.is_empty() && search.cursor.is_none() {
        why_empty::explain(context, &search).await
    } else {
        Value::Null
    };
    let place = found.next_cursor.map(|cursor| Place {
        u: cursor,
        f: search.window.from_ms,
        t: search.window.to_ms,
        q: mark,
    });
    let answer = Answer {
        returned: found.rows.len(),
        spans: found.rows,
        next_cursor: place.as_ref().map(encode),
        window: search.window.into(),
        notes,
        why_empty,
    };
    Ok(fit(answer, budget)?)
}

fn example() -> Value {
    json!({"query": "@ml_app:\"my-app\" @status:error", "root_spans_only": true, "from": "now-7d", "limit": 20})
}

fn limit(asked: Option<Count>, notes: &mut Notes) -> usize {
    let asked = asked.map_or(DEFAULT_LIMIT, |count| count.0);
    if asked > MAX_LIMIT {
        notes.add(format!(
            "limit was brought down to {MAX_LIMIT}; next_cursor leads to the rest"
        ));
    }
    asked.clamp(1, MAX_LIMIT)
}

/// The search that the arguments ask for; each filter stands beside the others.
fn question(
    arguments: &Arguments,
    now_ms: i64,
    notes: &mut Notes,
) -> Result<SpanSearch, ToolError> {
    let text = |value: &Option<Text>| value.as_ref().map(|text| text.0.clone());
    let query = text(&arguments.query).filter(|query| query != "*");
    if let Some(query) = &query {
        query::check_balance(query).map_err(|error| {
            ToolError::arguments(
                format!("the query cannot be sent: {error}"),
                "close every quote and bracket; quote values that hold blanks or colons",
            )
            .example(NAME, example())
        })?;
        match query::parse(query) {
            Ok(parsed) => notes.extend(parsed.warnings()),
            Err(error) => notes.add(format!(
                "the query was sent as it is, though this server cannot read it: {error}"
            )),
        }
    }
    let mut session_id = text(&arguments.session_id);
    let mut tags = arguments.tags.clone().unwrap_or_default().0;
    if session_id.is_none()
        && let Some(at) = tags.iter().position(|(key, _)| key == "session_id")
    {
        session_id = Some(tags.remove(at).1);
    }
    let span_kind = text(&arguments.span_kind).map(|kind| kind.to_ascii_lowercase());
    if let Some(kind) = span_kind.as_deref()
        && !SpanKind::NAMED.iter().any(|named| named.as_str() == kind)
    {
        notes.add("span_kind is none of agent, workflow, llm, tool, task, embedding, retrieval, experiment, step");
    }
    let has_id = [
        &arguments.trace_id,
        &arguments.span_id,
        &arguments.apm_trace_id,
    ]
    .iter()
    .any(|id| id.is_some());
    let default_from = if has_id || session_id.is_some() {
        super::ID_WINDOW
    } else {
        "now-1d"
    };
    let window = args::window(
        NAME,
        arguments.from.as_ref(),
        arguments.to.as_ref(),
        default_from,
        now_ms,
        example,
    )?;
    Ok(SpanSearch {
        query,
        filters: SpanFilters {
            ml_app: text(&arguments.ml_app),
            span_kind,
            span_name: text(&arguments.span_name),
            trace_id: text(&arguments.trace_id),
            span_id: text(&arguments.span_id),
            session_id,
            tags,
            root_spans_only: arguments.root_spans_only.is_some_and(|flag| flag.0),
        },
        apm_trace_id: text(&arguments.apm_trace_id),
        window,
        limit: DEFAULT_LIMIT,
        cursor: None,
        newest_first: true,
        content: false,
    })
}

fn names_an_id(search: &SpanSearch) -> bool {
    let filters = &search.filters;
    filters.trace_id.is_some()
        || filters.span_id.is_some()
        || filters.session_id.is_some()
        || search.apm_trace_id.is_some()
}

/// A mark of everything that was asked but the window and the page.
fn question_mark(search: &SpanSearch) -> u64 {
    let filters = &search.filters;
    let plain = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut parts = vec![
        plain(&search.query),
        plain(&filters.ml_app),
        plain(&filters.span_kind),
        plain(&filters.span_name),
        plain(&filters.trace_id),
        plain(&filters.span_id),
        plain(&filters.session_id),
        plain(&search.apm_trace_id),
        filters.root_spans_only.to_string(),
    ];
    parts.extend(
        filters
            .tags
            .iter()
            .map(|(key, value)| format!("{key}:{value}")),
    );
    mark(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Rows as the answer shows them, with the upstream's own cursor after the last of them.
struct Found {
    rows: Vec<Summary>,
    next_cursor: Option<String>,
    partial: bool,
    notes: Vec<String>,
}

/// Asks for a page of `limit` rows, and, when these are more than the budget holds, for a shorter
/// one: a cursor after rows that were thrown away would lose them.
async fn page_that_fits(
    context: &ToolContext,
    search: &mut SpanSearch,
    limit: usize,
    budget: Budget,
    brief: bool,
) -> Result<Found, ToolError> {
    /// No row is shorter than this, in characters, brief or with previews.
    const SHORTEST: [usize; 2] = [420, 260];
    const FRAME: usize = 1_200;
    let shortest = if brief { SHORTEST[1] } else { SHORTEST[0] };
    let room = budget.chars().saturating_sub(FRAME.min(budget.chars() / 3));
    search.limit = limit.min(room / shortest + 1).max(1);
    loop {
        let previews = !brief && search.limit <= FULL_PREVIEW_ROWS;
        let trace = search.filters.trace_id.as_deref().filter(|_| previews);
        let trace = trace.map(TraceId::from);
        search.content = previews && trace.is_none();
        let mut page: SpanPage = context.client.search_spans(search).await.map_err(refused)?;
        if let Some(trace) = trace.filter(|_| !page.spans.is_empty()) {
            with_contents(context, &trace, &mut page).await;
        }
        let rows: Vec<Summary> = page
            .spans
            .iter()
            .map(|span| row(context, span, brief))
            .collect();
        let mut used = 0;
        let fitting = rows
            .iter()
            .take_while(|row| {
                used += to_json(row).map_or(0, |text| text.chars().count()) + 1;
                used <= room
            })
            .count()
            .max(1);
        if fitting >= rows.len() || search.limit == 1 {
            let SpanPage {
                next_cursor,
                partial,
                notes,
                ..
            } = page;
            return Ok(Found {
                rows,
                next_cursor,
                partial,
                notes,
            });
        }
        search.limit = fitting.min(search.limit - 1).max(1);
    }
}

/// Gives spans of one trace their contents from what all tools share of it: whoever searches in a
/// trace goes on to read it.
async fn with_contents(context: &ToolContext, trace: &TraceId, page: &mut SpanPage) {
    let client = &context.client;
    let ids: Vec<SpanId> = page.spans.iter().map(|span| span.span_id.clone()).collect();
    let contents = match client.trace(trace, context.now_ms).await {
        Ok(loaded) => client.contents(&loaded, SpanSelection::Spans(&ids)).await,
        Err(error) => Err(error),
    };
    let contents = match contents {
        Ok(contents) => contents,
        Err(error) => {
            page.notes.push(format!("without previews: {error}"));
            return;
        }
    };
    page.notes
        .extend(contents.gaps.iter().map(ToString::to_string));
    for span in &mut page.spans {
        let whole = Arc::clone(contents.with_content(span));
        let span = Arc::make_mut(span);
        span.input = whole.input.clone();
        span.output = whole.output.clone();
    }
}

/// A question that the upstream cannot read comes back with one that it can.
fn refused(error: ClientError) -> ToolError {
    let error = ToolError::from(error);
    match error.status {
        Some(400) => error.example(NAME, example()),
        _ => error,
    }
}

fn row(context: &ToolContext, span: &Arc<Span>, brief: bool) -> Summary {
    Summary::new(span, brief, trace_url(context, span.trace_id.as_str()))
}
