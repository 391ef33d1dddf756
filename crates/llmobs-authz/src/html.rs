//! HTML pages: escaping, and the security headers of their responses.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Escapes a text for element content and for quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => output.push_str("&amp;"),
            '<' => output.push_str("&lt;"),
            '>' => output.push_str("&gt;"),
            '"' => output.push_str("&quot;"),
            '\'' => output.push_str("&#39;"),
            c => output.push(c),
        }
    }
    output
}

/// A page under a content security policy. Browsers may neither frame it nor cache it.
///
/// The referrer policy is `same-origin`, which sends nothing to other sites. With `no-referrer`
/// browsers would send `Origin: null` with the page's own form, and that header could not be checked.
/// A `policy` that is not a valid header value is replaced by one that allows nothing.
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
    fn escapes_markup() {
        assert_eq!(
            escaped("<a href='x' id=\"y\">&</a>"),
            "&lt;a href=&#39;x&#39; id=&quot;y&quot;&gt;&amp;&lt;/a&gt;"
        );
    }
}
