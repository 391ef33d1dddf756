//! What one request may see and as whom: read from its URL and headers, before the handler runs.
//!
//! `?toolsets=` and `?omit_tools=` are those of the hosted server, `?read_only=true` is ours, and
//! the header `X-Datadog-MCP-Toolsets` says the same as `toolsets`. The URL wins over the header,
//! because a person wrote the URL and a plugin sent the header. Other query keys are ignored:
//! plugins add their own.

use http::{HeaderMap, Uri};

use llmobs_authz::Admitted;

use super::selection::{Selection, Wish, names};

const TOOLSETS_HEADER: &str = "x-datadog-mcp-toolsets";

/// The scope of one request.
#[derive(Clone)]
pub struct Scope {
    /// The tools it may use.
    pub selection: Selection,
    /// With whose credential its calls are sent.
    pub caller: Admitted,
}

/// What the URL and headers of a request ask to be served.
pub(crate) fn wish(uri: &Uri, headers: &HeaderMap) -> Wish {
    let mut toolsets = Vec::new();
    let mut omit = Vec::new();
    let mut read_only = false;
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "toolsets" => toolsets.extend(names(&value).unwrap_or_default()),
            "omit_tools" => omit.extend(names(&value).unwrap_or_default()),
            "read_only" => read_only |= means_yes(&value),
            _ => {}
        }
    }
    if toolsets.is_empty() {
        for value in headers.get_all(TOOLSETS_HEADER) {
            // A header that is not text names no toolset that we know, and must not mean "default".
            toolsets.extend(names(value.to_str().unwrap_or("?")).unwrap_or_default());
        }
    }
    Wish {
        toolsets: (!toolsets.is_empty()).then_some(toolsets),
        omit,
        read_only,
    }
}

/// Whether a flag in a URL is set. Anything but a clear no is a yes: this one only tightens.
fn means_yes(value: &str) -> bool {
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

    fn read(query: &str, header: Option<&'static str>) -> Wish {
        let uri: Uri = format!("/mcp{query}").parse().expect("uri");
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(TOOLSETS_HEADER, HeaderValue::from_static(value));
        }
        wish(&uri, &headers)
    }

    #[rstest]
    #[case::nothing("", None, None)]
    #[case::query("?toolsets=llmobs,core", None, Some(vec!["llmobs", "core"]))]
    #[case::encoded("?toolsets=llmobs%2Ccore", None, Some(vec!["llmobs", "core"]))]
    #[case::repeated("?toolsets=llmobs&toolsets=core", None, Some(vec!["llmobs", "core"]))]
    #[case::empty_query("?toolsets=", None, None)]
    #[case::header("", Some("llmobs, core"), Some(vec!["llmobs", "core"]))]
    #[case::empty_header("", Some(""), None)]
    #[case::query_wins("?toolsets=core", Some("llmobs"), Some(vec!["core"]))]
    #[case::empty_query_leaves_the_header("?toolsets=", Some("llmobs"), Some(vec!["llmobs"]))]
    #[case::others_are_ignored("?referrer_ide=x&plugin_version=1", None, None)]
    fn toolsets_of_a_request(
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
    fn read_only_of_a_request(#[case] query: &str, #[case] expected: bool) {
        assert_eq!(read(query, None).read_only, expected);
    }
}
