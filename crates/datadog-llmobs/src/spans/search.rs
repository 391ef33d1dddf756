//! The search for one page of spans.

use std::sync::Arc;

use super::pages::unreadable_rows_note;
use super::request::{Filter, PageRequest};
use super::wire::WirePage;
use super::{SpanPage, SpanSearch};
use crate::client::Client;
use crate::error::ClientError;
use llmobs_core::model::TraceId;
use llmobs_core::query;

impl Client {
    /// Searches one page of spans, which match the query and every filter.
    ///
    /// # Errors
    /// [`ClientError::BadQuery`] for unbalanced quotes or brackets, before anything is sent, and the
    /// errors of [`Client::execute`].
    pub async fn search_spans(&self, search: &SpanSearch) -> Result<SpanPage, ClientError> {
        if let Some(text) = &search.query {
            query::check_balance(text)?;
        }
        let mut page = SpanPage::default();
        let traces = match &search.apm_trace_id {
            None => None,
            Some(apm) => match self.resolve_apm(apm, search).await {
                Ok(traces) => {
                    let traces = retain_trace(traces, search.filters.trace_id.as_deref());
                    if traces.is_empty() {
                        page.notes.push(
                            "the time window contains no LLM Observability trace with this apm_trace_id"
                                .to_owned(),
                        );
                        return Ok(page);
                    }
                    Some(traces)
                }
                Err(gap) => {
                    // Spans that do not match the filter would be wrong.
                    page.partial = true;
                    page.notes.push(gap.to_string());
                    return Ok(page);
                }
            },
        };
        let filter = Filter::search(search.query.as_deref(), &search.filters, traces.as_deref());
        let (found, limit) = self.read_search_page(search, &filter).await?;
        if limit < search.limit && found.next_cursor.is_some() {
            page.notes.push(format!(
                "this page has at most {limit} spans; continue with next_cursor"
            ));
        }
        // A page token that does not change would return the same page forever.
        page.next_cursor = found
            .next_cursor
            .filter(|next| Some(next) != search.cursor.as_ref());
        if found.timed_out {
            page.partial = true;
            page.notes.push(format!(
                "the search timed out at {}: this page is partial; a narrower time window finds more",
                self.upstream_name()
            ));
        }
        page.notes
            .extend(unreadable_rows_note(found.unreadable_rows));
        page.spans = found.spans.into_iter().map(Arc::new).collect();
        Ok(page)
    }

    /// Reads the page of a search, smaller if it is too large. Also returns its limit.
    async fn read_search_page(
        &self,
        search: &SpanSearch,
        filter: &Filter,
    ) -> Result<(WirePage, usize), ClientError> {
        let mut limit = search.limit.clamp(1, self.hub.settings.search_page.max(1));
        loop {
            let request = PageRequest {
                filter,
                window: search.window,
                limit,
                cursor: search.cursor.as_deref(),
                newest_first: search.newest_first,
                attachments: search.content,
            };
            match self.search_page(&request).await {
                Err(error) if error.is_too_large() && limit > 1 => limit /= 2,
                result => return Ok((result?.0, limit)),
            }
        }
    }
}

/// The traces that match an explicit trace id.
fn retain_trace(mut traces: Vec<TraceId>, trace_id: Option<&str>) -> Vec<TraceId> {
    if let Some(trace_id) = trace_id {
        traces.retain(|trace| trace.as_str() == trace_id);
    }
    traces
}
