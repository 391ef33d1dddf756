//! Where callers reach the server: configured, never taken from what a request says of itself.

use http::uri::Authority;
use url::{Host, Url};

/// A public base URL: scheme and authority. `https`, or `http` on loopback for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    url: Url,
    origin: String,
}

/// Why a public URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// No URL at all.
    #[error("the public URL is not a URL: it must look like https://mcp.example.com")]
    NotAUrl,
    /// Credentials would cross the network in the clear.
    #[error(
        "the public URL must begin with https:// (http:// is for loopback alone), because callers send \
         secrets to it: https://mcp.example.com"
    )]
    NotHttps,
    /// More than scheme and authority.
    #[error(
        "the public URL is scheme and host alone, without user, path, query or fragment, because MCP and \
         its metadata are served at fixed paths below it: https://mcp.example.com"
    )]
    NotABase,
}

impl PublicUrl {
    /// Reads a public URL.
    ///
    /// # Errors
    /// It is not a URL, not `https` beyond loopback, or has more than scheme and authority.
    pub fn parse(text: &str) -> Result<Self, PublicUrlError> {
        let url = Url::parse(text.trim()).map_err(|_| PublicUrlError::NotAUrl)?;
        if !url.has_host() {
            return Err(PublicUrlError::NotAUrl);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err(PublicUrlError::NotHttps),
        }
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if !bare {
            return Err(PublicUrlError::NotABase);
        }
        let origin = url.origin().ascii_serialization();
        Ok(Self { url, origin })
    }

    /// Scheme and authority without a slash at the end, a default port left out, such as
    /// `https://mcp.example.com`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The URL of a path below it, such as `https://mcp.example.com/mcp` for `/mcp`.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Whether callers reach it over TLS.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether `name[:port]`, as it stands in `Host`, is this authority.
    pub fn is_authority(&self, text: &str) -> bool {
        // `user@host` is legal in a URL and never in a Host header.
        let Some(authority) = text
            .parse::<Authority>()
            .ok()
            .filter(|_| !text.contains('@'))
        else {
            return false;
        };
        let default = if self.is_https() { 443 } else { 80 };
        self.url
            .host_str()
            .is_some_and(|host| host.eq_ignore_ascii_case(authority.host()))
            && authority.port_u16().unwrap_or(default) == self.url.port().unwrap_or(default)
    }

    /// Whether a value of `Origin` is this origin.
    pub fn is_origin(&self, text: &str) -> bool {
        self.origin.eq_ignore_ascii_case(text)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
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
    fn what_is_a_public_url(#[case] text: &str, #[case] expected: Result<&str, PublicUrlError>) {
        let found = PublicUrl::parse(text);
        assert_eq!(
            found.as_ref().map(PublicUrl::origin),
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
    fn whose_host(#[case] url: &str, #[case] host: &str, #[case] ours: bool) {
        assert_eq!(
            PublicUrl::parse(url).expect("a URL").is_authority(host),
            ours
        );
    }

    #[rstest]
    #[case("https://mcp.example.com", true)]
    #[case("http://mcp.example.com", false)]
    #[case("https://mcp.example.com:8443", false)]
    #[case("null", false)]
    fn whose_origin(#[case] origin: &str, #[case] ours: bool) {
        let url = PublicUrl::parse("https://mcp.example.com").expect("a URL");
        assert_eq!(url.is_origin(origin), ours);
    }
}
