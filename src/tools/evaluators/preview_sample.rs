//! The prompt of an evaluator, filled in with a span, trace or session.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::render::cut_middle;
use crate::tools::answer::Notes;
use crate::tools::error::ToolError;
use crate::tools::spans::span_search;
use crate::tools::tool::ToolContext;
use datadog_llmobs::{SpanSearch, SpanSelection};
use llmobs_core::analysis::estimate_tokens;
use llmobs_core::analysis::evaluators::{
    RenderedPrompt, render_prompt, session_context, span_context, trace_context,
};
use llmobs_core::model::{EvalScope, Evaluator, Span, TimeWindow};
use llmobs_core::query::combine::SpanFilters;

/// Traces of a session that its prompt contains.
const MAX_TRACES: usize = 10;
/// Characters of a message that is shown.
const MAX_MESSAGE_CHARS: usize = 4_000;

/// A prompt filled in with real data.
#[derive(Serialize)]
pub(super) struct Sample {
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    prompt_tokens: usize,
    messages: Vec<PromptMessage>,
    empty_placeholders: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut_placeholders: Vec<String>,
}

#[derive(Serialize)]
struct PromptMessage {
    role: String,
    content: String,
}

impl Sample {
    /// The approximate size of the prompt.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }
}

/// Fills in the prompt with a span, its trace or its session, by the scope of the evaluator. `None`
/// if the span no longer exists.
pub(super) async fn read_sample(
    context: &ToolContext,
    evaluator: &Evaluator,
    span: &Arc<Span>,
    window: TimeWindow,
    notes: &mut Notes,
) -> Result<Option<Sample>, ToolError> {
    let scope = evaluator.target.eval_scope;
    let values = match scope {
        EvalScope::Span => {
            let page = context
                .client
                .search_spans(&search_span(span, window))
                .await?;
            match page.spans.first() {
                Some(span) => span_context(span),
                None => return Ok(None),
            }
        }
        EvalScope::Trace => trace_values(context, span, notes).await?,
        EvalScope::Session => session_values(context, evaluator, span, window, notes).await?,
    };
    let RenderedPrompt {
        messages,
        empty,
        cut,
    } = render_prompt(evaluator, &values);
    let chars: usize = messages.iter().map(|(_, text)| text.chars().count()).sum();
    let messages = messages.into_iter().map(|(role, text)| PromptMessage {
        role,
        content: cut_middle(&text, MAX_MESSAGE_CHARS),
    });
    let session_id = span.session_id.clone();
    Ok(Some(Sample {
        trace_id: span.trace_id.as_str().to_owned(),
        span_id: (scope == EvalScope::Span).then(|| span.span_id.as_str().to_owned()),
        session_id: session_id.filter(|_| scope == EvalScope::Session),
        prompt_tokens: estimate_tokens(chars),
        messages: messages.collect(),
        empty_placeholders: empty,
        cut_placeholders: cut,
    }))
}

/// The search for one span with its content.
fn search_span(span: &Span, window: TimeWindow) -> SpanSearch {
    let filters = SpanFilters {
        trace_id: Some(span.trace_id.as_str().to_owned()),
        span_id: Some(span.span_id.as_str().to_owned()),
        ..SpanFilters::default()
    };
    SpanSearch {
        content: true,
        ..span_search(filters, window)
    }
}

/// The values of the placeholders for the trace of a span.
async fn trace_values(
    context: &ToolContext,
    span: &Span,
    notes: &mut Notes,
) -> Result<Value, ToolError> {
    let client = &context.client;
    let loaded = client.trace(&span.trace_id, context.now_ms).await?;
    notes.extend(loaded.notes.iter().cloned());
    let contents = client.contents(&loaded, SpanSelection::All).await?;
    notes.add_gaps(&contents.gaps);
    let spans = loaded.tree.spans().iter();
    let spans = spans.map(|span| contents.with_content(span).as_ref());
    Ok(trace_context(span.trace_id.as_str(), spans))
}

/// The values of the placeholders for the session of a span.
async fn session_values(
    context: &ToolContext,
    evaluator: &Evaluator,
    span: &Span,
    window: TimeWindow,
    notes: &mut Notes,
) -> Result<Value, ToolError> {
    let session_id = span.session_id.clone().unwrap_or_default();
    let filters = SpanFilters {
        ml_app: Some(evaluator.target.application_name.clone()),
        session_id: Some(session_id.clone()),
        root_spans_only: true,
        ..SpanFilters::default()
    };
    let search = SpanSearch {
        limit: MAX_TRACES,
        newest_first: false,
        content: true,
        ..span_search(filters, window)
    };
    let page = context.client.search_spans(&search).await?;
    if page.next_cursor.is_some() {
        notes.add(format!(
            "only the first {MAX_TRACES} traces of a session were read"
        ));
    }
    let mut traces = Vec::new();
    for root in &page.spans {
        traces.push(trace_values(context, root, notes).await?);
    }
    Ok(session_context(&session_id, &traces))
}
