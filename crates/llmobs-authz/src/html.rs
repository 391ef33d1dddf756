//! Pages that a browser is shown: escaping, and the headers that guard them.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Text that can stand in markup and in quoted attributes without being any.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A page that may be neither framed nor kept, under a content security policy.
///
/// The policy on referrers is `same-origin`, which tells other sites nothing; with `no-referrer`
/// browsers would send our own form with `Origin: null`, and the check of that header would be
/// lost. A policy that is no header value becomes one that allows nothing.
pub fn page(status: StatusCode, policy: &str, html: String) -> Response {
    let fixed = HeaderValue::from_static;
    let policy = HeaderValue::from_str(policy).unwrap_or(fixed("default-src 'none'"));
    let headers = [
        (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::REFERRER_POLICY, fixed("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_sent_can_be_markup() {
        assert_eq!(
            escaped("<a href='x' id=\"y\">&</a>"),
            "&lt;a href=&#39;x&#39; id=&quot;y&quot;&gt;&amp;&lt;/a&gt;"
        );
    }
}
