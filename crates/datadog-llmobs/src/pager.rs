//! Reading of all pages of a list, by its page tokens.
//!
//! Upstreams repeat page tokens, return empty pages and grow while they are read. Paging stops at an
//! absent, empty or repeated token and at its limits, and reports whether it read everything.
//! `links.next` is never followed as a URL, because a manipulated body could then direct credentials to
//! another host: only its `page[cursor]` is used.

use std::collections::HashSet;
use std::ops::ControlFlow;

use serde_json::Value;
use url::form_urlencoded;

use super::client::Client;
use super::deadline::Deadline;
use super::error::ClientError;

/// A list that is read page by page.
pub(crate) trait PageSource: Sync {
    /// One page.
    type Page: CursorPage + Send;

    /// Reads one page of at most `limit` rows, and returns it with the size of its body in bytes.
    fn read_page(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> impl Future<Output = Result<(Self::Page, usize), ClientError>> + Send;
}

/// One page of a list.
pub(crate) trait CursorPage {
    /// Removes the token of the next page.
    fn take_next_cursor(&mut self) -> Option<String>;
}

/// How far the pages of a list were read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PagesRead {
    /// The size of all bodies.
    pub(crate) bytes: usize,
    /// Why more pages may exist; `None` if everything was read.
    pub(crate) stopped: Option<StopReason>,
}

/// Whether running out of time is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfTime {
    /// Only before the first page was read.
    KeepsPages,
    /// Never, because the caller has earlier data.
    KeepsEarlierData,
}

impl Client {
    /// Reads the pages of a list until the last one or until `consume` breaks. A page that is too
    /// large is requested again at half the size.
    pub(crate) async fn read_pages<S: PageSource>(
        &self,
        source: &S,
        page_size: usize,
        out_of_time: OutOfTime,
        mut consume: impl FnMut(S::Page) -> ControlFlow<()> + Send,
    ) -> Result<PagesRead, ClientError> {
        let settings = &self.hub.settings;
        let limits = PagerLimits {
            max_pages: settings.max_pages,
            max_bytes: settings.max_trace_bytes,
        };
        let mut pager = CursorPager::new(limits, self.deadline);
        let mut summary = PagesRead::default();
        let mut limit = page_size.max(1);
        let mut cursor: Option<String> = None;
        loop {
            let (mut page, bytes) = match source.read_page(limit, cursor.as_deref()).await {
                Ok(page) => page,
                Err(error) if error.is_too_large() && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                Err(error)
                    if error.is_out_of_time()
                        && (cursor.is_some() || out_of_time == OutOfTime::KeepsEarlierData) =>
                {
                    summary.stopped = Some(match error {
                        ClientError::RateLimited { .. } => StopReason::RateLimited,
                        _ => StopReason::OutOfTime,
                    });
                    return Ok(summary);
                }
                Err(error) => return Err(error),
            };
            summary.bytes = summary.bytes.saturating_add(bytes);
            let next = page.take_next_cursor();
            let flow = consume(page);
            match pager.advance(next, bytes) {
                Step::Next(_) if flow.is_break() => {
                    summary.stopped = Some(StopReason::Consumer);
                    return Ok(summary);
                }
                Step::Next(next) => cursor = Some(next),
                Step::Complete => return Ok(summary),
                Step::Stopped(reason) => {
                    summary.stopped = Some(reason);
                    return Ok(summary);
                }
            }
        }
    }
}

/// The limits of one paging.
#[derive(Debug, Clone, Copy)]
struct PagerLimits {
    max_pages: usize,
    max_bytes: usize,
}

/// Why paging stopped before the last page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    RepeatedCursor,
    PageLimit,
    ByteLimit,
    OutOfTime,
    RateLimited,
    /// The consumer has enough.
    Consumer,
}

impl StopReason {
    /// The reason as a clause that follows "because".
    pub(crate) fn clause(self) -> &'static str {
        match self {
            Self::RepeatedCursor => "the site returned the same page cursor twice",
            Self::PageLimit => "there are more pages than one call reads",
            Self::ByteLimit => "there is more data than one call reads",
            Self::OutOfTime => "the call reached its time limit",
            Self::RateLimited => "the site accepts no more requests for now",
            Self::Consumer => "enough was read",
        }
    }
}

/// What to do after a page.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Read the page of this token.
    Next(String),
    /// This was the last page.
    Complete,
    /// Stop although more pages may exist.
    Stopped(StopReason),
}

