//! `search_llmobs_spans`: spans that match a query and filters.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::opened_trace::trace_url;
use super::searching::{ID_WINDOW, check_query, id_window, search_error, span_search};
use super::summary::summary;
use super::why_empty;
use crate::render::{Budget, json_chars};
use crate::tools::answer::{Notes, WindowText};
use crate::tools::args::{self, Tags};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, write_object};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{SpanPage, SpanSearch, SpanSelection};
use llmobs_core::model::{Span, SpanId, SpanKind, TimeWindow, TraceId};
use llmobs_core::query::{combine::SpanFilters, time};

const NAME: &str = "search_llmobs_spans";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;
/// Pages of at most this many rows are read with inputs and outputs of any size for the previews.
const MAX_ROWS_WITH_PREVIEW: usize = 100;
/// No row has fewer characters of JSON.
const MIN_ROW_CHARS: usize = 420;
/// No row without previews has fewer characters of JSON.
const MIN_BRIEF_ROW_CHARS: usize = 260;
/// Characters of JSON around the rows.
const FRAME_CHARS: usize = 1_200;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Search spans",
    description: "Search LLM observability spans and traces: LLM calls, agents, tools, retrievals, \
        errors, sessions, evaluations. All filters must match. query uses Datadog syntax: \
        @ml_app:\"my app\" @status:error -@name:ping @duration:>5s @meta.span.kind:llm \
        @meta.error.type:*Timeout* @metrics.total_tokens:>1000 @session_id:abc env:prod \
        @evaluation.faithfulness.value:<0.5 @evaluations.custom.tone:* (a OR b) \"free text\". \
        OR and NOT are upper case. Newest first; next_cursor continues with older spans. Then open \
        a trace with get_llmobs_trace or read a span with get_llmobs_span_details.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Span query; see the description.
    query: Option<String>,
    /// Tags that must all match, e.g. {"env": "prod"}; session_id works here too.
    tags: Option<Tags>,
    /// Exact trace id.
    trace_id: Option<String>,
    /// Exact span id.
    span_id: Option<String>,
    /// APM trace id: finds the LLM trace of an APM trace.
    apm_trace_id: Option<String>,
    /// agent, workflow, llm, tool, task, embedding, retrieval or experiment.
    span_kind: Option<String>,
    /// Exact span name.
    span_name: Option<String>,
    /// Exact application name.
    ml_app: Option<String>,
    /// Exact session id.
    session_id: Option<String>,
    /// Only spans without a parent: usually one per trace.
    root_spans_only: Option<bool>,
    /// Start: now-7d, 15m (ago), RFC 3339 or epoch ms. Default now-1d; now-90d when an id is given.
    from: Option<String>,
    /// End. Default now.
    to: Option<String>,
    /// Rows per page. Default 20, at most 500.
    limit: Option<usize>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
    /// true: rows without tags, model and previews.
    summary: Option<bool>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<usize>,
}

/// A position in a search: the upstream's page token, and the time window of the first page, so
/// that `now` does not move between pages.
#[derive(Serialize, Deserialize)]
struct SearchPosition {
    #[serde(rename = "u")]
    upstream_token: String,
    #[serde(rename = "w")]
    window: (i64, i64),
}

