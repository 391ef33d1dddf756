//! `get_llmobs_span_details`: everything about spans except their content.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::opened_trace::{OpenedTrace, find_spans, trace_url};
use super::summary::{evaluations, llm_info, metrics, parent_id, tags};
use crate::render::cut_middle;
use crate::tools::args::{self, IdList, PageArgs};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::{Gap, LoadedTrace, SpanSelection};
use llmobs_core::analysis::content::{ContentField, content_info};
use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Span, SpanError, SpanId, SpanKind};

const NAME: &str = "get_llmobs_span_details";
/// Children whose ids a row lists; the others are only counted.
const MAX_CHILDREN: usize = 50;
const MAX_STACK_CHARS: usize = 6_000;
/// No row has fewer characters of JSON.
const MIN_ROW_CHARS: usize = 500;

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
    trace_id: String,
    /// Spans of that trace.
    span_ids: IdList,
    #[serde(flatten)]
    page: PageArgs,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let Arguments {
        trace_id,
        span_ids,
        page,
    } = &arguments;
    let mut trace = OpenedTrace::open(context, NAME, trace_id, page.window()).await?;
    let tree = trace.tree();
    let (nodes, missing) = find_spans(NAME, trace_id, &tree, span_ids)?;
    let request = std::iter::once(trace_id).chain(span_ids.iter()).cloned();
    let example = json!({"trace_id": trace_id, "span_ids": **span_ids});
    let list = ListRequest::new(NAME, request, example);
    let first = list.offset(page.cursor.as_deref())?;
    // Content of spans that cannot fit is not read.
    let max_rows = page.budget().chars() / MIN_ROW_CHARS + 1;
    let total = nodes.len();
    let nodes = nodes.into_iter().skip(first).take(max_rows).collect();
    let rows = read_rows(context, &mut trace, &tree, nodes).await?;
    let tail = trace.tail();
    Page::custom(
        JsonObject::default(),
        rows,
        crate::render::json_chars,
        |rows, _| {
            let mut keys = JsonObject::default();
            keys.set("spans", json!(rows));
            keys.set_unless_empty("missing_span_ids", missing.clone());
            keys.0
        },
    )
    .next_offset(&list, first, total)
    .tail(tail)
    .notes(trace.notes)
    .write(page.budget())
}

async fn read_rows(
    context: &ToolContext,
    trace: &mut OpenedTrace,
    tree: &TraceTree,
    nodes: Vec<NodeId>,
) -> Result<Vec<JsonObject>, ToolError> {
    let ids: Vec<SpanId> = nodes
        .iter()
        .map(|node| tree.span(*node).span_id.clone())
        .collect();
    let (client, loaded) = (&context.client, &trace.loaded);
    let contents = client.contents(loaded, SpanSelection::Spans(&ids)).await?;
    trace.notes.add_gaps(&contents.gaps);
    let has_error = nodes.iter().any(|node| tree.span(*node).is_error());
    let (errors, gaps) = if has_error {
        client.error_details(loaded).await?
    } else {
        (HashMap::new(), Vec::new())
    };
    trace.notes.add_gaps(&gaps);
    let mut rows = Vec::with_capacity(nodes.len());
    for node in nodes {
        let span = tree.span(node);
        let mut full = contents.with_content(span).as_ref().clone();
        let gaps = fill_missing_content(context, loaded, &mut full, None).await?;
        trace.notes.add_gaps(&gaps);
        let error = errors.get(&span.span_id).or(span.error.as_ref());
        rows.push(row(context, tree, node, &full, error));
    }
    Ok(rows)
}

/// Reads content that the documented answer of a site lacks and the page did not contain: if spans
/// of this kind have such content, or if `requested` names the field.
pub(super) async fn fill_missing_content(
    context: &ToolContext,
    trace: &LoadedTrace,
    span: &mut Span,
    requested: Option<ContentField>,
) -> Result<Vec<Gap>, ToolError> {
    let client = &context.client;
    let mut gaps = Vec::new();
    let has_documents = matches!(span.kind, SpanKind::Retrieval | SpanKind::Embedding);
    if (has_documents || requested == Some(ContentField::Documents)) && span.documents().is_empty()
    {
        let (value, gap) = client.field(trace, &span.span_id, "documents").await?;
        gaps.extend(gap);
        if let Some(Value::Array(documents)) = value {
            let io = if span.kind == SpanKind::Embedding {
                &mut span.input
            } else {
                &mut span.output
            };
            io.documents = documents;
        }
    }
    let has_expected = span.kind == SpanKind::Experiment;
    if (has_expected || requested == Some(ContentField::ExpectedOutput))
        && span.expected_output.is_none()
    {
        let field = client.field(trace, &span.span_id, "expected_output");
        let (value, gap) = field.await?;
        gaps.extend(gap);
        span.expected_output = value;
    }
    Ok(gaps)
}

fn row(
    context: &ToolContext,
    tree: &TraceTree,
    node: NodeId,
    full: &Span,
    error: Option<&SpanError>,
) -> JsonObject {
    let span = tree.span(node);
    let children = tree.children(node);
    let children_ids: Vec<&SpanId> = children
        .iter()
        .take(MAX_CHILDREN)
        .map(|child| &tree.span(*child).span_id)
        .collect();
    let mut row = JsonObject::default();
    row.set("span_id", span.span_id.as_str());
    row.set("trace_id", span.trace_id.as_str());
    row.set_some("apm_trace_id", span.apm_trace_id.clone());
    row.set("parent_id", parent_id(span));
    row.set("children_ids", json!(children_ids));
    if children.len() > MAX_CHILDREN {
        row.set("children_count", children.len());
    }
    row.set("name", span.name.as_str());
    row.set("span_kind", span.kind.as_str());
    row.set("ml_app", span.ml_app.as_str());
    row.set_some("service", span.service.clone());
    row.set_some("session_id", span.session_id.clone());
    row.set("status", span.status.as_str());
    row.set("start_ms", span.start_ms());
    row.set("duration_ms", span.duration_ms());
    row.set("error", error_details(error, MAX_STACK_CHARS));
    row.set_some("llm_info", llm_info(span));
    row.set("metrics", metrics(span));
    row.set("evaluations", evaluations(&span.evaluations));
    row.set_unless_empty("feedback", evaluations(&span.feedback));
    row.set("content_info", content_info(full));
    row.set_some(
        "prompt",
        full.input.prompt.as_ref().and_then(prompt_identity),
    );
    row.set_some("intent", span.intent.clone());
    row.set_unless_empty("collection_errors", span.collection_errors.clone());
    row.set("tags", tags(span));
    row.set_some("trace_url", trace_url(context, span.trace_id.as_str()));
    row
}

/// Type, message and stack of an error; `null` without one.
pub(super) fn error_details(error: Option<&SpanError>, max_stack_chars: usize) -> Value {
    match error.filter(|error| !error.is_empty()) {
        None => Value::Null,
        Some(error) => json!({
            "type": error.error_type,
            "message": error.message,
            "stack": cut_middle(&error.stack, max_stack_chars),
        }),
    }
}

/// Id, name, version and label of a prompt, without its template.
fn prompt_identity(prompt: &Value) -> Option<Map<String, Value>> {
    let identity: Map<String, Value> = ["id", "name", "version", "label"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), prompt.get(key)?.clone())))
        .collect();
    (!identity.is_empty()).then_some(identity)
}