/// The state of one paging.
struct CursorPager {
    limits: PagerLimits,
    deadline: Deadline,
    seen_cursors: HashSet<String>,
    pages: usize,
    bytes: usize,
}

impl CursorPager {
    fn new(limits: PagerLimits, deadline: Deadline) -> Self {
        Self {
            limits,
            deadline,
            seen_cursors: HashSet::new(),
            pages: 0,
            bytes: 0,
        }
    }

    /// Counts a page and decides what to do next.
    fn advance(&mut self, next: Option<String>, page_bytes: usize) -> Step {
        self.pages += 1;
        self.bytes = self.bytes.saturating_add(page_bytes);
        let Some(cursor) = next.filter(|cursor| !cursor.is_empty()) else {
            return Step::Complete;
        };
        if !self.seen_cursors.insert(cursor.clone()) {
            Step::Stopped(StopReason::RepeatedCursor)
        } else if self.pages >= self.limits.max_pages {
            Step::Stopped(StopReason::PageLimit)
        } else if self.bytes >= self.limits.max_bytes {
            Step::Stopped(StopReason::ByteLimit)
        } else if self.deadline.remaining().is_zero() {
            Step::Stopped(StopReason::OutOfTime)
        } else {
            Step::Next(cursor)
        }
    }
}

/// The token of the next page: `meta.after` (lists of the control plane), `meta.page.after` (spans),
/// or the `page[cursor]` of `links.next`. `body` need not contain the rows.
pub(crate) fn next_cursor(body: &Value) -> Option<String> {
    for path in ["/meta/after", "/meta/page/after"] {
        let cursor = body.pointer(path).and_then(Value::as_str);
        if let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) {
            return Some(cursor.to_owned());
        }
    }
    let (_, query) = body.pointer("/links/next")?.as_str()?.split_once('?')?;
    form_urlencoded::parse(query.split('#').next().unwrap_or_default().as_bytes())
        .find(|(key, value)| key == "page[cursor]" && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn pager(max_pages: usize, max_bytes: usize) -> CursorPager {
        let limits = PagerLimits {
            max_pages,
            max_bytes,
        };
        CursorPager::new(limits, Deadline::after(Duration::from_secs(50)))
    }

    fn next(cursor: &str) -> Option<String> {
        Some(cursor.to_owned())
    }

    #[tokio::test]
    async fn completes_without_cursor_and_stops_at_repeated_one() {
        let mut pager = pager(9, 1_000);
        assert_eq!(pager.advance(next("a"), 1), Step::Next("a".into()));
        assert_eq!(pager.advance(next("b"), 1), Step::Next("b".into()));
        assert_eq!(
            pager.advance(next("a"), 1),
            Step::Stopped(StopReason::RepeatedCursor)
        );
        assert_eq!(pager.advance(next(""), 1), Step::Complete);
        assert_eq!(pager.advance(None, 1), Step::Complete);
    }

    #[tokio::test]
    async fn limits_stop_only_if_pages_remain() {
        assert_eq!(pager(1, 1_000).advance(None, 5_000), Step::Complete);
        assert_eq!(
            pager(1, 1_000).advance(next("a"), 1),
            Step::Stopped(StopReason::PageLimit)
        );
        assert_eq!(
            pager(9, 1_000).advance(next("a"), 1_000),
            Step::Stopped(StopReason::ByteLimit)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn stops_at_deadline() {
        let mut pager = pager(9, 1_000);
        tokio::time::advance(Duration::from_secs(51)).await;
        assert_eq!(
            pager.advance(next("a"), 1),
            Step::Stopped(StopReason::OutOfTime)
        );
    }

    #[test]
    fn reads_cursor_from_meta_or_link() {
        let cursor = |body: Value| next_cursor(&body);
        assert_eq!(cursor(json!({"meta":{"after":"c0"}})), next("c0"));
        assert_eq!(
            cursor(json!({"meta":{"page":{"after":"c1"}},"links":{"next":"x?page[cursor]=c2"}})),
            next("c1")
        );
        assert_eq!(
            cursor(
                json!({"meta":{"page":null},"links":{"next":"https://evil.example/a?b=1&page%5Bcursor%5D=c%2B2"}})
            ),
            next("c+2")
        );
        for last in [
            json!({"meta":{"page":null}}),
            json!({"meta":{"page":{"after":null}},"links":{"next":null}}),
            json!({"meta":{"page":{"after":""}}}),
            json!({"links":{"next":"https://api.example/no-cursor"}}),
            json!({}),
        ] {
            assert_eq!(next_cursor(&last), None, "{last}");
        }
    }
}
