//! Dynamic client registration (RFC 7591): public clients, within bounds, for anybody.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::Inner;
use super::answer::{OauthError, answer};
use super::client::Metadata;
use super::form::body_of;
use super::limits::{Act, Peer};
use super::store::clients::{self, Registered};

pub(super) async fn register(
    State(inner): State<Arc<Inner>>,
    request: Request,
) -> Result<Response, OauthError> {
    inner.count(Act::Register, Peer::of(request.extensions()))?;
    let body = body_of(request.into_body()).await?;
    let sent: Value = serde_json::from_slice(&body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| OauthError::invalid_request("the body must be a JSON object"))?;
    let Metadata { name, redirects } =
        Metadata::read(&sent).map_err(|bad| OauthError::new(bad.code, bad.words))?;
    let client = Registered {
        id: format!("llmobs-{}", uuid::Uuid::new_v4()),
        name,
        redirects,
    };
    let now = inner.clock.now_ms();
    let answered = json!({
        "client_id": client.id,
        "client_id_issued_at": now / 1_000,
        "client_name": client.name,
        "redirect_uris": client.redirects,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let kept = inner
        .store
        .write(move |connection| clients::add(connection, &client, now))
        .await?;
    if kept {
        Ok(answer(StatusCode::CREATED, &answered))
    } else {
        Err(OauthError::full())
    }
}
