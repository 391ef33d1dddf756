//! `get_llmobs_span_details`: everything about spans but their content.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::summary::{evaluations, llm_info, metrics, parent_id, tags};
use super::{OpenTrace, asked_spans, open, trace_url};
use crate::render::{Budget, Shrink, cut_middle, fit, to_json};
use crate::tools::answer::{Notes, Window, offset_cursor, read_offset};
use crate::tools::args::{self, Count, Ids, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::{Gap, LoadedTrace, SpanSelection};
use llmobs_core::analysis::content::{ContentField, content_info};
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Span, SpanError, SpanId, SpanKind, TraceId};

const NAME: &str = "get_llmobs_span_details";
/// Children that a row names; the rest is counted.
const MAX_CHILDREN: usize = 50;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Span details",
    description: "Details of spans of one trace: status, error type, message and stack, model, \
        token and cost metrics, evaluations with value, assessment and reasoning, feedback, tags, \
        session, and content_info: which content fields exist and how large they are. Any number \
        of span_ids of one trace_id. Read the content itself with get_llmobs_span_content.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// Spans of that trace.
    span_ids: Ids,
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
    spans: Vec<Details>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_span_ids: Vec<String>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    question: Vec<String>,
    #[serde(skip)]
    first: usize,
    #[serde(skip)]
    total: usize,
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        self.spans
            .iter()
            .map(|row| to_json(row).map_or(0, |text| text.chars().count()))
    }

    fn keep(&mut self, count: usize) {
        self.spans.truncate(count);
        let shown = self.first + self.spans.len();
        let question: Vec<&str> = self.question.iter().map(String::as_str).collect();
        self.next_cursor = (shown < self.total).then(|| offset_cursor(shown, &question));
    }
}

#[derive(Serialize)]
struct Details {
    span_id: SpanId,
    trace_id: TraceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    apm_trace_id: Option<String>,
    parent_id: String,
    children_ids: Vec<SpanId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children_count: Option<usize>,
    name: String,
    span_kind: SpanKind,
    ml_app: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    status: &'static str,
    start_ms: i64,
    duration_ms: f64,
    error: Option<ErrorDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_info: Option<Map<String, Value>>,
    metrics: Map<String, Value>,
    evaluations: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    feedback: Map<String, Value>,
    content_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collection_errors: Vec<String>,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

/// What a failed span said.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorDetails {
    #[serde(rename = "type")]
    error_type: String,
    message: String,
    stack: String,
}

impl ErrorDetails {
    /// The error with its stack within `max_stack` characters.
    pub(super) fn new(error: &SpanError, max_stack: usize) -> Self {
        Self {
            error_type: error.error_type.clone(),
            message: error.message.clone(),
            stack: cut_middle(&error.stack, max_stack),
        }
    }
}

const MAX_STACK: usize = 6_000;

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let trace_id = &arguments.trace_id.0;
    let (from, to) = (arguments.from.as_ref(), arguments.to.as_ref());
    let mut opened = open(context, NAME, trace_id, from, to).await?;
    let tree = opened.structure();
    let OpenTrace {
        loaded,
        window,
        mut notes,
    } = opened;
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );

    let (nodes, missing) = asked_spans(NAME, trace_id, &tree, &arguments.span_ids.0)?;
    let mut question = vec![trace_id.clone()];
    question.extend(arguments.span_ids.0);
    let first = {
        let parts: Vec<&str> = question.iter().map(String::as_str).collect();
        let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
        read_offset(
            NAME,
            cursor,
            &parts,
            || json!({"trace_id": trace_id, "span_ids": parts.get(1..)}),
        )?
    };
    // No row is shorter than this: content of spans that cannot fit is not read.
    let page: Vec<NodeId> = nodes
        .iter()
        .copied()
        .skip(first)
        .take(budget.chars() / 500 + 1)
        .collect();
    let ids: Vec<SpanId> = page
        .iter()
        .map(|node| tree.span(*node).span_id.clone())
        .collect();
    let contents = context
        .client
        .contents(&loaded, SpanSelection::Spans(&ids))
        .await?;
    notes.gaps(&contents.gaps);
    let (errors, gaps) = if page.iter().any(|node| tree.span(*node).is_error()) {
        context.client.error_details(&loaded).await?
    } else {
        (HashMap::new(), Vec::new())
    };
    notes.gaps(&gaps);

    let mut rows = Vec::with_capacity(page.len());
    for node in page {
        let structure = tree.span(node);
        let mut full = contents.with_content(structure).as_ref().clone();
        notes.gaps(&fill_unlisted(context, &loaded, &mut full, None).await?);
        let error = errors.get(&structure.span_id).or(structure.error.as_ref());
        rows.push(details(context, &tree, node, &full, error));
    }
    let mut answer = Answer {
        spans: rows,
        missing_span_ids: missing,
        next_cursor: None,
        window,
        notes,
        question,
        first,
        total: nodes.len(),
    };
    answer.keep(usize::MAX);
    Ok(fit(answer, budget)?)
}

