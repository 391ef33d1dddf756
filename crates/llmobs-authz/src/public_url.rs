//! The URL at which callers reach the server. It is configured, never taken from a request.

use url::Url;

use crate::loopback::{is_loopback_url, parse_authority};

/// A public base URL: scheme and authority. The scheme is `https`, or `http` on loopback for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    url: Url,
    origin: String,
}

/// Why a public URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// The text is not a URL with a host.
    #[error("the public URL is not a URL; use one like https://mcp.example.com")]
    NotAUrl,
    /// Credentials would cross the network in the clear.
    #[error(
        "the public URL must start with https:// (http:// is allowed on loopback only), because callers \
         send secrets to it; use one like https://mcp.example.com"
    )]
    NotHttps,
    /// The URL has more than scheme and authority.
    #[error(
        "the public URL must consist of scheme and host, without user, path, query or fragment, because \
         the server uses fixed paths for MCP and its metadata; use one like https://mcp.example.com"
    )]
    NotABase,
}

impl PublicUrl {
    /// Parses a public URL.
    ///
    /// # Errors
    /// The text is not a URL, is not `https` and not on loopback, or has more than scheme and
    /// authority.
    pub fn parse(text: &str) -> Result<Self, PublicUrlError> {
        let url = Url::parse(text.trim()).map_err(|_| PublicUrlError::NotAUrl)?;
        if !url.has_host() {
            return Err(PublicUrlError::NotAUrl);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback_url(&url) => {}
            _ => return Err(PublicUrlError::NotHttps),
        }
        let is_base = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if !is_base {
            return Err(PublicUrlError::NotABase);
        }
        let origin = url.origin().ascii_serialization();
        Ok(Self { url, origin })
    }

    /// Scheme and authority without a trailing slash and without a default port, for example
    /// `https://mcp.example.com`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The URL of a path below it, for example `https://mcp.example.com/mcp` for `/mcp`.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        is_loopback_url(&self.url)
    }

    /// Whether callers reach it over TLS.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether `host[:port]`, the value of a `Host` header, names this authority.
    pub fn matches_authority(&self, text: &str) -> bool {
        let Some(authority) = parse_authority(text) else {
            return false;
        };
        let default = if self.is_https() { 443 } else { 80 };
        self.url
            .host_str()
            .is_some_and(|host| host.eq_ignore_ascii_case(authority.host()))
            && authority.port_u16().unwrap_or(default) == self.url.port().unwrap_or(default)
    }

    /// Whether the value of an `Origin` header is this origin.
    pub fn matches_origin(&self, text: &str) -> bool {
        self.origin.eq_ignore_ascii_case(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://mcp.example.com", Ok("https://mcp.example.com"))]
    #[case("https://MCP.example.com:443/", Ok("https://mcp.example.com"))]
    #[case("https://mcp.example.com:8443", Ok("https://mcp.example.com:8443"))]
    #[case("http://127.0.0.1:8787", Ok("http://127.0.0.1:8787"))]
    #[case("http://[::1]:8787/", Ok("http://[::1]:8787"))]
    #[case("http://localhost:80", Ok("http://localhost"))]
    #[case("http://mcp.example.com", Err(PublicUrlError::NotHttps))]
    #[case("http://localhost.example.com", Err(PublicUrlError::NotHttps))]
    #[case("ftp://mcp.example.com", Err(PublicUrlError::NotHttps))]
    #[case("https://mcp.example.com/llm", Err(PublicUrlError::NotABase))]
    #[case("https://mcp.example.com/?a=b", Err(PublicUrlError::NotABase))]
    #[case("https://mcp.example.com/#a", Err(PublicUrlError::NotABase))]
    #[case("https://user@mcp.example.com", Err(PublicUrlError::NotABase))]
    #[case("https://:pass@mcp.example.com", Err(PublicUrlError::NotABase))]
    #[case("mcp.example.com", Err(PublicUrlError::NotAUrl))]
    #[case("data:text/plain,x", Err(PublicUrlError::NotAUrl))]
    #[case("", Err(PublicUrlError::NotAUrl))]
    fn accepts_base_urls_only(#[case] text: &str, #[case] expected: Result<&str, PublicUrlError>) {
        let parsed = PublicUrl::parse(text);
        assert_eq!(
            parsed.as_ref().map(PublicUrl::origin),
            expected.as_ref().copied()
        );
    }

    #[rstest]
    #[case("https://mcp.example.com", "mcp.example.com", true)]
    #[case("https://mcp.example.com", "MCP.example.com:443", true)]
    #[case("https://mcp.example.com", "mcp.example.com:80", false)]
    #[case("https://mcp.example.com", "mcp.example.com.evil.example", false)]
    #[case("https://mcp.example.com", "user@mcp.example.com", false)]
    #[case("https://mcp.example.com:8443", "mcp.example.com:8443", true)]
    #[case("https://mcp.example.com:8443", "mcp.example.com", false)]
    #[case("http://[::1]:8787", "[::1]:8787", true)]
    #[case("https://mcp.example.com", "", false)]
    fn compares_host_headers(#[case] url: &str, #[case] host: &str, #[case] matches: bool) {
        assert_eq!(
            PublicUrl::parse(url)
                .expect("a URL")
                .matches_authority(host),
            matches
        );
    }

    #[rstest]
    #[case("https://mcp.example.com", true)]
    #[case("http://mcp.example.com", false)]
    #[case("https://mcp.example.com:8443", false)]
    #[case("null", false)]
    fn compares_origins(#[case] origin: &str, #[case] matches: bool) {
        let url = PublicUrl::parse("https://mcp.example.com").expect("a URL");
        assert_eq!(url.matches_origin(origin), matches);
    }
}
