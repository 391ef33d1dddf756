//! Redirect URIs: validation at registration, and comparison with those in requests.
//!
//! A requested URI must equal a registered one. The exception is RFC 8252's: a program on the user's
//! machine listens on a free port, so the port of a loopback URI is not compared. Scheme, host, path and
//! query are.

use url::{Host, Url};

use crate::loopback::is_loopback_url;

/// The maximum length of a redirect URI in bytes.
const MAX_URI_BYTES: usize = 1_000;

/// Private-use schemes of known clients that are not reversed domain names, which RFC 8252 requires.
const KNOWN_SCHEMES: [&str; 3] = ["cursor", "vscode", "vscode-insiders"];

/// Validates a redirect URI. The error is a message for the author of the client.
pub(super) fn validate(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_URI_BYTES {
        return Err("a redirect URI must have at most 1000 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(
            "a redirect URI must consist of printable ASCII without spaces and backslashes",
        );
    }
    let url = Url::parse(text).map_err(|_| "a redirect URI must be an absolute URI")?;
    if text.contains('#') {
        return Err("a redirect URI must not have a fragment");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must not contain a user name");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback_url(&url) => Ok(()),
        "http" => Err("a redirect URI with http must be on 127.0.0.1, [::1] or localhost"),
        scheme if KNOWN_SCHEMES.contains(&scheme) || is_reversed_domain(scheme) => Ok(()),
        _ => Err(
            "a redirect URI must be https, http on loopback, or a private-use scheme that is a reversed domain name such as com.example.app",
        ),
    }
}

/// Whether a requested redirect URI matches a registered one.
pub(super) fn matches(registered: &str, requested: &str) -> bool {
    if registered == requested {
        return true;
    }
    if validate(requested).is_err() {
        return false;
    }
    let (Ok(one), Ok(other)) = (Url::parse(registered), Url::parse(requested)) else {
        return false;
    };
    let is_http_loopback = |url: &Url| url.scheme() == "http" && is_loopback_url(url);
    is_http_loopback(&one)
        && is_http_loopback(&other)
        && one.host() == other.host()
        && one.path() == other.path()
        && one.query() == other.query()
}

/// Whether a redirect URI belongs to a program on the user's machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    is_loopback_url(url)
}

/// The part of a redirect URI that a user sees: the origin, or the scheme of a private-use URI.
pub(super) fn display_address(url: &Url) -> String {
    match url.scheme() {
        "http" | "https" => url.origin().ascii_serialization(),
        scheme => format!("{scheme}:"),
    }
}

/// The source that a content security policy must allow so that the response to a form may redirect to
/// the URI.
pub(super) fn policy_source(url: &Url) -> String {
    match url.host() {
        // The grammar of policies has no IPv6 addresses.
        Some(Host::Ipv6(_)) => format!("{}:", url.scheme()),
        _ => display_address(url),
    }
}

