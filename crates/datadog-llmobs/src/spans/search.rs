//! One page of spans for a caller.

use std::sync::Arc;

use super::request::{Filter, PageRequest};
use super::wire::{self, WirePage};
use super::{SEARCH, SpanPage, SpanSearch};
use crate::call::ApiCall;
use crate::client::Client;
use crate::error::ClientError;
use llmobs_core::model::TraceId;
use llmobs_core::query;

impl Client {
    /// Searches spans, one page at a time. Every filter and the query hold together.
    ///
    /// # Errors
    /// [`ClientError::BadQuery`] for unbalanced quotes or brackets, before anything is sent, and
    /// everything that [`Client::execute`] gives.
    pub async fn search_spans(&self, search: &SpanSearch) -> Result<SpanPage, ClientError> {
        if let Some(text) = &search.query {
            query::check_balance(text)?;
        }
        let mut page = SpanPage::default();
        let traces = match &search.apm_trace_id {
            None => None,
            Some(apm) => match self.resolve_apm(apm, search).await {
                Ok(traces) => {
                    let traces = narrowed(traces, search.filters.trace_id.as_deref());
                    if traces.is_empty() {
                        page.notes.push(
                            "no LLM Observability trace with this apm_trace_id lies in the window"
                                .to_owned(),
                        );
                        return Ok(page);
                    }
                    Some(traces)
                }
                Err(gap) => {
                    // Spans that ignore the filter would be wrong, so there are none.
                    page.partial = true;
                    page.notes.push(gap.to_string());
                    return Ok(page);
                }
            },
        };
        let filter = Filter::search(search.query.as_deref(), &search.filters, traces.as_deref());
        let mut limit = search.limit.clamp(1, self.hub.settings.search_page.max(1));
        let answer = loop {
            let request = PageRequest {
                filter: &filter,
                window: search.window,
                limit,
                cursor: search.cursor.as_deref(),
                newest_first: search.newest_first,
                attachments: search.content,
            };
            match self.search_page(&request).await {
                Err(error) if error.is_too_large() && limit > 1 => limit /= 2,
                other => break other?.0,
            }
        };
        if limit < search.limit && answer.next_cursor.is_some() {
            page.notes.push(format!(
                "this page holds at most {limit} spans; next_cursor goes on"
            ));
        }
        // A cursor that does not move would be asked for again and again.
        page.next_cursor = answer
            .next_cursor
            .filter(|next| Some(next) != search.cursor.as_ref());
        if answer.timed_out {
            page.partial = true;
            page.notes.push(format!(
                "{} ran out of time: this page is partial; a narrower window finds more",
                self.upstream_name()
            ));
        }
        page.notes.extend(unreadable_rows(answer.unreadable_rows));
        page.spans = answer.spans.into_iter().map(Arc::new).collect();
        Ok(page)
    }

    /// Asks for one page; gives it with its size in bytes.
    pub(super) async fn search_page(
        &self,
        request: &PageRequest<'_>,
    ) -> Result<(WirePage, usize), ClientError> {
        let answer = self
            .execute(ApiCall::new(&SEARCH).body(request.body()))
            .await?;
        let page = wire::read_page(answer.value)
            .map_err(|what| self.unreadable(&SEARCH, answer.status, what.to_owned()))?;
        Ok((page, answer.bytes))
    }
}

/// A note on rows that were no spans.
pub(super) fn unreadable_rows(count: usize) -> Option<String> {
    (count > 0).then(|| format!("{count} rows without a span id were left out"))
}

/// The traces that an explicit trace id leaves.
fn narrowed(mut traces: Vec<TraceId>, trace_id: Option<&str>) -> Vec<TraceId> {
    if let Some(wanted) = trace_id {
        traces.retain(|trace| trace.as_str() == wanted);
    }
    traces
}
