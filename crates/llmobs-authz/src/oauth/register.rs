//! The registration endpoint (RFC 7591): any public client may register, within limits.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::peer::PeerAddress;

use super::client_metadata::ClientMetadata;
use super::primitives::{OauthError, json_response, read_body};
use super::rate_limits::Action;
use super::state::ServerState;
use super::store::clients::{self, RegisteredClient};

/// Registers a client.
pub(super) async fn register(
    State(server): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, OauthError> {
    let peer = PeerAddress::from_extensions(request.extensions());
    server.check_rate_limit(Action::Register, peer)?;
    let body = read_body(request.into_body()).await?;
    let sent: Value = serde_json::from_slice(&body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| OauthError::invalid_request("the body must be a JSON object"))?;
    let ClientMetadata { name, redirects } = ClientMetadata::parse(&sent)
        .map_err(|error| OauthError::new(error.code, error.description))?;
    let client = RegisteredClient {
        id: format!("llmobs-{}", uuid::Uuid::new_v4()),
        name,
        redirects,
    };
    let now = server.clock.now_ms();
    let registration = json!({
        "client_id": client.id,
        "client_id_issued_at": now / 1_000,
        "client_name": client.name,
        "redirect_uris": client.redirects,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let is_stored = server
        .store
        .write(move |connection| clients::insert(connection, &client, now))
        .await?;
    if is_stored {
        Ok(json_response(StatusCode::CREATED, &registration))
    } else {
        Err(OauthError::capacity_reached())
    }
}
