//! Cookies that bind a consent page, and a sign-in at Datadog that starts there, to one browser.
//!
//! Each page and each sign-in has its own cookie: pages in two tabs do not interfere, and an attacker
//! cannot set the cookie of a future page. Scripts cannot read the cookies. Over https their names have
//! the prefix `__Host-`, so that other hosts of the domain cannot set them. The cookie of a page is
//! `SameSite=Strict`. The cookie of a sign-in is `Lax`, because the browser returns from Datadog's site
//! by a top-level navigation; it has a separate value, and only a browser with the page's cookie
//! receives it.

use http::{HeaderMap, HeaderValue, header};

use crate::public_url::PublicUrl;

use super::primitives::OpaqueToken;

/// How long a consent page can be submitted, in seconds.
pub(super) const CONSENT_LIFETIME_SECONDS: i64 = 600;

/// What a cookie binds to a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CookieScope {
    /// A consent page, by its id.
    ConsentPage,
    /// A sign-in at Datadog, by its `state`.
    SignIn,
}

impl CookieScope {
    /// The name of a cookie. It contains only the first characters of the id, which is a secret.
    fn cookie_name(self, public_url: &PublicUrl, id: &str) -> String {
        let prefix = if public_url.is_https() { "__Host-" } else { "" };
        let kind = match self {
            Self::ConsentPage => "consent",
            Self::SignIn => "sign-in",
        };
        let id: String = id.chars().take(8).collect();
        format!("{prefix}llmobs-{kind}-{id}")
    }

    fn same_site(self) -> &'static str {
        match self {
            Self::ConsentPage => "Strict",
            Self::SignIn => "Lax",
        }
    }
}

/// The `Set-Cookie` header for a cookie.
pub(super) fn set_cookie(
    public_url: &PublicUrl,
    scope: CookieScope,
    id: &str,
    value: &OpaqueToken,
) -> Option<HeaderValue> {
    let secure = if public_url.is_https() {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{}={}; HttpOnly; SameSite={}; Path=/; Max-Age={CONSENT_LIFETIME_SECONDS}{secure}",
        scope.cookie_name(public_url, id),
        value.expose(),
        scope.same_site(),
    );
    let mut header = HeaderValue::from_str(&cookie).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The value of a cookie. `None` if the request has it twice, because another host may have set one of
/// them.
pub(super) fn read_cookie(
    public_url: &PublicUrl,
    headers: &HeaderMap,
    scope: CookieScope,
    id: &str,
) -> Option<String> {
    let expected = scope.cookie_name(public_url, id);
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == expected)
        .map(|(_, value)| value.to_owned());
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether a form may come from a page of this server. Browsers send the origin of a form. Other programs
/// send none; they cannot be tricked into sending a form.
pub(super) fn is_same_origin(public_url: &PublicUrl, headers: &HeaderMap) -> bool {
    let all = |name: &str, is_allowed: &dyn Fn(&[u8]) -> bool| {
        headers
            .get_all(name)
            .iter()
            .all(|value| is_allowed(value.as_bytes()))
    };
    all("origin", &|value| value == public_url.origin().as_bytes())
        && all("sec-fetch-site", &|value| value == b"same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn public_url(url: &str) -> PublicUrl {
        PublicUrl::parse(url).unwrap()
    }

    #[rstest]
    #[case::page(
        CookieScope::ConsentPage,
        "__Host-llmobs-consent-abcdefgh=",
        "SameSite=Strict"
    )]
    #[case::sign_in(CookieScope::SignIn, "__Host-llmobs-sign-in-abcdefgh=", "SameSite=Lax")]
    fn https_cookie_is_bound_to_the_host(
        #[case] scope: CookieScope,
        #[case] name: &str,
        #[case] same_site: &str,
    ) {
        let value = OpaqueToken::generate();
        let set = |url| set_cookie(&public_url(url), scope, "abcdefghij", &value).unwrap();
        let header = set("https://mcp.example.com");
        assert!(header.is_sensitive());
        let text = header.to_str().unwrap();
        assert!(text.starts_with(name), "{text}");
        for attribute in ["HttpOnly", same_site, "Path=/", "Secure"] {
            assert!(text.contains(attribute), "{text}");
        }
        assert!(!text.contains("Domain"));
        let local = set("http://127.0.0.1:1");
        assert!(!local.to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn reads_cookie_of_its_page() {
        let public_url = public_url("http://127.0.0.1:1");
        let mut headers = HeaderMap::new();
        let cookies = "x=1; llmobs-consent-aaaaaaaa=one;llmobs-consent-bbbbbbbb=two";
        headers.append("cookie", HeaderValue::from_static(cookies));
        let read = |headers: &HeaderMap, scope, id| read_cookie(&public_url, headers, scope, id);
        let two = read(&headers, CookieScope::ConsentPage, "bbbbbbbbcc");
        assert_eq!(two.as_deref(), Some("two"));
        assert_eq!(read(&headers, CookieScope::ConsentPage, "cccccccc"), None);
        assert_eq!(read(&headers, CookieScope::SignIn, "bbbbbbbbcc"), None);
        let again = HeaderValue::from_static("llmobs-consent-aaaaaaaa=three");
        headers.append("cookie", again);
        assert_eq!(read(&headers, CookieScope::ConsentPage, "aaaaaaaa"), None);
    }

    #[rstest]
    #[case(&[], true)]
    #[case(&[("origin", "https://mcp.example.com")], true)]
    #[case(&[("origin", "https://mcp.example.com"), ("sec-fetch-site", "same-origin")], true)]
    #[case(&[("origin", "https://evil.example")], false)]
    #[case(&[("origin", "null")], false)]
    #[case(&[("origin", "https://mcp.example.com:8443")], false)]
    #[case(&[("origin", "http://mcp.example.com")], false)]
    #[case(&[("sec-fetch-site", "cross-site")], false)]
    #[case(&[("sec-fetch-site", "same-site")], false)]
    #[case(&[("sec-fetch-site", "none")], false)]
    #[case(&[("origin", "https://mcp.example.com"), ("origin", "https://evil.example")], false)]
    fn recognises_forms_of_other_sites(#[case] sent: &[(&str, &str)], #[case] expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(
            is_same_origin(&public_url("https://mcp.example.com"), &headers),
            expected
        );
    }
}
