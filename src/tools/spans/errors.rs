//! `find_llmobs_error_spans`: the failed spans of a trace, the origins of the errors, and soft
//! errors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::details::error_details;
use super::opened_trace::OpenedTrace;
use super::summary::parent_id;
use crate::render::{cut_middle, json_chars, squeeze};
use crate::tools::args::{self, PageArgs};
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::errors::{ErrorSpan, SoftError, error_spans, soft_errors};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::{Span, SpanId, SpanKind};

const NAME: &str = "find_llmobs_error_spans";
/// Characters of the stack of an error origin.
const MAX_ORIGIN_STACK_CHARS: usize = 4_000;
/// Characters of the stack of a span that propagates an error: it repeats that of the origin.
const MAX_PROPAGATED_STACK_CHARS: usize = 600;
const MAX_EVIDENCE_CHARS: usize = 600;
const MAX_ANCESTORS: usize = 24;
const MAX_NAME_CHARS: usize = 200;
const MAX_ANCESTOR_NAME_CHARS: usize = 100;
/// No row has fewer characters of JSON.
const MIN_ROW_CHARS: usize = 80;
/// Characters of an id in `by_kind`.
const ID_CHARS: usize = 24;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Find error spans",
    description: "Find the errors of one trace and their root cause: every span with status error \
        with type, message and stack, separated into origins (is_origin) and spans that only \
        propagated an error (propagated_from), grouped by span kind. soft_errors lists spans with \
        status ok whose output reports a failure (isError: true, HTTP status 4xx or 5xx, error \
        objects), each with the evidence.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: String,
    #[serde(flatten)]
    page: PageArgs,
}

/// A failed span or a soft error.
struct ErrorRow {
    soft: bool,
    span_id: SpanId,
    span_kind: SpanKind,
    row: JsonObject,
}

impl ErrorRow {
    fn chars(&self) -> usize {
        let by_kind = if self.soft { 0 } else { ID_CHARS };
        json_chars(&self.row) + by_kind
    }
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let Arguments { trace_id, page } = args::parse(NAME, arguments)?;
    let mut trace = OpenedTrace::open(context, NAME, &trace_id, page.window()).await?;
    let list = ListRequest::new(NAME, [trace_id.as_str()], json!({"trace_id": trace_id}));
    let first = list.offset(page.cursor.as_deref())?;
    // Soft errors are in the content, and error details may need another request.
    let tree = trace.tree_with_content(context).await?;
    let mut failed = error_spans(&tree);
    let soft = soft_errors(&tree);
    // Origins first, so that a page that must be cut keeps them.
    failed.sort_by_key(|error| !error.is_origin);
    let total = failed.len() + soft.len();
    let failed_rows = failed.iter().map(|error| failed_span(&tree, error));
    let soft_rows = soft.iter().map(|error| soft_error(&tree, error));
    let rows: Vec<ErrorRow> = failed_rows
        .chain(soft_rows)
        .skip(first)
        .take(page.budget().chars() / MIN_ROW_CHARS + 1)
        .collect();
    let mut head = JsonObject::default();
    head.set("trace_id", trace_id.as_str());
    head.set("error_count", failed.len());
    let origins = failed.iter().filter(|error| error.is_origin);
    head.set("origin_count", origins.count());
    head.set("soft_error_count", soft.len());
    Page::custom(head, rows, ErrorRow::chars, |rows, _| error_keys(rows).0)
        .next_offset(&list, first, total)
        .tail(trace.tail())
        .notes(trace.notes)
        .write(page.budget())
}

/// `error_spans`, `soft_errors` and `by_kind`.
fn error_keys(rows: &[ErrorRow]) -> JsonObject {
    let failed = || rows.iter().filter(|row| !row.soft);
    let mut by_kind: BTreeMap<&SpanKind, Vec<&SpanId>> = BTreeMap::new();
    for row in failed() {
        by_kind
            .entry(&row.span_kind)
            .or_default()
            .push(&row.span_id);
    }
    let failed: Vec<&JsonObject> = failed().map(|row| &row.row).collect();
    let soft = rows.iter().filter(|row| row.soft).map(|row| &row.row);
    let mut keys = JsonObject::default();
    keys.set("error_spans", json!(failed));
    keys.set("soft_errors", json!(soft.collect::<Vec<_>>()));
    keys.set("by_kind", json!(by_kind));
    keys
}

fn failed_span(tree: &TraceTree, error: &ErrorSpan) -> ErrorRow {
    let span = tree.span(error.node);
    let max_stack_chars = if error.is_origin {
        MAX_ORIGIN_STACK_CHARS
    } else {
        MAX_PROPAGATED_STACK_CHARS
    };
    let propagated_from = error.propagated_from.map(|node| &tree.span(node).span_id);
    let ancestors: Vec<String> = error
        .ancestors
        .iter()
        .skip(error.ancestors.len().saturating_sub(MAX_ANCESTORS))
        .map(|node| cut_middle(&tree.span(*node).name, MAX_ANCESTOR_NAME_CHARS))
        .collect();
    let mut row = JsonObject::default();
    row.set("span_id", span.span_id.as_str());
    row.set("parent_id", parent_id(span));
    row.set("name", cut_middle(&span.name, MAX_NAME_CHARS));
    row.set("span_kind", span.kind.as_str());
    row.set("status", span.status.as_str());
    row.set("start_ms", span.start_ms());
    row.set("duration_ms", span.duration_ms());
    row.set("error", error_details(span.error.as_ref(), max_stack_chars));
    row.set("is_origin", error.is_origin);
    row.set("propagated_from", json!(propagated_from));
    row.set("ancestors", ancestors);
    error_row(span, false, row)
}

fn soft_error(tree: &TraceTree, error: &SoftError) -> ErrorRow {
    let span = tree.span(error.node);
    let evidence = squeeze(&error.evidence.value, MAX_EVIDENCE_CHARS).0;
    let mut row = JsonObject::default();
    row.set("span_id", span.span_id.as_str());
    row.set("name", cut_middle(&span.name, MAX_NAME_CHARS));
    row.set("span_kind", span.kind.as_str());
    row.set("start_ms", span.start_ms());
    row.set(
        "evidence",
        json!({"path": error.evidence.path, "value": evidence}),
    );
    error_row(span, true, row)
}

fn error_row(span: &Span, soft: bool, row: JsonObject) -> ErrorRow {
    ErrorRow {
        soft,
        span_id: span.span_id.clone(),
        span_kind: span.kind.clone(),
        row,
    }
}
