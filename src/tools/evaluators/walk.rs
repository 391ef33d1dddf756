//! Reading many spans page by page, within bounds of number and time, and saying how far it came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::tools::ToolContext;
use datadog_llmobs::{ClientError, SpanSearch};
use llmobs_core::model::Span;

/// Spans of one request.
const PAGE: usize = 500;

/// How far a walk came.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walked {
    /// Spans read.
    pub(super) spans: usize,
    /// Whether these are all that there are.
    pub(super) complete: bool,
    /// Start of the oldest span read, in milliseconds since the Unix epoch.
    pub(super) oldest_ms: Option<i64>,
}

/// Hands the newest spans of a search to `each`, at most `most` of them, for at most `time`. What
/// fails after the first page ends the walk early.
///
/// # Errors
/// What the first page gives.
pub(super) async fn walk(
    context: &ToolContext,
    mut search: SpanSearch,
    most: usize,
    time: Duration,
    mut each: impl FnMut(&Arc<Span>),
) -> Result<Walked, ClientError> {
    let started = Instant::now();
    let mut walked = Walked::default();
    loop {
        search.limit = PAGE.min(most.saturating_sub(walked.spans)).max(1);
        let page = match context.client.search_spans(&search).await {
            Ok(page) => page,
            Err(error) if walked.spans == 0 => return Err(error),
            Err(_) => return Ok(walked),
        };
        for span in &page.spans {
            walked.oldest_ms = Some(span.start_ms());
            each(span);
        }
        walked.spans += page.spans.len();
        match page.next_cursor {
            None => {
                walked.complete = !page.partial;
                return Ok(walked);
            }
            Some(_) if walked.spans >= most || started.elapsed() > time => return Ok(walked),
            next => search.cursor = next,
        }
    }
}
