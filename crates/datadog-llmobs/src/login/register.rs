//! Dynamic client registration: a client id for one sign-in.
//!
//! Each sign-in registers a new client. Redirect URIs cannot be edited, the port differs between
//! runs, and a registration that an administrator removed would fail in the browser, where this
//! program cannot see it.

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use serde_json::{Value, json};

use super::super::cause::ErrorCause;
use super::super::credential::Credential;
use super::super::error::upstream_message;
use super::super::transport::Transport;
use super::super::{json, text};
use super::RESPONSE_LIMITS;
use super::error::LoginError;
use super::target::LoginTarget;

const OPERATION: &str = "the registration";

/// Registers this program and returns its client id.
pub(super) async fn register(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_name: &str,
    redirect_uri: &str,
) -> Result<String, LoginError> {
    let unreadable = |reason| LoginError::Unreadable {
        target: target.name(),
        operation: OPERATION,
        reason,
    };
    let body = json!({
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    });
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = target
        .register_url()
        .parse()
        .map_err(|_| unreadable("its address is not a URL"))?;
    let json_type = HeaderValue::from_static("application/json");
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, json_type.clone());
    request.headers_mut().insert(header::ACCEPT, json_type);
    let response = transport
        .send(request, RESPONSE_LIMITS)
        .await
        .map_err(|error| LoginError::NoResponse {
            target: target.name(),
            operation: OPERATION,
            source: ErrorCause::new(error),
        })?;
    if !response.status().is_success() {
        return Err(LoginError::RegistrationRejected {
            target: target.name(),
            status: response.status().as_u16(),
            message: text::truncate(&upstream_message(response.body(), &Credential::None), 300),
        });
    }
    let registration: Value =
        json::parse(response.body()).map_err(|_| unreadable("it is not the expected JSON"))?;
    registration
        .get("client_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty() && id.len() <= 200 && id.bytes().all(|b| b.is_ascii_graphic()))
        .map(str::to_owned)
        .ok_or_else(|| unreadable("it has no client id"))
}
