//! `aggregate_llmobs_spans`: counts, rates, percentiles, tokens, costs and scores, in groups.
//!
//! Ours: the hosted set has no aggregation over LLM spans, so agents page by hand and add up in
//! their heads. One call answers which prompt version breaks its output, or whether retrieval
//! misses lower the scores of answers.

mod ask;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::ask::{GroupBy, Names};
use super::why_empty;
use crate::render::{Budget, Shrink, cut_middle, fit, to_json};
use crate::tools::answer::{self, Notes, Window, decode, encode, mark};
use crate::tools::args::{self, Count, Tags, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{ClientError, SpanSearch, Upstream};
use llmobs_core::analysis::aggregate::{
    AggregateRequest, Aggregation, Dimension, Group, MeasureValues, Unit,
};
use llmobs_core::model::TimeWindow;
use llmobs_core::query::{combine::SpanFilters, time};

const NAME: &str = "aggregate_llmobs_spans";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
/// Longest text of a value to group by.
const MAX_KEY: usize = 200;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Aggregate spans",
    description: "Count and compare LLM observability spans or traces in groups, with statistics: \
        error rate, latency percentiles, tokens, cost, evaluation scores, trends over time. \
        Answers which prompt version, model, tool or release is worse without paging. group_by: \
        facets (@meta.model_name, @meta.input.prompt.version, @meta.error.type, @name, @status), \
        tags (env, version), or {name, query} buckets. unit trace joins spans: a trace is in a \
        group when any of its spans has the value or matches the bucket, and has the scores and \
        costs of all its spans. share is a group's part of the units with the same keys but the last. \
        Percentiles are exact (nearest rank); LLM calls seen twice count once; known_for tells of \
        how many a figure is known. Example: unit trace, group_by [\"@meta.input.prompt.version\", \
        {name: malformed, query: @name:parse_answer @status:error}].",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

// The comments of arguments are words for models, no HTML.
#[allow(rustdoc::invalid_html_tags)]
#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Span query as in search_llmobs_spans. With unit trace: traces with a span that matches.
    query: Option<Text>,
    /// Exact application name.
    ml_app: Option<Text>,
    /// Tags that must all match.
    tags: Option<Tags>,
    /// Start: now-7d, RFC 3339 or epoch ms. Default now-1d.
    from: Option<When>,
    /// End. Default now.
    to: Option<When>,
    /// Up to 3 facets or tags; all {name, query} buckets together count as one.
    group_by: Option<GroupBy>,
    /// count, error_rate, failure_rate (root failed), duration.p50|p95|p99 (ms),
    /// input_tokens|output_tokens|total_tokens|cost .sum|.mean, cost.per_success,
    /// evaluation.<label>.mean|pass_rate. Default count, error_rate.
    measures: Option<Names>,
    /// Time buckets from `from` on: 1h, 1d.
    interval: Option<Text>,
    /// span (default) or trace.
    unit: Option<Text>,
    /// Groups per page. Default 50.
    limit: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
    /// Size of the answer in tokens. Default 8000.
    max_tokens: Option<Count>,
}

#[derive(Serialize)]
struct Answer {
    unit: Unit,
    groups: Vec<Row>,
    total: Row,
    total_groups: usize,
    next_cursor: Option<String>,
    window: Window,
    rows_read: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_matched: Option<u64>,
    sampled: bool,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip_serializing_if = "Value::is_null")]
    why_empty: Value,
    #[serde(skip)]
    place: Place,
}

/// A group as the answer shows it.
#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    key: Map<String, Value>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(flatten)]
    values: Map<String, Value>,
}

impl Row {
    fn of(group: Group, dimensions: &[Dimension]) -> Self {
        let key = dimensions.iter().zip(group.key).map(|(dimension, value)| {
            let value = value.map(|text| cut_middle(&text, MAX_KEY));
            (dimension.name().to_owned(), Value::from(value))
        });
        Self {
            time: group.time_ms.map(time::format_rfc3339),
            key: key.collect(),
            share: group.share.map(|share| (share * 1e4).round() / 1e4),
            ..Self::total(group.measured)
        }
    }

    fn total(figures: MeasureValues) -> Self {
        Self {
            time: None,
            key: Map::new(),
            count: figures.count,
            share: None,
            values: figures.values,
        }
    }
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        let size = |row: &Row| to_json(row).map_or(0, |text| text.chars().count());
        self.groups.iter().map(size)
    }

    fn keep(&mut self, count: usize) {
        self.groups.truncate(count);
        let shown = self.place.o + self.groups.len();
        self.next_cursor = (shown < self.total_groups).then(|| {
            encode(&Place {
                o: shown,
                ..self.place
            })
        });
    }
}

