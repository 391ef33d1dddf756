//! Audiences of tokens: each MCP path is a separate resource, and a token is valid for one of them.

use url::Url;

use crate::gate::MCP_PATHS;
use crate::public_url::PublicUrl;

use super::primitives::OauthError;

/// The path of clients that name no resource.
pub(super) const DEFAULT_PATH: &str = "/mcp";

/// The audience for the parameter `resource` of a request, in its canonical form.
///
/// # Errors
/// The resource is not an MCP address of this server.
pub(super) fn parse_resource(
    public_url: &PublicUrl,
    resource: Option<&str>,
) -> Result<String, OauthError> {
    let path = match resource {
        Some(resource) => find_path(public_url, resource),
        None => Some(DEFAULT_PATH),
    };
    path.map(|path| public_url.at(path)).ok_or_else(|| {
        OauthError::new(
            "invalid_target",
            "resource is not an MCP address of this server",
        )
    })
}

/// The MCP path that a resource names. The query (`/mcp?toolsets=…`) and a trailing slash are ignored;
/// any other difference makes another resource.
fn find_path(public_url: &PublicUrl, resource: &str) -> Option<&'static str> {
    let url = Url::parse(resource).ok()?;
    let is_this_server = url.origin().ascii_serialization() == public_url.origin()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    let path = url.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    MCP_PATHS
        .into_iter()
        .find(|known| is_this_server && *known == path)
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
    fn accepts_mcp_addresses_only(#[case] resource: Option<&str>, #[case] path: Option<&str>) {
        let public = PublicUrl::parse("https://mcp.example.com").unwrap();
        let expected = path.map(|path| format!("https://mcp.example.com{path}"));
        assert_eq!(parse_resource(&public, resource).ok(), expected);
    }
}
