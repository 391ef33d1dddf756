//! Audiences: each MCP address is a resource of its own, and a token is good for one of them.

use url::Url;

use crate::{MCP_PATHS, PublicUrl};

use super::answer::OauthError;

/// The audience of clients that name none.
pub(super) const DEFAULT_PATH: &str = "/mcp";

/// The audience that a request names in `resource`, in its one form.
///
/// # Errors
/// It names anything but an MCP address of this server.
pub(super) fn of_request(public: &PublicUrl, asked: Option<&str>) -> Result<String, OauthError> {
    let path = match asked {
        Some(asked) => path_of(public, asked),
        None => Some(DEFAULT_PATH),
    };
    path.map(|path| public.at(path)).ok_or_else(|| {
        OauthError::new(
            "invalid_target",
            "resource is not an MCP address of this server",
        )
    })
}

/// Which of our paths a resource names. A query is no part of its identity here (`/mcp?toolsets=…`
/// is the same audience), nor is a slash at the end; anything else that differs is another resource.
fn path_of(public: &PublicUrl, resource: &str) -> Option<&'static str> {
    let url = Url::parse(resource).ok()?;
    let same = url.origin().ascii_serialization() == public.origin()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    let path = url.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    MCP_PATHS.into_iter().find(|known| same && *known == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, Some("/mcp"))]
    #[case(Some("https://mcp.example.com/mcp"), Some("/mcp"))]
    #[case(Some("https://mcp.example.com/mcp/"), Some("/mcp"))]
    #[case(Some("HTTPS://MCP.EXAMPLE.COM:443/mcp"), Some("/mcp"))]
    #[case(
        Some("https://mcp.example.com/v1/mcp?toolsets=llmobs"),
        Some("/v1/mcp")
    )]
    #[case(Some("https://mcp.example.com"), None)]
    #[case(Some("https://mcp.example.com/MCP"), None)]
    #[case(Some("https://mcp.example.com/mcp#x"), None)]
    #[case(Some("https://mcp.example.com/other"), None)]
    #[case(Some("https://mcp.example.com:8443/mcp"), None)]
    #[case(Some("http://mcp.example.com/mcp"), None)]
    #[case(Some("https://mcp.example.com.evil.example/mcp"), None)]
    #[case(Some("https://mcp.example.com@evil.example/mcp"), None)]
    #[case(Some("/mcp"), None)]
    #[case(Some(""), None)]
    fn a_resource_is_one_of_our_addresses(#[case] asked: Option<&str>, #[case] path: Option<&str>) {
        let public = PublicUrl::parse("https://mcp.example.com").unwrap();
        let expected = path.map(|path| format!("https://mcp.example.com{path}"));
        assert_eq!(of_request(&public, asked).ok(), expected);
    }
}
