//! What ties a consent page, and a sign-in at Datadog that begins there, to one browser.
//!
//! A cookie for each, so that pages in two tabs do not disturb each other, and so that nobody can
//! prepare a cookie for a page that is still to come. It is not readable by scripts, and over https
//! carries the prefix that keeps neighbouring hosts from setting it. That of a page is not sent from
//! other sites (`SameSite=Strict`). That of a sign-in must be: the browser comes back from Datadog's
//! site (`Lax`: in an address that is opened, not in a form). It is another value, given to nobody
//! but the browser that had the page's.

use http::{HeaderMap, HeaderValue, header};

use crate::PublicUrl;

use super::opaque::Opaque;

/// How long a consent page waits, in seconds.
pub(super) const PATIENCE_SECONDS: i64 = 600;

/// What a cookie ties to a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tied {
    /// A consent page, by its id.
    Page,
    /// A sign-in at Datadog, by its `state`.
    SignIn,
}

impl Tied {
    /// The name of a cookie. The id itself is not in it: only its beginning tells cookies apart.
    fn name(self, public: &PublicUrl, id: &str) -> String {
        let prefix = if public.is_https() { "__Host-" } else { "" };
        let what = match self {
            Self::Page => "consent",
            Self::SignIn => "sign-in",
        };
        let id: String = id.chars().take(8).collect();
        format!("{prefix}llmobs-{what}-{id}")
    }

    fn same_site(self) -> &'static str {
        match self {
            Self::Page => "Strict",
            Self::SignIn => "Lax",
        }
    }
}

/// The header that gives the browser a cookie.
pub(super) fn set_cookie(
    public: &PublicUrl,
    tied: Tied,
    id: &str,
    value: &Opaque,
) -> Option<HeaderValue> {
    let secure = if public.is_https() { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; HttpOnly; SameSite={}; Path=/; Max-Age={PATIENCE_SECONDS}{secure}",
        tied.name(public, id),
        value.expose(),
        tied.same_site(),
    );
    let mut header = HeaderValue::from_str(&cookie).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The value of a cookie; none if it came twice, because one of them is somebody else's.
pub(super) fn cookie(
    public: &PublicUrl,
    headers: &HeaderMap,
    tied: Tied,
    id: &str,
) -> Option<String> {
    let wanted = tied.name(public, id);
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether a form can have come from a page of ours. Browsers say from where a form was sent;
/// programs, which cannot be tricked into sending one, say nothing.
pub(super) fn is_same_origin(public: &PublicUrl, headers: &HeaderMap) -> bool {
    let all = |name: &str, fine: &dyn Fn(&[u8]) -> bool| {
        headers
            .get_all(name)
            .iter()
            .all(|value| fine(value.as_bytes()))
    };
    all("origin", &|value| value == public.origin().as_bytes())
        && all("sec-fetch-site", &|value| value == b"same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::opaque::PLAIN;
    use rstest::rstest;

    fn public(url: &str) -> PublicUrl {
        PublicUrl::parse(url).unwrap()
    }

    #[rstest]
    #[case::page(Tied::Page, "__Host-llmobs-consent-abcdefgh=", "SameSite=Strict")]
    #[case::sign_in(Tied::SignIn, "__Host-llmobs-sign-in-abcdefgh=", "SameSite=Lax")]
    fn over_https_the_cookie_is_locked_to_this_host(
        #[case] tied: Tied,
        #[case] start: &str,
        #[case] same_site: &str,
    ) {
        let value = Opaque::new(PLAIN);
        let set = |url| set_cookie(&public(url), tied, "abcdefghij", &value).unwrap();
        let header = set("https://mcp.example.com");
        assert!(header.is_sensitive());
        let text = header.to_str().unwrap();
        assert!(text.starts_with(start), "{text}");
        for attribute in ["HttpOnly", same_site, "Path=/", "Secure"] {
            assert!(text.contains(attribute), "{text}");
        }
        assert!(!text.contains("Domain"));
        let local = set("http://127.0.0.1:1");
        assert!(!local.to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn a_page_finds_its_own_cookie() {
        let public = public("http://127.0.0.1:1");
        let mut headers = HeaderMap::new();
        let cookies = "x=1; llmobs-consent-aaaaaaaa=one;llmobs-consent-bbbbbbbb=two";
        headers.append("cookie", HeaderValue::from_static(cookies));
        let found = |headers: &HeaderMap, tied, id| cookie(&public, headers, tied, id);
        let two = found(&headers, Tied::Page, "bbbbbbbbcc");
        assert_eq!(two.as_deref(), Some("two"));
        assert_eq!(found(&headers, Tied::Page, "cccccccc"), None);
        assert_eq!(found(&headers, Tied::SignIn, "bbbbbbbbcc"), None);
        let again = HeaderValue::from_static("llmobs-consent-aaaaaaaa=three");
        headers.append("cookie", again);
        assert_eq!(found(&headers, Tied::Page, "aaaaaaaa"), None);
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
    fn a_form_of_another_site_is_told_apart(#[case] sent: &[(&str, &str)], #[case] fine: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(
            is_same_origin(&public("https://mcp.example.com"), &headers),
            fine
        );
    }
}
