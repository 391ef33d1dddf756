//! Registration of programs (RFC 7591): public clients of this machine only.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{OauthError, body_of, unstored};
use crate::Backend;
use crate::http::json_plain;

const MOST_REDIRECTS: usize = 10;
const LONGEST_NAME: usize = 200;

/// A registered program.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) redirects: Vec<String>,
}

pub(super) async fn register(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Result<Response, OauthError> {
    let body = body_of(request).await?;
    let asked: Value = serde_json::from_slice(&body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| OauthError::new("invalid_request", "the body is not a JSON object"))?;
    let registration = read(&asked)?;
    let client_id = uuid::Uuid::new_v4().to_string();
    let answer = json!({
        "client_id": client_id,
        "client_name": registration.name,
        "redirect_uris": registration.redirects,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    backend
        .authority
        .known()
        .clients
        .insert(client_id, registration);
    Ok(unstored(json_plain(StatusCode::CREATED, &answer)))
}

fn read(asked: &Value) -> Result<Registration, OauthError> {
    let wrong = |words: &str| OauthError::new("invalid_client_metadata", words);
    let name = asked
        .get("client_name")
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME)
        .ok_or_else(|| wrong("client_name must be a text of 1 to 200 bytes"))?;
    if name.chars().any(char::is_control) {
        return Err(wrong("client_name holds control characters"));
    }
    let only = |key: &str, allowed: &[&str]| match asked.get(key) {
        None => true,
        Some(Value::String(one)) => allowed.contains(&one.as_str()),
        Some(Value::Array(items)) => items
            .iter()
            .all(|item| item.as_str().is_some_and(|item| allowed.contains(&item))),
        Some(_) => false,
    };
    if !only("grant_types", &["authorization_code", "refresh_token"]) {
        return Err(wrong(
            "grant_types can be authorization_code and refresh_token",
        ));
    }
    if !only("response_types", &["code"]) {
        return Err(wrong("response_types can only be code"));
    }
    if !only("token_endpoint_auth_method", &["none"]) {
        return Err(wrong("token_endpoint_auth_method can only be none"));
    }
    let redirects = asked
        .get("redirect_uris")
        .and_then(Value::as_array)
        .filter(|items| (1..=MOST_REDIRECTS).contains(&items.len()))
        .ok_or_else(|| wrong("redirect_uris must be a list of 1 to 10 addresses"))?
        .iter()
        .map(|item| item.as_str().filter(|text| is_loopback_redirect(text)))
        .map(|item| item.map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            wrong("a redirect URI here is http on 127.0.0.1, [::1] or localhost, without user and fragment")
        })?;
    Ok(Registration {
        name: name.to_owned(),
        redirects,
    })
}

fn is_loopback_redirect(text: &str) -> bool {
    if text.len() > 2_000 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    here && url.scheme() == "http"
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}
