//! Registration of clients (RFC 7591): public clients with loopback redirect URIs only.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use llmobs_authz::oauth::primitives::{OauthError, json_response, read_body};
use serde_json::{Value, json};
use url::{Host, Url};

use super::{DatadogOauthError, SignIn};

const MAX_REDIRECT_URIS: usize = 10;
const MAX_NAME_BYTES: usize = 200;
const MAX_URI_BYTES: usize = 2_000;

/// A registered client.
#[derive(Debug, Clone)]
pub(super) struct ClientRegistration {
    pub(super) name: String,
    pub(super) redirect_uris: Vec<String>,
}

pub(super) async fn register(
    State(sign_in): State<Arc<SignIn>>,
    request: Request,
) -> Result<Response, DatadogOauthError> {
    let body = read_body(request.into_body()).await?;
    let metadata: Value = serde_json::from_slice(&body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| OauthError::invalid_request("the body is not a JSON object"))?;
    let registration = read_metadata(&metadata)?;
    let client_id = uuid::Uuid::new_v4().to_string();
    let response = json!({
        "client_id": client_id,
        "client_name": registration.name,
        "redirect_uris": registration.redirect_uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    sign_in.clients.insert(client_id, registration);
    Ok(json_response(StatusCode::CREATED, &response))
}

fn read_metadata(metadata: &Value) -> Result<ClientRegistration, OauthError> {
    let invalid = |description: &str| OauthError::new("invalid_client_metadata", description);
    let name = metadata
        .get("client_name")
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
        .ok_or_else(|| invalid("client_name must be a text of 1 to 200 bytes"))?;
    if name.chars().any(char::is_control) {
        return Err(invalid("client_name contains control characters"));
    }
    let contains_only = |key: &str, allowed: &[&str]| match metadata.get(key) {
        None => true,
        Some(Value::String(value)) => allowed.contains(&value.as_str()),
        Some(Value::Array(values)) => values
            .iter()
            .all(|value| value.as_str().is_some_and(|value| allowed.contains(&value))),
        Some(_) => false,
    };
    if !contains_only("grant_types", &["authorization_code", "refresh_token"]) {
        return Err(invalid(
            "grant_types can be authorization_code and refresh_token",
        ));
    }
    if !contains_only("response_types", &["code"]) {
        return Err(invalid("response_types can only be code"));
    }
    if !contains_only("token_endpoint_auth_method", &["none"]) {
        return Err(invalid("token_endpoint_auth_method can only be none"));
    }
    let redirect_uris = metadata
        .get("redirect_uris")
        .and_then(Value::as_array)
        .filter(|uris| (1..=MAX_REDIRECT_URIS).contains(&uris.len()))
        .ok_or_else(|| invalid("redirect_uris must be a list of 1 to 10 URIs"))?
        .iter()
        .map(|uri| uri.as_str().filter(|text| is_loopback_uri(text)))
        .map(|uri| uri.map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            invalid("a redirect URI must be http on 127.0.0.1, [::1] or localhost, without user and fragment")
        })?;
    Ok(ClientRegistration {
        name: name.to_owned(),
        redirect_uris,
    })
}

fn is_loopback_uri(text: &str) -> bool {
    if text.len() > MAX_URI_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    is_loopback
        && url.scheme() == "http"
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}
