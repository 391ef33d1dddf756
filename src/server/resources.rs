//! The two resources of the hosted server: the toolsets, and the caller's credential.

use rmcp::ErrorData;
use rmcp::model::{CacheScope, ReadResourceResult, Resource, ResourceContents};
use serde_json::{Map, Value, json};

use crate::tools;

use super::selection::ToolRegistry;
use super::{McpServer, Scope, VERSION};
use llmobs_core::analysis::candidates::closest;

/// The URI of the toolsets with their tools, and whether each is enabled for the caller.
pub const TOOLSETS_URI: &str = "datadog://mcp/toolsets";
/// The URI of the upstream and the kind of credential that the caller's calls use.
pub const WHOAMI_URI: &str = "datadog://mcp/whoami";

const JSON: &str = "application/json";

/// How long a client may cache the list of toolsets, in milliseconds. It changes with a restart only.
const TOOLSETS_TTL_MS: u64 = 60_000;

/// The list of resources, in a fixed order.
pub(crate) fn list() -> Vec<Resource> {
    vec![
        Resource::new(TOOLSETS_URI, "toolsets")
            .with_title("Toolsets")
            .with_description("Every toolset with its tools, and whether it is enabled on this connection")
            .with_mime_type(JSON),
        Resource::new(WHOAMI_URI, "whoami")
            .with_title("Who am I")
            .with_description(
                "The upstream, the kind and source of the credential, and the version of the server",
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
                format!("unknown resource; did you mean {near}?"),
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
                    "default": ToolRegistry::is_default(set.name),
                    "tools": names,
                })
            })
            .collect();
        let aliases: Vec<Value> = self
            .inner
            .registry
            .toolset_aliases()
            .into_iter()
            .map(|(name, expands_to)| json!({"name": name, "expandsTo": expands_to}))
            .collect();
        let mut body = Map::new();
        body.insert("toolsets".to_owned(), Value::Array(toolsets));
        body.insert("aliases".to_owned(), Value::Array(aliases));
        let excluded: Vec<&str> = scope.selection.excluded().collect();
        if !excluded.is_empty() {
            body.insert("omitted_tools".to_owned(), json!(excluded));
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
