//! Metadata of the server: RFC 9728 for each MCP path, RFC 8414 for the authorization server.
//!
//! Members that do not apply are absent: some clients fail on `null`.

use serde_json::{Value, json};

use super::scope;
use super::state::ServerState;
use super::wire;

/// The metadata of the MCP path `path` as a protected resource.
pub(super) fn protected_resource(server: &ServerState, path: &str) -> Value {
    json!({
        "resource": server.public_url.at(path),
        "authorization_servers": [server.public_url.origin()],
        // Clients request every scope in this list. The user allows writing on the consent page.
        "scopes_supported": [scope::READ],
        "bearer_methods_supported": ["header"],
        "resource_name": "LLM Observability (llmobs-mcp)",
    })
}

/// The metadata of the authorization server.
pub(super) fn authorization_server(server: &ServerState) -> Value {
    let at = |path: &str| server.public_url.at(path);
    let mut document = json!({
        "issuer": server.public_url.origin(),
        "authorization_endpoint": at(wire::AUTHORIZE),
        "token_endpoint": at(wire::TOKEN),
        "registration_endpoint": at(wire::REGISTER),
        "revocation_endpoint": at(wire::REVOKE),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": [scope::READ, scope::WRITE],
        "authorization_response_iss_parameter_supported": true,
    });
    if server.documents.is_some()
        && let Some(document) = document.as_object_mut()
    {
        document.insert(
            "client_id_metadata_document_supported".to_owned(),
            true.into(),
        );
    }
    document
}

/// The `WWW-Authenticate` challenge of a 401, which leads a client to the metadata. `error` is a code
/// and a description, given only if the request had a token.
pub(super) fn challenge(server: &ServerState, path: &str, error: Option<(&str, &str)>) -> String {
    let metadata_path = format!("{}{path}", wire::RESOURCE_METADATA);
    let mut challenge = format!(
        "Bearer realm=\"llmobs-mcp\", resource_metadata=\"{}\", scope=\"{}\"",
        server.public_url.at(&metadata_path),
        scope::READ,
    );
    if let Some((code, description)) = error {
        challenge.push_str(&format!(
            ", error=\"{code}\", error_description=\"{description}\""
        ));
    }
    challenge
}