/// Asks apart for content that the documented answer of the site leaves out and the page did not
/// bring: where the kind of span has such content, and for the field that was asked for by name.
pub(super) async fn fill_unlisted(
    context: &ToolContext,
    trace: &LoadedTrace,
    span: &mut Span,
    asked: Option<ContentField>,
) -> Result<Vec<Gap>, ToolError> {
    let mut gaps = Vec::new();
    let has_documents = matches!(span.kind, SpanKind::Retrieval | SpanKind::Embedding);
    if (has_documents || asked == Some(ContentField::Documents)) && span.documents().is_empty() {
        let (value, gap) = context
            .client
            .field(trace, &span.span_id, "documents")
            .await?;
        gaps.extend(gap);
        if let Some(Value::Array(documents)) = value {
            let side = if span.kind == SpanKind::Embedding {
                &mut span.input
            } else {
                &mut span.output
            };
            side.documents = documents;
        }
    }
    let has_expected = span.kind == SpanKind::Experiment;
    if (has_expected || asked == Some(ContentField::ExpectedOutput))
        && span.expected_output.is_none()
    {
        let (value, gap) = context
            .client
            .field(trace, &span.span_id, "expected_output")
            .await?;
        gaps.extend(gap);
        span.expected_output = value;
    }
    Ok(gaps)
}

fn details(
    context: &ToolContext,
    tree: &TraceTree,
    node: NodeId,
    full: &Span,
    error: Option<&SpanError>,
) -> Details {
    let span = tree.span(node);
    let children = tree.children(node);
    Details {
        span_id: span.span_id.clone(),
        trace_id: span.trace_id.clone(),
        apm_trace_id: span.apm_trace_id.clone(),
        parent_id: parent_id(span),
        children_ids: children
            .iter()
            .take(MAX_CHILDREN)
            .map(|child| tree.span(*child).span_id.clone())
            .collect(),
        children_count: (children.len() > MAX_CHILDREN).then_some(children.len()),
        name: span.name.clone(),
        span_kind: span.kind.clone(),
        ml_app: span.ml_app.clone(),
        service: span.service.clone(),
        session_id: span.session_id.clone(),
        status: span.status.as_str(),
        start_ms: span.start_ms(),
        duration_ms: span.duration_ms(),
        error: error
            .filter(|error| !error.is_empty())
            .map(|error| ErrorDetails::new(error, MAX_STACK)),
        llm_info: llm_info(span),
        metrics: metrics(span),
        evaluations: evaluations(&span.evaluations),
        feedback: evaluations(&span.feedback),
        content_info: content_info(full),
        prompt: full.input.prompt.as_ref().and_then(prompt),
        intent: span.intent.clone(),
        collection_errors: span.collection_errors.clone(),
        tags: tags(span),
        trace_url: trace_url(context, span.trace_id.as_str()),
    }
}

/// Which prompt it was, without its template.
fn prompt(prompt: &Value) -> Option<Map<String, Value>> {
    let named: Map<String, Value> = ["id", "name", "version", "label"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), prompt.get(key)?.clone())))
        .collect();
    (!named.is_empty()).then_some(named)
}
