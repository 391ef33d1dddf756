//! Dynamic client registration: a client id for one sign-in.
//!
//! Registered anew each time: redirect addresses cannot be edited, the port differs from run to
//! run, and a registration that an administrator removed would end in the browser, where this
//! program cannot see it.

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use serde_json::{Value, json};

use super::super::credential::Credential;
use super::super::error::upstream_words;
use super::super::transport::Transport;
use super::super::{json, text};
use super::RESPONSE_LIMITS;
use super::error::LoginError;
use super::target::LoginTarget;

const WHAT: &str = "the registration";

/// Registers this program and gives its client id.
pub(super) async fn register(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_name: &str,
    redirect: &str,
) -> Result<String, LoginError> {
    let unreadable = |why| LoginError::Unreadable {
        target: target.name(),
        what: WHAT,
        why,
    };
    let body = json!({
        "client_name": client_name,
        "redirect_uris": [redirect],
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
    let answer = transport
        .send(request, RESPONSE_LIMITS)
        .await
        .map_err(|error| LoginError::NoAnswer {
            target: target.name(),
            what: WHAT,
            why: error.to_string(),
        })?;
    if !answer.status().is_success() {
        return Err(LoginError::RegistrationRefused {
            target: target.name(),
            status: answer.status().as_u16(),
            words: text::cut(&upstream_words(answer.body(), &Credential::None), 300),
        });
    }
    let answer: Value =
        json::parse(answer.body()).map_err(|_| unreadable("it is not the promised JSON"))?;
    answer
        .get("client_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty() && id.len() <= 200 && id.bytes().all(|b| b.is_ascii_graphic()))
        .map(str::to_owned)
        .ok_or_else(|| unreadable("it holds no client id"))
}
