//! The scope of a request: its tools and its credential, read from URL and headers before the handler
//! runs.
//!
//! `?toolsets=` and `?omit_tools=` are those of the hosted server, `?read_only=true` is ours, and the
//! header `X-Datadog-MCP-Toolsets` means the same as `toolsets`. The URL takes precedence over the
//! header, because a person writes the URL and a plugin sends the header. Other query keys are
//! ignored, because plugins add their own.

use http::{HeaderMap, Uri};

use llmobs_authz::CallerCredential;

use super::selection::{Selection, ToolFilter, names};

const TOOLSETS_HEADER: &str = "x-datadog-mcp-toolsets";

/// The scope of one request.
#[derive(Clone)]
pub struct Scope {
    /// The tools of the request.
    pub selection: Selection,
    /// The caller, whose credential its calls use.
    pub caller: CallerCredential,
}

/// The tool filter in the URL and headers of a request.
pub(crate) fn request_filter(uri: &Uri, headers: &HeaderMap) -> ToolFilter {
    let mut toolsets = Vec::new();
    let mut omit = Vec::new();
    let mut read_only = false;
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "toolsets" => toolsets.extend(names(&value).unwrap_or_default()),
            "omit_tools" => omit.extend(names(&value).unwrap_or_default()),
            "read_only" => read_only |= is_on(&value),
            _ => {}
        }
    }
    if toolsets.is_empty() {
        for value in headers.get_all(TOOLSETS_HEADER) {
            // A header that is not text names an unknown toolset; it must not mean "default".
            toolsets.extend(names(value.to_str().unwrap_or("?")).unwrap_or_default());
        }
    }
    ToolFilter {
        toolsets: (!toolsets.is_empty()).then_some(toolsets),
        omit,
        read_only,
    }
}

/// Whether a switch in a URL is on. Every value but a clear no counts as yes, because the switch only
/// restricts.
fn is_on(value: &str) -> bool {
    !matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "false" | "0" | "no" | "off"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use rstest::rstest;

    fn read(query: &str, header: Option<&'static str>) -> ToolFilter {
        let uri: Uri = format!("/mcp{query}").parse().expect("uri");
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(TOOLSETS_HEADER, HeaderValue::from_static(value));
        }
        request_filter(&uri, &headers)
    }

    #[rstest]
    #[case::nothing("", None, None)]
    #[case::query("?toolsets=llmobs,core", None, Some(vec!["llmobs", "core"]))]
    #[case::encoded("?toolsets=llmobs%2Ccore", None, Some(vec!["llmobs", "core"]))]
    #[case::repeated("?toolsets=llmobs&toolsets=core", None, Some(vec!["llmobs", "core"]))]
    #[case::empty_query("?toolsets=", None, None)]
    #[case::header("", Some("llmobs, core"), Some(vec!["llmobs", "core"]))]
    #[case::empty_header("", Some(""), None)]
    #[case::query_precedes_header("?toolsets=core", Some("llmobs"), Some(vec!["core"]))]
    #[case::empty_query_leaves_the_header("?toolsets=", Some("llmobs"), Some(vec!["llmobs"]))]
    #[case::other_keys_are_ignored("?referrer_ide=x&plugin_version=1", None, None)]
    fn reads_toolsets_of_request(
        #[case] query: &str,
        #[case] header: Option<&'static str>,
        #[case] expected: Option<Vec<&str>>,
    ) {
        let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
        assert_eq!(read(query, header).toolsets, expected);
    }

    #[rstest]
    #[case("?read_only=true", true)]
    #[case("?read_only=1", true)]
    #[case("?read_only", true)]
    #[case("?read_only=flase", true)]
    #[case("?read_only=false", false)]
    #[case("", false)]
    fn reads_read_only_of_request(#[case] query: &str, #[case] expected: bool) {
        assert_eq!(read(query, None).read_only, expected);
    }
}
