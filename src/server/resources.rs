//! The two resources of the hosted server: what is enabled, and who is asking.

use rmcp::ErrorData;
use rmcp::model::{CacheScope, ReadResourceResult, Resource, ResourceContents};
use serde_json::{Map, Value, json};

use crate::tools;

use super::selection::Catalogue;
use super::{McpServer, Scope, VERSION};
use llmobs_core::analysis::candidates::closest;

/// The toolsets, their tools and which are enabled for the reader.
pub const TOOLSETS_URI: &str = "datadog://mcp/toolsets";
/// The upstream and the kind of credential that the reader's calls use.
pub const WHOAMI_URI: &str = "datadog://mcp/whoami";

const JSON: &str = "application/json";

/// How long a client may keep the list of toolsets, in milliseconds: it changes with a restart.
const TOOLSETS_TTL_MS: u64 = 60_000;

/// The list of resources, in a fixed order.
pub(crate) fn list() -> Vec<Resource> {
    vec![
        Resource::new(TOOLSETS_URI, "toolsets")
            .with_title("Toolsets")
            .with_description("Every toolset with its tools, and which of them are enabled here")
            .with_mime_type(JSON),
        Resource::new(WHOAMI_URI, "whoami")
            .with_title("Who am I")
            .with_description(
                "The upstream that answers, the kind of credential used and where it comes from, \
                 and the server's version",
            )
            .with_mime_type(JSON),
    ]
}

/// Reads one resource.
pub(crate) fn read(
    server: &McpServer,
    scope: &Scope,
    uri: &str,
) -> Result<ReadResourceResult, ErrorData> {
    let (value, ttl_ms) = match uri {
        TOOLSETS_URI => (server.toolsets_json(scope), TOOLSETS_TTL_MS),
        WHOAMI_URI => (server.whoami_json(scope), 0),
        _ => {
            let near = closest(uri, [TOOLSETS_URI, WHOAMI_URI]).unwrap_or(TOOLSETS_URI);
            return Err(ErrorData::resource_not_found(
                format!("no such resource; did you mean {near}?"),
                None,
            ));
        }
    };
    let contents = ResourceContents::text(value.to_string(), uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents])
        .with_ttl_ms(ttl_ms)
        .with_cache_scope(CacheScope::Private))
}

impl McpServer {
    /// The body of [`TOOLSETS_URI`].
    pub(crate) fn toolsets_json(&self, scope: &Scope) -> Value {
        let toolsets: Vec<Value> = tools::TOOLSETS
            .iter()
            .map(|set| {
                let names: Vec<&str> = tools::all()
                    .iter()
                    .filter(|tool| tool.toolset == set.name)
                    .map(|tool| tool.name)
                    .collect();
                json!({
                    "name": set.name,
                    "description": set.description,
                    "enabled": scope.selection.toolsets.contains(&set.name),
                    "default": Catalogue::is_default(set.name),
                    "tools": names,
                })
            })
            .collect();
        let aliases: Vec<Value> = self
            .inner
            .catalogue
            .toolset_aliases()
            .into_iter()
            .map(|(name, expands_to)| json!({"name": name, "expandsTo": expands_to}))
            .collect();
        let mut body = Map::new();
        body.insert("toolsets".to_owned(), Value::Array(toolsets));
        body.insert("aliases".to_owned(), Value::Array(aliases));
        let left_out: Vec<&str> = scope.selection.left_out().collect();
        if !left_out.is_empty() {
            body.insert("omitted_tools".to_owned(), json!(left_out));
        }
        if !scope.selection.warnings.is_empty() {
            body.insert("notes".to_owned(), json!(scope.selection.warnings));
        }
        Value::Object(body)
    }

    /// The body of [`WHOAMI_URI`].
    pub(crate) fn whoami_json(&self, scope: &Scope) -> Value {
        let mut body = self.upstreams().whoami(&scope.caller);
        if let Some(map) = body.as_object_mut() {
            map.insert(
                "server".to_owned(),
                json!({"name": "llmobs-mcp", "version": VERSION}),
            );
            map.insert("toolsets".to_owned(), json!(scope.selection.toolsets));
            map.insert("read_only".to_owned(), json!(scope.selection.read_only));
            if !scope.selection.warnings.is_empty() {
                map.insert("notes".to_owned(), json!(scope.selection.warnings));
            }
        }
        body
    }
}
