//! The wall against web pages: only known names in `Host`, only known pages in `Origin`. Known are
//! those of loopback, and the public URL if the gate has one.
//!
//! A server on loopback is reachable by every web page the user opens. A page can send requests to
//! it, and with a DNS name that resolves to 127.0.0.1 it can even read the answers. Such requests
//! carry a foreign `Host` or a foreign `Origin`, so both are refused on every route, before
//! anything else looks at the request. Programs that are not browsers send no `Origin`; that passes.
//! `X-Forwarded-Host` is not looked at: whoever sends a request can write it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};

use llmobs_authz::{self, PublicUrl};

use super::body::drain_body;

/// Middleware: passes on requests that address this machine or the public URL, answers 403 to others.
pub(crate) async fn known_names_only(
    State(public_url): State<Arc<Option<PublicUrl>>>,
    request: Request,
    next: Next,
) -> Response {
    let names = Names(Option::as_ref(&public_url));
    match names.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(
                header = refusal.header,
                "refused a request: {}",
                refusal.why
            );
            drain_body(request).await;
            let public = match names.0 {
                Some(url) => format!("{}, ", url.origin()),
                None => String::new(),
            };
            llmobs_authz::refusal(
                StatusCode::FORBIDDEN,
                &format!("forbidden: {}", refusal.why),
                &format!(
                    "this server answers only to {public}localhost, 127.0.0.1 and [::1]: use such a \
                     URL, and not from a web page of another site"
                ),
            )
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    header: &'static str,
    why: &'static str,
}

/// The names under which this server may be addressed.
#[derive(Clone, Copy)]
struct Names<'a>(Option<&'a PublicUrl>);

impl Names<'_> {
    fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = |why| Refusal {
            header: "Host",
            why,
        };
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return Err(host("the header Host was sent twice")),
            (Some(value), None) => {
                if !value.to_str().is_ok_and(|host| self.has_authority(host)) {
                    return Err(host("the header Host does not name this server"));
                }
            }
            (None, _) if uri.authority().is_none() => {
                return Err(host("the header Host is missing"));
            }
            (None, _) => {}
        }
        // A request line may name a host too (`GET http://name/ HTTP/1.1`).
        if let Some(authority) = uri.authority()
            && !self.has_authority(authority.as_str())
        {
            return Err(host("the request line does not name this server"));
        }
        for origin in headers.get_all(header::ORIGIN) {
            if !origin.to_str().is_ok_and(|page| self.has_origin(page)) {
                return Err(Refusal {
                    header: "Origin",
                    why: "the header Origin names a web page of another site",
                });
            }
        }
        Ok(())
    }

    fn has_authority(self, text: &str) -> bool {
        is_loopback_authority(text) || self.0.is_some_and(|url| url.is_authority(text))
    }

    fn has_origin(self, text: &str) -> bool {
        is_loopback_origin(text) || self.0.is_some_and(|url| url.is_origin(text))
    }
}

/// Whether `name[:port]` is this machine.
fn is_loopback_authority(text: &str) -> bool {
    // `user@host` is legal in a URL and never in a Host header.
    !text.contains('@')
        && text
            .parse::<Authority>()
            .is_ok_and(|authority| is_loopback_host(authority.host()))
}

/// Whether an origin is a page served from this machine, on any port.
fn is_loopback_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && !authority.contains(['/', '?', '#'])
        && is_loopback_authority(authority)
}

fn is_loopback_host(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use rstest::rstest;

    fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        Names(None).check(uri, headers)
    }

    #[rstest]
    #[case("localhost", true)]
    #[case("LocalHost:8787", true)]
    #[case("127.0.0.1:8787", true)]
    #[case("127.0.0.2", true)]
    #[case("[::1]:8787", true)]
    #[case("evil.example", false)]
    #[case("localhost.evil.example", false)]
    #[case("127.0.0.1.evil.example", false)]
    #[case("127.0.0.1@evil.example", false)]
    #[case("evil.example@127.0.0.1", false)]
    #[case("192.168.0.2:8787", false)]
    #[case("0.0.0.0", false)]
    #[case("", false)]
    fn hosts(#[case] host: &str, #[case] passes: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("value"));
        assert_eq!(check(&Uri::from_static("/mcp"), &headers).is_ok(), passes);
    }

    #[rstest]
    #[case("http://localhost:6274", true)]
    #[case("https://127.0.0.1", true)]
    #[case("http://[::1]:3000", true)]
    #[case("null", false)]
    #[case("https://evil.example", false)]
    #[case("http://localhost.evil.example", false)]
    #[case("http://127.0.0.1:80@evil.example", false)]
    #[case("chrome-extension://localhost", false)]
    #[case("", false)]
    fn origins(#[case] origin: &str, #[case] passes: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_str(origin).expect("value"),
        );
        assert_eq!(check(&Uri::from_static("/mcp"), &headers).is_ok(), passes);
    }

    #[test]
    fn a_request_without_a_host_and_one_with_two_are_refused() {
        let mut headers = HeaderMap::new();
        assert!(check(&Uri::from_static("/mcp"), &headers).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(check(&Uri::from_static("/mcp"), &headers).is_err());
    }

    #[test]
    fn the_request_line_counts_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("http://evil.example/mcp"), &headers).is_err());
    }

    #[rstest]
    #[case("mcp.example.com", None, true)]
    #[case("mcp.example.com:443", Some("https://mcp.example.com"), true)]
    #[case("127.0.0.1:8787", Some("https://mcp.example.com"), true)]
    #[case("mcp.example.com", Some("https://evil.example"), false)]
    #[case("mcp.example.com", Some("http://mcp.example.com"), false)]
    #[case("mcp.example.com:8443", None, false)]
    #[case("evil.example", None, false)]
    #[case("evil.example", Some("https://mcp.example.com"), false)]
    fn the_public_url_is_known_too(
        #[case] host: &str,
        #[case] origin: Option<&str>,
        #[case] passes: bool,
    ) {
        let public = PublicUrl::parse("https://mcp.example.com").expect("a URL");
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("value"));
        if let Some(origin) = origin {
            headers.insert(
                header::ORIGIN,
                HeaderValue::from_str(origin).expect("value"),
            );
        }
        let checked = Names(Some(&public)).check(&Uri::from_static("/mcp"), &headers);
        assert_eq!(checked.is_ok(), passes);
    }
}
