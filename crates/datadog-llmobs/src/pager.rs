//! Following a cursor to its end, or to the point where going on makes no sense.
//!
//! Cursors repeat, pages come empty, answers grow: paging stops on an absent, empty or repeated
//! cursor and on its caps, and always says whether what was read is everything. `links.next` is
//! never followed as a URL, because a manipulated body could then steer credentials to another
//! host: only the cursor is taken out of it.

use std::collections::HashSet;

use serde_json::Value;
use url::form_urlencoded;

use super::deadline::Deadline;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PagerLimits {
    pub(crate) max_pages: usize,
    pub(crate) max_bytes: usize,
}

/// Why paging stopped before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    RepeatedCursor,
    PageCap,
    ByteCap,
    OutOfTime,
    RateLimited,
}

impl Stop {
    /// The reason in words, to follow "because".
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::RepeatedCursor => "the site gave the same page cursor twice",
            Self::PageCap => "there are more pages than are read at once",
            Self::ByteCap => "there is more data than is read at once",
            Self::OutOfTime => "the time of this call was over",
            Self::RateLimited => "the site allows no more requests for now",
        }
    }
}

/// What to do after a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for the page at this cursor.
    Next(String),
    /// That was everything.
    Complete,
    /// There may be more.
    Stopped(Stop),
}

/// The state of one walk over pages.
pub(crate) struct CursorPager {
    limits: PagerLimits,
    deadline: Deadline,
    seen: HashSet<String>,
    pages: usize,
    bytes: usize,
}

impl CursorPager {
    pub(crate) fn new(limits: PagerLimits, deadline: Deadline) -> Self {
        Self {
            limits,
            deadline,
            seen: HashSet::new(),
            pages: 0,
            bytes: 0,
        }
    }

    /// Takes note of a page and decides how to go on.
    pub(crate) fn advance(&mut self, next: Option<String>, page_bytes: usize) -> Step {
        self.pages += 1;
        self.bytes = self.bytes.saturating_add(page_bytes);
        let Some(cursor) = next.filter(|cursor| !cursor.is_empty()) else {
            return Step::Complete;
        };
        if !self.seen.insert(cursor.clone()) {
            Step::Stopped(Stop::RepeatedCursor)
        } else if self.pages >= self.limits.max_pages {
            Step::Stopped(Stop::PageCap)
        } else if self.bytes >= self.limits.max_bytes {
            Step::Stopped(Stop::ByteCap)
        } else if self.deadline.remaining().is_zero() {
            Step::Stopped(Stop::OutOfTime)
        } else {
            Step::Next(cursor)
        }
    }
}

/// The cursor of the next page of spans: `meta.page.after`, else the cursor within `links.next`.
/// `meta.page` may be null.
pub(crate) fn next_cursor(body: &Value) -> Option<String> {
    let after = body.pointer("/meta/page/after");
    if let Some(cursor) = after.and_then(Value::as_str).filter(|c| !c.is_empty()) {
        return Some(cursor.to_owned());
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
    async fn it_ends_without_a_cursor_and_stops_at_a_repeated_one() {
        let mut pager = pager(9, 1_000);
        assert_eq!(pager.advance(next("a"), 1), Step::Next("a".into()));
        assert_eq!(pager.advance(next("b"), 1), Step::Next("b".into()));
        assert_eq!(
            pager.advance(next("a"), 1),
            Step::Stopped(Stop::RepeatedCursor)
        );
        assert_eq!(pager.advance(next(""), 1), Step::Complete);
        assert_eq!(pager.advance(None, 1), Step::Complete);
    }

    #[tokio::test]
    async fn caps_stop_it_only_if_there_is_more() {
        assert_eq!(pager(1, 1_000).advance(None, 5_000), Step::Complete);
        assert_eq!(
            pager(1, 1_000).advance(next("a"), 1),
            Step::Stopped(Stop::PageCap)
        );
        assert_eq!(
            pager(9, 1_000).advance(next("a"), 1_000),
            Step::Stopped(Stop::ByteCap)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_stops_it() {
        let mut pager = pager(9, 1_000);
        tokio::time::advance(Duration::from_secs(51)).await;
        assert_eq!(pager.advance(next("a"), 1), Step::Stopped(Stop::OutOfTime));
    }

    #[test]
    fn the_cursor_is_taken_out_of_the_link_and_the_link_is_not_followed() {
        let cursor = |body: Value| next_cursor(&body);
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
        for end in [
            json!({"meta":{"page":null}}),
            json!({"meta":{"page":{"after":null}},"links":{"next":null}}),
            json!({"meta":{"page":{"after":""}}}),
            json!({"links":{"next":"https://api.example/no-cursor"}}),
            json!({}),
        ] {
            assert_eq!(next_cursor(&end), None, "{end}");
        }
    }
}