/// A place in the groups of a question, with its window, so that `now` does not move between pages.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Place {
    o: usize,
    f: i64,
    t: i64,
    q: u64,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments).map_err(|error| ToolError {
        hint: "mend that argument; the example is a call that works".to_owned(),
        ..error.example(NAME, example())
    })?;
    let mut notes = Notes::default();
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );
    let mut question = ask::question(&arguments, context.now_ms, &mut notes)?;
    let place = place(&arguments, &mut question)?;
    let found = context.client.aggregate(&question).await.map_err(refused)?;
    let mut answer = Answer {
        unit: question.unit,
        groups: Vec::new(),
        total: Row::total(MeasureValues::default()),
        total_groups: found.total_groups,
        next_cursor: None,
        window: question.window.into(),
        rows_read: found.rows_read,
        rows_matched: found.rows_matched,
        sampled: found.sampled,
        notes,
        why_empty: Value::Null,
        place,
    };
    remark(context, &question, &found, &mut answer.notes);
    let groups = found.groups.into_iter();
    answer.groups = groups
        .map(|group| Row::of(group, &question.group_by))
        .collect();
    answer.total = Row::total(found.total);
    answer.keep(usize::MAX);
    if answer.total.count == 0 {
        answer.why_empty = why_empty::explain(context, &as_search(&question)).await;
    }
    Ok(fit(answer, budget)?)
}

/// Where in the groups the question goes on. A cursor brings the window of the first page.
fn place(arguments: &Arguments, question: &mut AggregateRequest) -> Result<Place, ToolError> {
    let asked = AggregateRequest {
        window: TimeWindow {
            from_ms: 0,
            to_ms: 0,
        },
        limit: 0,
        ..question.clone()
    };
    let q = mark(&[json!(asked).to_string().as_str()]);
    if let Some(cursor) = &arguments.cursor {
        let place: Place =
            decode(&cursor.0).ok_or_else(|| answer::unreadable_cursor(NAME, example()))?;
        if place.q != q {
            return Err(answer::foreign_cursor(NAME, example()));
        }
        question.offset = place.o;
        question.window = TimeWindow {
            from_ms: place.f,
            to_ms: place.t,
        };
    }
    Ok(Place {
        o: question.offset,
        f: question.window.from_ms,
        t: question.window.to_ms,
        q,
    })
}

/// What the reader should know of the groups.
fn remark(
    context: &ToolContext,
    question: &AggregateRequest,
    found: &Aggregation,
    notes: &mut Notes,
) {
    notes.extend(found.notes.iter().cloned());
    let units = match question.unit {
        Unit::Span => "spans",
        Unit::Trace => "traces",
    };
    if found.units_in_several_groups > 0 {
        notes.add(format!(
            "{} {units} are in several groups, so counts and sums of groups add up to more than the total",
            found.units_in_several_groups
        ));
    }
    for (dimension, has_values) in question.group_by.iter().zip(&found.has_values) {
        if *has_values || found.total.count == 0 {
            continue;
        }
        notes.add(match (dimension, context.client.upstream()) {
            (Dimension::Buckets(_), _) => format!("none of the {units} matches any bucket"),
            (Dimension::Facet(name), Upstream::Local) => {
                format!("none of the {units} has a value of {name}")
            }
            (Dimension::Facet(name), _) => format!(
                "none of the {units} came with a value of {name}: the documented API leaves out errors, prompts, documents and sessions; group by {{name, query}} buckets, which the site itself evaluates"
            ),
        });
    }
}

fn as_search(question: &AggregateRequest) -> SpanSearch {
    SpanSearch {
        query: question.query.clone(),
        filters: SpanFilters {
            tags: question.tags.clone(),
            ..question.span_filters()
        },
        apm_trace_id: None,
        window: question.window,
        limit: 1,
        cursor: None,
        newest_first: true,
        content: false,
    }
}

fn example() -> Value {
    json!({"ml_app": "my-app", "from": "now-7d", "unit": "trace",
        "group_by": ["@meta.model_name", {"name": "timeout", "query": "@meta.error.type:*Timeout*"}],
        "measures": ["count", "duration.p95", "cost.sum"]})
}

/// A question that the upstream cannot read comes back with one that it can.
fn refused(error: ClientError) -> ToolError {
    let error = ToolError::from(error);
    match error.status {
        None | Some(400) => error.example(NAME, example()),
        _ => error,
    }
}