fn is_reversed_domain(scheme: &str) -> bool {
    let mut labels = scheme.split('.');
    scheme.contains('.') && labels.all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://claude.ai/api/mcp/auth_callback", true)]
    #[case("http://127.0.0.1:1234/callback", true)]
    #[case("http://localhost/callback", true)]
    #[case("http://[::1]:9/cb?x=1", true)]
    #[case("cursor://anysphere.cursor-mcp/oauth/callback", true)]
    #[case("com.example.app:/callback", true)]
    #[case("http://example.com/cb", false)]
    #[case("http://localhost.example.com/cb", false)]
    #[case("http://127.0.0.1.example.com/cb", false)]
    #[case("http://10.0.0.1/cb", false)]
    #[case("https://user@example.com/cb", false)]
    #[case("https://example.com/cb#x", false)]
    #[case("https://example.com/cb#", false)]
    #[case("https://example.com/c b", false)]
    #[case("https://example.com\\@evil.example/", false)]
    #[case("https://example.com/\r\nX: y", false)]
    #[case("https://exämple.com/", false)]
    #[case("javascript:alert(1)", false)]
    #[case("JavaScript:alert(1)", false)]
    #[case("data:text/html,x", false)]
    #[case("file:///etc/passwd", false)]
    #[case("vbscript:x", false)]
    #[case("intent://x", false)]
    #[case("..:/x", false)]
    #[case("/relative", false)]
    #[case("", false)]
    fn validates_redirect_uris(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(validate(text).is_ok(), valid, "{:?}", validate(text));
    }

    #[test]
    fn refuses_long_uri() {
        assert!(validate(&format!("https://example.com/{}", "a".repeat(1_000))).is_err());
    }

    const REGISTERED: &str = "https://app.example/cb?x=1";
    const LOOPBACK: &str = "http://127.0.0.1/callback";

    #[rstest]
    #[case::same(REGISTERED, REGISTERED, true)]
    #[case::another_host(REGISTERED, "https://evil.example/cb?x=1", false)]
    #[case::subdomain(REGISTERED, "https://x.app.example/cb?x=1", false)]
    #[case::longer_host(REGISTERED, "https://app.example.evil.example/cb?x=1", false)]
    #[case::user_name(REGISTERED, "https://app.example@evil.example/cb?x=1", false)]
    #[case::another_path(REGISTERED, "https://app.example/cb/more?x=1", false)]
    #[case::dot_segments(REGISTERED, "https://app.example/x/../cb?x=1", false)]
    #[case::another_query(REGISTERED, "https://app.example/cb?x=2", false)]
    #[case::longer_query(REGISTERED, "https://app.example/cb?x=1&y=2", false)]
    #[case::another_scheme(REGISTERED, "http://app.example/cb?x=1", false)]
    #[case::another_port(REGISTERED, "https://app.example:8443/cb?x=1", false)]
    #[case::another_case(REGISTERED, "https://app.example/CB?x=1", false)]
    #[case::explicit_default_port(REGISTERED, "https://app.example:443/cb?x=1", false)]
    #[case::loopback_port(LOOPBACK, "http://127.0.0.1:5555/callback", true)]
    #[case::loopback_from_port("http://127.0.0.1:1/callback", "http://127.0.0.1:2/callback", true)]
    #[case::loopback_name("http://localhost/callback", "http://localhost:7/callback", true)]
    #[case::loopback_other_name(LOOPBACK, "http://localhost:5555/callback", false)]
    #[case::loopback_path(LOOPBACK, "http://127.0.0.1:5555/other", false)]
    #[case::loopback_query(LOOPBACK, "http://127.0.0.1:5555/callback?x", false)]
    #[case::loopback_scheme(LOOPBACK, "https://127.0.0.1:5555/callback", false)]
    #[case::loopback_user(LOOPBACK, "http://me@127.0.0.1:5555/callback", false)]
    #[case::loopback_fragment(LOOPBACK, "http://127.0.0.1:5555/callback#x", false)]
    #[case::loopback_to_foreign_host(LOOPBACK, "http://127.0.0.1.evil.example/callback", false)]
    fn compares_requested_with_registered_uri(
        #[case] registered: &str,
        #[case] requested: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(matches(registered, requested), expected);
    }

    proptest! {
        /// A matching URI equals the registered one, except for the port of a loopback URI.
        #[test]
        fn only_loopback_port_may_differ(
            registered in "(https|http)://(app\\.example|127\\.0\\.0\\.1|localhost|\\[::1\\])(:[1-9][0-9]{0,3})?/[a-c/.%]{0,4}(\\?[a-c=]{0,3})?",
            requested in "(https|http|HTTP|javascript)://([a-z]@)?(app\\.example|127\\.0\\.0\\.1|localhost|127\\.1|\\[::1\\])(\\.evil\\.example)?(:[1-9][0-9]{0,3})?[/\\\\][a-c/.%]{0,4}(\\?[a-c=]{0,3})?(#[a-c]?)?",
        ) {
            if registered != requested && matches(&registered, &requested) {
                let one = Url::parse(&registered).unwrap();
                let mut other = Url::parse(&requested).unwrap();
                prop_assert!(is_loopback_url(&one) && is_loopback_url(&other));
                prop_assert_eq!(one.scheme(), "http");
                other.set_port(one.port()).unwrap();
                prop_assert_eq!(one.as_str(), other.as_str());
            }
        }
    }

    #[rstest]
    #[case("https://app.example/cb", "https://app.example")]
    #[case("http://127.0.0.1:5/cb", "http://127.0.0.1:5")]
    #[case("http://[::1]:5/cb", "http:")]
    #[case("cursor://x/cb", "cursor:")]
    fn policy_source_of_uri(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(policy_source(&Url::parse(text).unwrap()), expected);
    }
}
