//! The wall against web pages: only loopback names in `Host`, only loopback pages in `Origin`.
//!
//! A server on loopback is reachable by every web page the user opens. A page can send requests to
//! it, and with a DNS name that resolves to 127.0.0.1 it can even read the answers. Such requests
//! carry a foreign `Host` or a foreign `Origin`, so both are refused on every route, before
//! anything else looks at the request. Programs that are not browsers send no `Origin`; that passes.

use std::net::IpAddr;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::json;

/// Middleware: passes requests from this machine on, answers 403 to others.
pub(crate) async fn loopback_only(request: Request, next: Next) -> Response {
    match check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(
                header = refusal.header,
                "refused a request: {}",
                refusal.why
            );
            let body = json!({
                "error": format!("forbidden: {}", refusal.why),
                "status": 403,
                "hint": "this server answers only to localhost, 127.0.0.1 and [::1]: use such a URL, \
                         and not from a web page of another site",
            });
            (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    header: &'static str,
    why: &'static str,
}

fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = |why| Refusal {
        header: "Host",
        why,
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(host("the header Host was sent twice")),
        (Some(value), None) => {
            if !value.to_str().is_ok_and(is_loopback_authority) {
                return Err(host("the header Host does not name this machine"));
            }
        }
        (None, _) if uri.authority().is_none() => {
            return Err(host("the header Host is missing"));
        }
        (None, _) => {}
    }
    // A request line may name a host too (`GET http://name/ HTTP/1.1`).
    if let Some(authority) = uri.authority()
        && !is_loopback_authority(authority.as_str())
    {
        return Err(host("the request line does not name this machine"));
    }
    for origin in headers.get_all(header::ORIGIN) {
        if !origin.to_str().is_ok_and(is_loopback_origin) {
            return Err(Refusal {
                header: "Origin",
                why: "the header Origin names a web page of another site",
            });
        }
    }
    Ok(())
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
}
