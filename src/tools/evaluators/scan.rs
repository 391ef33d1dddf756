//! Reading many spans page by page, with a limit on their number and on the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::tools::tool::ToolContext;
use datadog_llmobs::{ClientError, SpanSearch};
use llmobs_core::model::Span;

/// Spans of one request.
const PAGE_SIZE: usize = 500;

/// The limits of a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanLimits {
    /// Maximum number of spans.
    pub(super) spans: usize,
    /// Time after which no further page is read.
    pub(super) time: Duration,
}

/// The extent of a scan.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScanExtent {
    /// Number of spans read.
    pub(super) spans: usize,
    /// Whether no matching span was left unread.
    pub(super) complete: bool,
    /// Start of the oldest span read, in milliseconds since the Unix epoch.
    pub(super) oldest_ms: Option<i64>,
}

/// Passes the spans of a search to `each`, newest first, within the limits. An error after the first
/// page ends the scan early.
///
/// # Errors
///
/// The error of the first page.
pub(super) async fn scan_spans(
    context: &ToolContext,
    mut search: SpanSearch,
    limits: ScanLimits,
    mut each: impl FnMut(&Arc<Span>),
) -> Result<ScanExtent, ClientError> {
    let started = Instant::now();
    let mut extent = ScanExtent::default();
    loop {
        let remaining = limits.spans.saturating_sub(extent.spans);
        search.limit = PAGE_SIZE.min(remaining).max(1);
        let page = match context.client.search_spans(&search).await {
            Ok(page) => page,
            Err(error) if extent.spans == 0 => return Err(error),
            Err(_) => return Ok(extent),
        };
        for span in &page.spans {
            extent.oldest_ms = Some(span.start_ms());
            each(span);
        }
        extent.spans += page.spans.len();
        let exhausted = extent.spans >= limits.spans || started.elapsed() > limits.time;
        match page.next_cursor {
            None => {
                extent.complete = !page.partial;
                return Ok(extent);
            }
            Some(_) if exhausted => return Ok(extent),
            next => search.cursor = next,
        }
    }
}
