//! `find_llmobs_error_spans`: what failed in a trace, where it began, and what failed quietly.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::details::ErrorDetails;
use super::summary::parent_id;
use super::{OpenTrace, open};
use crate::render::{Budget, Shrink, cut_middle, fit, squeeze, to_json};
use crate::tools::answer::{Notes, Window, offset_cursor, read_offset};
use crate::tools::args::{self, Count, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::errors::{ErrorSpan, SoftError, error_spans, soft_errors};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::{SpanId, SpanKind};

const NAME: &str = "find_llmobs_error_spans";
/// Stacks of origins matter; what merely passed an error on repeats them.
const ORIGIN_STACK: usize = 4_000;
const PASSED_STACK: usize = 600;
const MAX_EVIDENCE: usize = 600;
const MAX_ANCESTORS: usize = 24;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Find error spans",
    description: "Find the errors of one trace and their root cause: every span with status error \
        with type, message and stack, told apart into origins (is_origin) and spans that only \
        passed the error on (propagated_from), grouped by span kind. soft_errors lists spans with \
        status ok whose output says that they failed (isError: true, HTTP status 4xx or 5xx, error \
        objects), each with the evidence.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// Start of the time window.
    from: Option<When>,
    /// End of the time window.
    to: Option<When>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

#[derive(Serialize)]
struct Answer {
    trace_id: String,
    error_count: usize,
    origin_count: usize,
    soft_error_count: usize,
    error_spans: Vec<Hard>,
    soft_errors: Vec<Soft>,
    by_kind: BTreeMap<SpanKind, Vec<SpanId>>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    first: usize,
    #[serde(skip)]
    total: usize,
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        let size = |text: Result<String, _>| text.map_or(0, |text: String| text.chars().count());
        // The id stands in by_kind once more.
        let hard = self.error_spans.iter();
        let soft = self.soft_errors.iter();
        hard.map(move |row| size(to_json(row)) + 24)
            .chain(soft.map(move |row| size(to_json(row))))
    }

    fn keep(&mut self, count: usize) {
        self.soft_errors
            .truncate(count.saturating_sub(self.error_spans.len()));
        self.error_spans.truncate(count);
        self.by_kind.clear();
        for row in &self.error_spans {
            self.by_kind
                .entry(row.span_kind.clone())
                .or_default()
                .push(row.span_id.clone());
        }
        let shown = self.first + self.error_spans.len() + self.soft_errors.len();
        self.next_cursor =
            (shown < self.total).then(|| offset_cursor(shown, &[self.trace_id.as_str()]));
    }
}

#[derive(Serialize)]
struct Hard {
    span_id: SpanId,
    parent_id: String,
    name: String,
    span_kind: SpanKind,
    status: &'static str,
    start_ms: i64,
    duration_ms: f64,
    error: Option<ErrorDetails>,
    is_origin: bool,
    propagated_from: Option<SpanId>,
    ancestors: Vec<String>,
}

#[derive(Serialize)]
struct Soft {
    span_id: SpanId,
    name: String,
    span_kind: SpanKind,
    start_ms: i64,
    evidence: Proof,
}

#[derive(Serialize)]
struct Proof {
    path: String,
    value: Value,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let trace_id = &arguments.trace_id.0;
    let (from, to) = (arguments.from.as_ref(), arguments.to.as_ref());
    let mut opened = open(context, NAME, trace_id, from, to).await?;
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );
    let first = read_offset(
        NAME,
        arguments.cursor.as_ref().map(|cursor| cursor.0.as_str()),
        &[trace_id],
        || json!({"trace_id": trace_id}),
    )?;

    // Soft errors hide in content, and error details may be a question of their own.
    let tree = opened.whole(context).await?;
    let OpenTrace { window, notes, .. } = opened;

    let mut hard = error_spans(&tree);
    let soft = soft_errors(&tree);
    // Origins first: when the answer must be cut, they are what it is asked for.
    hard.sort_by_key(|found| !found.is_origin);
    // No row is shorter than this; what cannot fit need not be written down.
    let most = budget.chars() / 80 + 1;
    let error_spans = hard.iter().skip(first).take(most);
    let soft_errors = soft.iter().skip(first.saturating_sub(hard.len()));
    let mut answer = Answer {
        trace_id: trace_id.clone(),
        error_count: hard.len(),
        origin_count: hard.iter().filter(|found| found.is_origin).count(),
        soft_error_count: soft.len(),
        next_cursor: None,
        by_kind: BTreeMap::new(),
        window,
        notes,
        first,
        total: hard.len() + soft.len(),
        error_spans: error_spans.map(|found| Hard::new(&tree, found)).collect(),
        soft_errors: soft_errors
            .take(most)
            .map(|found| Soft::new(&tree, found))
            .collect(),
    };
    answer.keep(most);
    Ok(fit(answer, budget)?)
}

impl Hard {
    fn new(tree: &TraceTree, found: &ErrorSpan) -> Self {
        let span = tree.span(found.node);
        let max_stack = if found.is_origin {
            ORIGIN_STACK
        } else {
            PASSED_STACK
        };
        let above = found.ancestors.len().saturating_sub(MAX_ANCESTORS);
        Self {
            span_id: span.span_id.clone(),
            parent_id: parent_id(span),
            name: cut_middle(&span.name, 200),
            span_kind: span.kind.clone(),
            status: span.status.as_str(),
            start_ms: span.start_ms(),
            duration_ms: span.duration_ms(),
            error: span
                .error
                .as_ref()
                .filter(|error| !error.is_empty())
                .map(|error| ErrorDetails::new(error, max_stack)),
            is_origin: found.is_origin,
            propagated_from: found
                .propagated_from
                .map(|node| tree.span(node).span_id.clone()),
            ancestors: found
                .ancestors
                .iter()
                .skip(above)
                .map(|node| cut_middle(&tree.span(*node).name, 100))
                .collect(),
        }
    }
}

impl Soft {
    fn new(tree: &TraceTree, found: &SoftError) -> Self {
        let span = tree.span(found.node);
        Self {
            span_id: span.span_id.clone(),
            name: cut_middle(&span.name, 200),
            span_kind: span.kind.clone(),
            start_ms: span.start_ms(),
            evidence: Proof {
                path: found.evidence.path.clone(),
                value: squeeze(&found.evidence.value, MAX_EVIDENCE).0,
            },
        }
    }
}
