//! `aggregate_llmobs_spans`: counts, rates, percentiles, tokens, costs and scores, in groups.
//!
//! The hosted toolset has no aggregation over LLM spans, so models would read pages and add the
//! numbers up. One call of this tool shows which prompt version breaks its output, or whether
//! retrieval misses lower the scores of answers.

mod arguments;
mod group_by;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::arguments::{Arguments, NAME, example};
use super::searching::{search_error, span_search};
use super::why_empty;
use crate::render::{Budget, cut_middle};
use crate::tools::answer::{Notes, WindowText};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{SpanSearch, Upstream};
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, Dimension, Group, MeasureValues, Unit,
};
use llmobs_core::model::TimeWindow;
use llmobs_core::query::{combine::SpanFilters, time};

/// Characters of a group key.
const MAX_KEY_CHARS: usize = 200;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Aggregate spans",
    description: "Count and compare LLM observability spans or traces in groups, with statistics: \
        error rate, latency percentiles, tokens, cost, evaluation scores, trends over time. \
        Answers which prompt version, model, tool or release is worse without paging. group_by: \
        facets (@meta.model_name, @meta.input.prompt.version, @meta.error.type, @name, @status), \
        tags (env, version), or {name, query} buckets. unit trace joins spans: a trace is in a \
        group when any of its spans has the value or matches the bucket, and has the scores and \
        costs of all its spans. `share` is the group's fraction of all units with the same keys \
        except the last. Percentiles are exact (nearest rank); LLM calls recorded twice count \
        once; `known_for` is the number of units that reported the figure. Example: unit trace, \
        group_by [\"@meta.input.prompt.version\", \
        {name: malformed, query: @name:parse_answer @status:error}].",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

/// A position in the groups, and the time window of the first page, so that `now` does not move
/// between pages.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct GroupPosition {
    #[serde(rename = "o")]
    offset: usize,
    #[serde(rename = "w")]
    window: (i64, i64),
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments).map_err(|error| {
        error
            .hint("correct the argument; the example is a call that works")
            .example(NAME, example())
    })?;
    let cursor = arguments.cursor.clone();
    let budget = Budget::of_answer(arguments.max_tokens);
    let mut notes = Notes::default();
    let mut request = arguments.request(context.now_ms, &mut notes)?;
    let list = list_request(&request);
    if let Some(position) = list.position::<GroupPosition>(cursor.as_deref())? {
        let (from_ms, to_ms) = position.window;
        request.offset = position.offset;
        request.window = TimeWindow { from_ms, to_ms };
    }
    let result = context.client.aggregate(&request).await;
    let result = result.map_err(|error| search_error(error, NAME, example()))?;
    add_notes(context, &request, &result, &mut notes);

    let mut end = JsonObject::default();
    if result.total.count == 0 {
        let search = equivalent_search(&request);
        end.set_unless_empty("why_empty", why_empty::explain(context, &search).await);
    }
    let mut head = JsonObject::default();
    head.set("unit", json!(request.unit));
    let mut tail = JsonObject::default();
    tail.set("window", WindowText::from(request.window));
    tail.set("rows_read", result.rows_read);
    tail.set_some("rows_matched", result.rows_matched);
    tail.set("sampled", result.sampled);
    let groups = result.groups.into_iter();
    let rows: Vec<JsonObject> = groups.map(|group| group_row(group, &request)).collect();
    let (total, total_groups) = (figures(result.total), result.total_groups);
    let window = (request.window.from_ms, request.window.to_ms);
    Page::custom(head, rows, crate::render::json_chars, |rows, _| {
        let mut keys = JsonObject::default();
        keys.set("groups", json!(rows));
        keys.set("total", total.clone());
        keys.set("total_groups", total_groups);
        keys.0
    })
    .next_cursor(|count| {
        let offset = request.offset + count;
        (offset < total_groups).then(|| list.token(&GroupPosition { offset, window }))?
    })
    .tail(tail)
    .notes(notes)
    .end(end)
    .write(budget)
}

/// Everything that decides the groups, except the time window.
fn list_request(request: &AggregateRequest) -> ListRequest {
    let without_window = AggregateRequest {
        window: TimeWindow {
            from_ms: 0,
            to_ms: 0,
        },
        limit: 0,
        ..request.clone()
    };
    ListRequest::new(NAME, [json!(without_window).to_string()], example())
}

fn group_row(group: Group, request: &AggregateRequest) -> JsonObject {
    let key: Map<String, Value> = request
        .group_by
        .iter()
        .zip(group.key)
        .map(|(dimension, value)| {
            let value = value.map(|text| cut_middle(&text, MAX_KEY_CHARS));
            (dimension.name().to_owned(), Value::from(value))
        })
        .collect();
    let mut row = JsonObject::default();
    row.set_some("time", group.time_ms.map(time::format_rfc3339));
    row.set_unless_empty("key", key);
    row.set("count", group.measured.count);
    row.set_some(
        "share",
        group.share.map(|share| (share * 1e4).round() / 1e4),
    );
    row.0.extend(group.measured.values);
    row
}

fn figures(figures: MeasureValues) -> JsonObject {
    let mut row = JsonObject::default();
    row.set("count", figures.count);
    row.0.extend(figures.values);
    row
}

/// Notes about units in several groups and about groupings without values.
fn add_notes(
    context: &ToolContext,
    request: &AggregateRequest,
    result: &Aggregation,
    notes: &mut Notes,
) {
    notes.extend(result.notes.iter().cloned());
    let units = match request.unit {
        Unit::Span => "spans",
        Unit::Trace => "traces",
    };
    if result.units_in_several_groups > 0 {
        notes.add(format!(
            "{} {units} are in several groups, so counts and sums of the groups exceed the total",
            result.units_in_several_groups
        ));
    }
    for (dimension, has_values) in request.group_by.iter().zip(&result.has_values) {
        if *has_values || result.total.count == 0 {
            continue;
        }
        notes.add(match (dimension, context.client.upstream()) {
            (Dimension::Buckets(_), _) => format!("none of the {units} matches a bucket"),
            (Dimension::Facet(name), Upstream::Local) => {
                format!("none of the {units} has a value of {name}")
            }
            (Dimension::Facet(name), _) => format!(
                "none of the {units} has a value of {name}: the documented API does not return \
                 errors, prompts, documents and sessions; group by {{name, query}} buckets, which \
                 the site evaluates"
            ),
        });
    }
}

/// The search for the spans that the aggregation counts.
fn equivalent_search(request: &AggregateRequest) -> SpanSearch {
    let filters = SpanFilters {
        tags: request.tags.clone(),
        ..request.span_filters()
    };
    SpanSearch {
        query: request.query.clone(),
        ..span_search(filters, request.window)
    }
}