/// How many rows a page may have, and how they look.
#[derive(Clone, Copy)]
struct RowLimits {
    rows: usize,
    budget: Budget,
    brief: bool,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (cursor, limit) = (arguments.cursor.clone(), arguments.limit);
    let limits = RowLimits {
        rows: limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT),
        budget: Budget::of_answer(arguments.max_tokens),
        brief: arguments.summary.unwrap_or(false),
    };
    let mut notes = Notes::default();
    notes.add_reduced_limit(limit.unwrap_or_default(), MAX_LIMIT);
    let mut search = search_request(arguments, context.now_ms, &mut notes)?;
    let list = list_request(&search);
    if let Some(position) = list.position::<SearchPosition>(cursor.as_deref())? {
        let (from_ms, to_ms) = position.window;
        search.cursor = Some(position.upstream_token);
        search.window = TimeWindow { from_ms, to_ms };
    }
    let mut page = read_page(context, &mut search, limits).await?;
    if page.spans.is_empty() && has_id_filter(&search) && search.cursor.is_none() {
        let window = std::mem::replace(&mut search.window, id_window(context.now_ms));
        page = read_page(context, &mut search, limits).await?;
        if page.spans.is_empty() {
            search.window = window;
        } else {
            notes.add(
                "no span matches in the requested time window; these were found by id outside it",
            );
        }
    }
    notes.extend(std::mem::take(&mut page.notes));
    if page.partial {
        notes.add(
            "the site reached its time limit: rows may be missing; narrow the time window or the \
             query",
        );
    }
    let why_empty = if page.spans.is_empty() && search.cursor.is_none() {
        why_empty::explain(context, &search).await
    } else {
        Value::Null
    };
    let next_cursor = next_cursor(&list, &search, &page, &mut notes);
    // All rows fit (see `read_page`), so none is left out and the upstream's token is exactly after
    // the last row.
    let mut answer = JsonObject::default();
    answer.set("spans", json!(rows(context, &page, limits.brief)));
    answer.set("returned", page.spans.len());
    answer.set("next_cursor", next_cursor);
    answer.set("window", WindowText::from(search.window));
    answer.set_unless_empty("notes", json!(notes));
    answer.set_unless_empty("why_empty", why_empty);
    write_object(answer, &Notes::default(), limits.budget)
}

/// The page token after this page. An upstream's token that is too long to pass on is replaced by a
/// note with the time at which the search continues.
fn next_cursor(
    list: &ListRequest,
    search: &SpanSearch,
    page: &SpanPage,
    notes: &mut Notes,
) -> Option<String> {
    let token = list.token(&SearchPosition {
        upstream_token: page.next_cursor.clone()?,
        window: (search.window.from_ms, search.window.to_ms),
    });
    if token.is_none()
        && let Some(oldest) = page.spans.last()
    {
        notes.add(format!(
            "more spans match, but the upstream's page token is too long to pass on; repeat the \
             search with `to`: {} to continue",
            time::format_rfc3339(oldest.start_ms() + 1)
        ));
    }
    token
}

fn example() -> Value {
    json!({"query": "@ml_app:\"my-app\" @status:error", "root_spans_only": true, "from": "now-7d", "limit": 20})
}

/// The search for the spans that match the query and every filter.
fn search_request(
    arguments: Arguments,
    now_ms: i64,
    notes: &mut Notes,
) -> Result<SpanSearch, ToolError> {
    let query = arguments.query.filter(|query| query != "*");
    if let Some(query) = &query {
        check_query("query", query, notes).map_err(|error| error.example(NAME, example()))?;
    }
    let mut session_id = arguments.session_id;
    let mut tags = arguments.tags.unwrap_or_default().0;
    if session_id.is_none()
        && let Some(index) = tags.iter().position(|(key, _)| key == "session_id")
    {
        session_id = Some(tags.remove(index).1);
    }
    let span_kind = arguments.span_kind.map(|kind| kind.to_ascii_lowercase());
    if let Some(kind) = span_kind.as_deref()
        && !SpanKind::NAMED.iter().any(|named| named.as_str() == kind)
    {
        let kinds: Vec<&str> = SpanKind::NAMED.iter().map(SpanKind::as_str).collect();
        notes.add(format!("span_kind is usually one of {}", kinds.join(", ")));
    }
    let mut search = span_search(
        SpanFilters {
            ml_app: arguments.ml_app,
            span_kind,
            span_name: arguments.span_name,
            trace_id: arguments.trace_id,
            span_id: arguments.span_id,
            session_id,
            tags,
            root_spans_only: arguments.root_spans_only.unwrap_or(false),
        },
        id_window(now_ms),
    );
    search.query = query;
    search.apm_trace_id = arguments.apm_trace_id;
    let default_from = if has_id_filter(&search) {
        ID_WINDOW
    } else {
        "now-1d"
    };
    let window = (arguments.from.as_deref(), arguments.to.as_deref());
    search.window = args::window(NAME, window, default_from, now_ms, example)?;
    Ok(search)
}

