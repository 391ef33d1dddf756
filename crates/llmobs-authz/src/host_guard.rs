//! Protection against web pages: checks the headers `Host` and `Origin`.
//!
//! Every web page that a user opens can reach a server on loopback. A page can send requests to it,
//! and with a DNS name that resolves to 127.0.0.1 (DNS rebinding) it can even read the responses.
//! Such requests carry a foreign `Host` or a foreign `Origin`. The guard refuses both on every route,
//! before other code reads the request. Programs that are not browsers send no `Origin`; their
//! requests pass. The guard ignores `X-Forwarded-Host`, which any sender can set.

use http::{HeaderMap, Uri, header};

use crate::loopback::is_loopback_authority;
use crate::public_url::PublicUrl;

/// Accepts requests that address this machine by a loopback name or by the public URL.
#[derive(Debug, Clone)]
pub struct HostGuard {
    public_url: Option<PublicUrl>,
    requires_host: bool,
}

/// Why [`HostGuard::check`] refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForeignRequest {
    /// Neither a `Host` header nor a host in the request line.
    #[error("the header Host is missing")]
    MissingHost,
    /// More than one `Host` header.
    #[error("the header Host was sent twice")]
    RepeatedHost,
    /// A `Host` header that names another server.
    #[error("the header Host does not name this server")]
    ForeignHost,
    /// A request line that names another server (`GET http://name/ HTTP/1.1`).
    #[error("the request line does not name this server")]
    ForeignRequestLine,
    /// An `Origin` header of another site.
    #[error("the header Origin names a web page of another site")]
    ForeignOrigin,
}

impl ForeignRequest {
    /// The name of the header that the guard refused.
    pub fn header(self) -> &'static str {
        match self {
            Self::ForeignOrigin => "Origin",
            _ => "Host",
        }
    }
}

impl HostGuard {
    /// A guard that accepts loopback names and, if given, the public URL.
    pub fn new(public_url: Option<PublicUrl>) -> Self {
        Self {
            public_url,
            requires_host: true,
        }
    }

    /// A guard that accepts loopback names, and requests without a host: requests that were made in
    /// this process have none. Browsers always send one.
    pub fn for_in_process_requests() -> Self {
        Self {
            public_url: None,
            requires_host: false,
        }
    }

    /// The public URL that the guard accepts besides loopback names.
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    /// Checks the URI and the headers of a request.
    ///
    /// # Errors
    /// The request names another server, or comes from a page of another site.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return Err(ForeignRequest::RepeatedHost),
            (Some(value), None) => {
                if !value.to_str().is_ok_and(|host| self.accepts_host(host)) {
                    return Err(ForeignRequest::ForeignHost);
                }
            }
            (None, _) if self.requires_host && uri.authority().is_none() => {
                return Err(ForeignRequest::MissingHost);
            }
            (None, _) => {}
        }
        if let Some(authority) = uri.authority()
            && !self.accepts_host(authority.as_str())
        {
            return Err(ForeignRequest::ForeignRequestLine);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.all(|origin| origin.to_str().is_ok_and(|text| self.accepts_origin(text))) {
            Ok(())
        } else {
            Err(ForeignRequest::ForeignOrigin)
        }
    }

    fn accepts_host(&self, text: &str) -> bool {
        is_loopback_authority(text)
            || self
                .public_url()
                .is_some_and(|url| url.matches_authority(text))
    }

    fn accepts_origin(&self, text: &str) -> bool {
        is_loopback_origin(text)
            || self
                .public_url()
                .is_some_and(|url| url.matches_origin(text))
    }
}

/// Whether `host[:port]` names this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
pub fn names_this_machine(authority: &str) -> bool {
    is_loopback_authority(authority)
}

/// Whether an origin belongs to a page that this machine serves, on any port.
fn is_loopback_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && !authority.contains(['/', '?', '#'])
        && is_loopback_authority(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use rstest::rstest;

    fn mcp() -> Uri {
        Uri::from_static("/mcp")
    }

    fn headers(host: Option<&str>, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.append(name, HeaderValue::from_str(value).expect("a header value"));
            }
        }
        headers
    }

    #[rstest]
    #[case("http://localhost:6274", true)]
    #[case("https://127.0.0.1", true)]
    #[case("http://[::1]:3000", true)]
    #[case("null", false)]
    #[case("https://evil.example", false)]
    #[case("http://localhost.evil.example", false)]
    #[case("http://127.0.0.1:80@evil.example", false)]
    #[case("http://localhost:3000/path", false)]
    #[case("chrome-extension://localhost", false)]
    #[case("file://", false)]
    #[case("", false)]
    fn accepts_loopback_origins_only(#[case] origin: &str, #[case] accepted: bool) {
        let headers = headers(Some("localhost"), Some(origin));
        for guard in [HostGuard::new(None), HostGuard::for_in_process_requests()] {
            assert_eq!(guard.check(&mcp(), &headers).is_ok(), accepted);
        }
    }

    #[test]
    fn refuses_missing_host_unless_in_process() {
        let none = HeaderMap::new();
        let refused = HostGuard::new(None).check(&mcp(), &none);
        assert_eq!(refused, Err(ForeignRequest::MissingHost));
        let in_process = HostGuard::for_in_process_requests();
        assert_eq!(in_process.check(&mcp(), &none), Ok(()));
        let page = headers(None, Some("https://evil.example"));
        let refused = in_process.check(&mcp(), &page);
        assert_eq!(refused, Err(ForeignRequest::ForeignOrigin));
    }

    #[test]
    fn refuses_repeated_host() {
        let mut headers = headers(Some("localhost"), None);
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        let refused = HostGuard::new(None).check(&mcp(), &headers);
        assert_eq!(refused, Err(ForeignRequest::RepeatedHost));
    }

    #[test]
    fn checks_host_of_request_line() {
        let uri = Uri::from_static("http://evil.example/mcp");
        let refused = HostGuard::new(None).check(&uri, &headers(Some("localhost"), None));
        assert_eq!(refused, Err(ForeignRequest::ForeignRequestLine));
        let uri = Uri::from_static("http://127.0.0.1/mcp");
        let accepted = HostGuard::new(None).check(&uri, &HeaderMap::new());
        assert_eq!(accepted, Ok(()));
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
    fn accepts_public_url(
        #[case] host: &str,
        #[case] origin: Option<&str>,
        #[case] accepted: bool,
    ) {
        let public = PublicUrl::parse("https://mcp.example.com").expect("a URL");
        let guard = HostGuard::new(Some(public));
        let checked = guard.check(&mcp(), &headers(Some(host), origin));
        assert_eq!(checked.is_ok(), accepted);
    }

    #[test]
    fn names_the_refused_header() {
        assert_eq!(ForeignRequest::ForeignHost.header(), "Host");
        assert_eq!(ForeignRequest::ForeignOrigin.header(), "Origin");
    }
}
