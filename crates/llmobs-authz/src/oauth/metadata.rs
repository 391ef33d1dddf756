//! What the server says of itself: RFC 9728 for each MCP address, RFC 8414 for the issuer.
//!
//! Members that do not apply are left out: some clients fail on `null`.

use serde_json::{Value, json};

use super::Inner;

/// Where tokens for one of our addresses come from. `resource` is what the user typed.
pub(super) fn resource(inner: &Inner, path: &str) -> Value {
    json!({
        "resource": inner.public.at(path),
        "authorization_servers": [inner.public.origin()],
        // Clients ask for all that stands here: writing is the user's own choice on the consent page.
        "scopes_supported": [super::scope::READ],
        "bearer_methods_supported": ["header"],
        "resource_name": "LLM Observability (llmobs-mcp)",
    })
}

/// The authorization server.
pub(super) fn authorization_server(inner: &Inner) -> Value {
    let at = |path: &str| inner.public.at(path);
    let mut document = json!({
        "issuer": inner.public.origin(),
        "authorization_endpoint": at(super::AUTHORIZE),
        "token_endpoint": at(super::TOKEN),
        "registration_endpoint": at(super::REGISTER),
        "revocation_endpoint": at(super::REVOKE),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": [super::scope::READ, super::scope::WRITE],
        "authorization_response_iss_parameter_supported": true,
    });
    if inner.documents.is_some()
        && let Some(document) = document.as_object_mut()
    {
        document.insert(
            "client_id_metadata_document_supported".to_owned(),
            true.into(),
        );
    }
    document
}

/// The challenge of a 401: where a client learns how to sign in. `error` only when a token was sent.
pub(super) fn challenge(inner: &Inner, path: &str, error: Option<(&str, &str)>) -> String {
    let mut challenge = format!(
        "Bearer realm=\"llmobs-mcp\", resource_metadata=\"{}\", scope=\"{}\"",
        inner
            .public
            .at(&format!("{}{path}", super::RESOURCE_METADATA)),
        super::scope::READ,
    );
    if let Some((code, words)) = error {
        challenge.push_str(&format!(
            ", error=\"{code}\", error_description=\"{words}\""
        ));
    }
    challenge
}