fn has_id_filter(search: &SpanSearch) -> bool {
    let filters = &search.filters;
    filters.trace_id.is_some()
        || filters.span_id.is_some()
        || filters.session_id.is_some()
        || search.apm_trace_id.is_some()
}

/// Everything that decides the rows, except the time window.
fn list_request(search: &SpanSearch) -> ListRequest {
    let filters = &search.filters;
    let texts = [
        &search.query,
        &filters.ml_app,
        &filters.span_kind,
        &filters.span_name,
        &filters.trace_id,
        &filters.span_id,
        &filters.session_id,
        &search.apm_trace_id,
    ];
    let texts = texts
        .into_iter()
        .map(|text| text.clone().unwrap_or_default());
    let tags = filters
        .tags
        .iter()
        .map(|(key, value)| format!("{key}:{value}"));
    let roots = std::iter::once(filters.root_spans_only.to_string());
    ListRequest::new(NAME, texts.chain(roots).chain(tags), example())
}

fn rows(context: &ToolContext, page: &SpanPage, brief: bool) -> Vec<JsonObject> {
    let row = |span: &Arc<Span>| summary(span, brief, trace_url(context, span.trace_id.as_str()));
    page.spans.iter().map(row).collect()
}

/// Reads a page of at most `limits.rows` spans. If their rows exceed the budget, a shorter page is
/// read instead: a token after rows that are not shown would skip them.
async fn read_page(
    context: &ToolContext,
    search: &mut SpanSearch,
    limits: RowLimits,
) -> Result<SpanPage, ToolError> {
    let min_row_chars = if limits.brief {
        MIN_BRIEF_ROW_CHARS
    } else {
        MIN_ROW_CHARS
    };
    let chars = limits.budget.chars();
    let room = chars.saturating_sub(FRAME_CHARS.min(chars / 3));
    search.limit = limits.rows.min(room / min_row_chars + 1).max(1);
    loop {
        let previews = !limits.brief && search.limit <= MAX_ROWS_WITH_PREVIEW;
        let trace_id = search.filters.trace_id.as_deref().filter(|_| previews);
        let trace_id = trace_id.map(TraceId::from);
        search.content = previews && trace_id.is_none();
        let mut page = context
            .client
            .search_spans(search)
            .await
            .map_err(|error| search_error(error, NAME, example()))?;
        if let Some(trace_id) = trace_id.filter(|_| !page.spans.is_empty()) {
            add_contents(context, &trace_id, &mut page).await;
        }
        let rows = rows(context, &page, limits.brief);
        let mut used = 0;
        let fitting = rows.iter().take_while(|row| {
            used += json_chars(row) + 1;
            used <= room
        });
        let fitting = fitting.count().max(1);
        if fitting >= rows.len() || search.limit == 1 {
            return Ok(page);
        }
        search.limit = fitting.min(search.limit - 1).max(1);
    }
}

/// Adds inputs and outputs to spans of one trace. They come from the cached trace, because a caller
/// that searches in a trace usually reads it next.
async fn add_contents(context: &ToolContext, trace_id: &TraceId, page: &mut SpanPage) {
    let client = &context.client;
    let ids: Vec<SpanId> = page.spans.iter().map(|span| span.span_id.clone()).collect();
    let contents = match client.trace(trace_id, context.now_ms).await {
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
        let full = Arc::clone(contents.with_content(span));
        let span = Arc::make_mut(span);
        span.input = full.input.clone();
        span.output = full.output.clone();
    }
}
