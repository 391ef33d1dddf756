//! Pages of the span search, and all pages of a filter.

use std::ops::ControlFlow;

use super::SEARCH;
use super::request::{Filter, PageRequest};
use super::wire::{self, WirePage};
use crate::call::ApiCall;
use crate::client::Client;
use crate::error::ClientError;
use crate::pager::{CursorPage, OutOfTime, PageSource, StopReason};
use llmobs_core::model::{Span, TimeWindow};

/// The spans that match a filter.
pub(super) struct SpanPages<'a> {
    pub(super) client: &'a Client,
    pub(super) filter: &'a Filter,
    pub(super) window: TimeWindow,
    pub(super) newest_first: bool,
    pub(super) attachments: bool,
}

impl PageSource for SpanPages<'_> {
    type Page = WirePage;

    async fn read_page(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(WirePage, usize), ClientError> {
        let request = PageRequest {
            filter: self.filter,
            window: self.window,
            limit,
            cursor,
            newest_first: self.newest_first,
            attachments: self.attachments,
        };
        self.client.search_page(&request).await
    }
}

impl CursorPage for WirePage {
    fn take_next_cursor(&mut self) -> Option<String> {
        self.next_cursor.take()
    }
}

/// How far the spans of a filter were read.
#[derive(Debug, Default)]
pub(super) struct SpanPagesRead {
    pub(super) bytes: usize,
    /// Why spans may be missing.
    pub(super) stopped: Option<StopReason>,
    /// Whether the upstream timed out on a page.
    pub(super) timed_out: bool,
    pub(super) unreadable_rows: usize,
}

impl Client {
    /// Reads one page, and returns it with the size of its body in bytes.
    pub(super) async fn search_page(
        &self,
        request: &PageRequest<'_>,
    ) -> Result<(WirePage, usize), ClientError> {
        let call = ApiCall::new(&SEARCH).body(request.body());
        self.execute_into(call, wire::parse_page).await
    }

    /// Reads all spans that match a filter, oldest first, and passes each page to `consume`.
    pub(super) async fn read_spans(
        &self,
        filter: &Filter,
        window: TimeWindow,
        page_size: usize,
        attachments: bool,
        mut consume: impl FnMut(Vec<Span>) + Send,
    ) -> Result<SpanPagesRead, ClientError> {
        let source = SpanPages {
            client: self,
            filter,
            window,
            newest_first: false,
            attachments,
        };
        let mut timed_out = false;
        let mut unreadable_rows = 0;
        let read = self
            .read_pages(&source, page_size, OutOfTime::KeepsPages, |page| {
                timed_out |= page.timed_out;
                unreadable_rows += page.unreadable_rows;
                consume(page.spans);
                ControlFlow::Continue(())
            })
            .await?;
        Ok(SpanPagesRead {
            bytes: read.bytes,
            stopped: read.stopped,
            timed_out,
            unreadable_rows,
        })
    }
}

/// A note on rows that are not spans.
pub(super) fn unreadable_rows_note(count: usize) -> Option<String> {
    (count > 0).then(|| format!("{count} rows without a span id were left out"))
}
