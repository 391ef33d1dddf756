//! Where a browser may be sent with a code: addresses that the client named beforehand, to the
//! letter.
//!
//! One exception, RFC 8252's: a program on the user's own machine listens on whatever port is free,
//! so the port of a loopback address is not compared. Scheme, host, path and query still are.

use url::{Host, Url};

/// The longest address in bytes.
const MOST_BYTES: usize = 1_000;

/// Private-use schemes of known clients, which do not follow RFC 8252's rule of a reversed domain
/// name.
const KNOWN_SCHEMES: [&str; 3] = ["cursor", "vscode", "vscode-insiders"];

/// Whether an address may be registered; why not, in words for its author.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > MOST_BYTES {
        return Err("a redirect URI may have 1000 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err("a redirect URI may hold printable ASCII without spaces and backslashes only");
    }
    let url = Url::parse(text).map_err(|_| "a redirect URI must be an absolute URI")?;
    if text.contains('#') {
        return Err("a redirect URI must not have a fragment");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must not name a user");
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

/// Whether a request may have the browser sent to `asked`, given one address that was registered.
pub(super) fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    if check(asked).is_err() {
        return false;
    }
    let (Ok(one), Ok(other)) = (Url::parse(registered), Url::parse(asked)) else {
        return false;
    };
    let is_http_loopback = |url: &Url| url.scheme() == "http" && is_loopback_url(url);
    is_http_loopback(&one)
        && is_http_loopback(&other)
        && one.host() == other.host()
        && one.path() == other.path()
        && one.query() == other.query()
}

/// Whether an address is a listener on the user's own machine.
pub(super) fn is_loopback_url(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Where an address leads, for a person: the origin, or the scheme of a private-use one.
pub(super) fn shown(url: &Url) -> String {
    match url.scheme() {
        "http" | "https" => url.origin().ascii_serialization(),
        scheme => format!("{scheme}:"),
    }
}

/// What a content security policy must name so that the answer to our form may redirect there.
pub(super) fn policy_source(url: &Url) -> String {
    match url.host() {
        // The grammar has no IPv6 addresses.
        Some(Host::Ipv6(_)) => format!("{}:", url.scheme()),
        _ => shown(url),
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
    fn what_may_be_registered(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(check(text).is_ok(), fine, "{:?}", check(text));
    }

    #[test]
    fn a_long_address_is_refused() {
        assert!(check(&format!("https://example.com/{}", "a".repeat(1_000))).is_err());
    }

    const REGISTERED: &str = "https://app.example/cb?x=1";
    const LOOPBACK: &str = "http://127.0.0.1/callback";

    #[rstest]
    #[case::same(REGISTERED, REGISTERED, true)]
    #[case::another_host(REGISTERED, "https://evil.example/cb?x=1", false)]
    #[case::a_host_below(REGISTERED, "https://x.app.example/cb?x=1", false)]
    #[case::a_longer_host(REGISTERED, "https://app.example.evil.example/cb?x=1", false)]
    #[case::a_user(REGISTERED, "https://app.example@evil.example/cb?x=1", false)]
    #[case::another_path(REGISTERED, "https://app.example/cb/more?x=1", false)]
    #[case::a_step_up(REGISTERED, "https://app.example/x/../cb?x=1", false)]
    #[case::another_query(REGISTERED, "https://app.example/cb?x=2", false)]
    #[case::more_query(REGISTERED, "https://app.example/cb?x=1&y=2", false)]
    #[case::another_scheme(REGISTERED, "http://app.example/cb?x=1", false)]
    #[case::another_port(REGISTERED, "https://app.example:8443/cb?x=1", false)]
    #[case::another_case(REGISTERED, "https://app.example/CB?x=1", false)]
    #[case::a_written_port(REGISTERED, "https://app.example:443/cb?x=1", false)]
    #[case::loopback_port(LOOPBACK, "http://127.0.0.1:5555/callback", true)]
    #[case::loopback_from_port("http://127.0.0.1:1/callback", "http://127.0.0.1:2/callback", true)]
    #[case::loopback_name("http://localhost/callback", "http://localhost:7/callback", true)]
    #[case::loopback_other_name(LOOPBACK, "http://localhost:5555/callback", false)]
    #[case::loopback_path(LOOPBACK, "http://127.0.0.1:5555/other", false)]
    #[case::loopback_query(LOOPBACK, "http://127.0.0.1:5555/callback?x", false)]
    #[case::loopback_scheme(LOOPBACK, "https://127.0.0.1:5555/callback", false)]
    #[case::loopback_user(LOOPBACK, "http://me@127.0.0.1:5555/callback", false)]
    #[case::loopback_fragment(LOOPBACK, "http://127.0.0.1:5555/callback#x", false)]
    #[case::loopback_to_elsewhere(LOOPBACK, "http://127.0.0.1.evil.example/callback", false)]
    fn what_a_request_may_ask(#[case] registered: &str, #[case] asked: &str, #[case] fine: bool) {
        assert_eq!(matches(registered, asked), fine);
    }

    proptest! {
        /// Whatever is asked for: the browser goes to what was registered, but for a loopback port.
        #[test]
        fn nothing_but_a_loopback_port_differs(
            registered in "(https|http)://(app\\.example|127\\.0\\.0\\.1|localhost|\\[::1\\])(:[1-9][0-9]{0,3})?/[a-c/.%]{0,4}(\\?[a-c=]{0,3})?",
            asked in "(https|http|HTTP|javascript)://([a-z]@)?(app\\.example|127\\.0\\.0\\.1|localhost|127\\.1|\\[::1\\])(\\.evil\\.example)?(:[1-9][0-9]{0,3})?[/\\\\][a-c/.%]{0,4}(\\?[a-c=]{0,3})?(#[a-c]?)?",
        ) {
            if registered != asked && matches(&registered, &asked) {
                let one = Url::parse(&registered).unwrap();
                let mut other = Url::parse(&asked).unwrap();
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
    fn a_policy_can_name_it(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(policy_source(&Url::parse(text).unwrap()), expected);
    }
}
