//! The token endpoint (RFC 6749) and the revocation endpoint (RFC 7009).
//!
//! All clients are public: the PKCE verifier proves that the client requested the code. Error responses
//! carry no more than their code. Whether a token was unknown, expired, used before or issued to another
//! client is in the log only.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::peer::PeerAddress;

use super::documents::is_document_id;
use super::primitives::{Form, OauthError, OpaqueToken, TokenHash, json_response};
use super::rate_limits::Action;
use super::state::ServerState;
use super::store::clients;
use super::store::grants::{
    self, ACCESS_TOKEN_LIFETIME_SECONDS, CodeExchange, GrantRefusal, IssuedGrant, RefreshRequest,
    TokenPairHashes,
};
use super::wire::{ACCESS_TOKEN_PREFIX, REFRESH_TOKEN_PREFIX};
use super::{audience, scope};

/// Exchanges a code or a refresh token for tokens.
pub(super) async fn token(
    State(server): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, OauthError> {
    let peer = PeerAddress::from_extensions(request.extensions());
    server.check_rate_limit(Action::RequestToken, peer)?;
    let form = Form::from_request(request).await?;
    let client = require_known_client(&server, form.require("client_id")?).await?;
    let result = match form.require("grant_type")? {
        "authorization_code" => exchange_code(&server, &form, client).await,
        "refresh_token" => refresh(&server, &form, client).await,
        _ => Err(OauthError::new(
            "unsupported_grant_type",
            "grant_type must be authorization_code or refresh_token",
        )),
    };
    if result.is_err() {
        // The request may have ended a grant.
        server.revoke_ended();
    }
    result
}

/// A new access token and a new refresh token.
struct TokenPair {
    access: OpaqueToken,
    refresh: OpaqueToken,
}

impl TokenPair {
    fn generate() -> Self {
        Self {
            access: OpaqueToken::with_prefix(ACCESS_TOKEN_PREFIX),
            refresh: OpaqueToken::with_prefix(REFRESH_TOKEN_PREFIX),
        }
    }

    fn hashes(&self) -> TokenPairHashes {
        TokenPairHashes {
            access: self.access.hash(),
            refresh: self.refresh.hash(),
        }
    }

    fn response(&self, scope: &str) -> Response {
        let body = json!({
            "access_token": self.access.expose(),
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_LIFETIME_SECONDS,
            "refresh_token": self.refresh.expose(),
            "scope": scope,
        });
        json_response(StatusCode::OK, &body)
    }
}

async fn exchange_code(
    server: &ServerState,
    form: &Form,
    client: String,
) -> Result<Response, OauthError> {
    let resource = form
        .get("resource")
        .map(|resource| audience::parse_resource(&server.public_url, Some(resource)));
    let exchange = CodeExchange {
        code: TokenHash::of(form.require("code")?),
        client,
        redirect: form.require("redirect_uri")?.to_owned(),
        verifier: form.require("code_verifier")?.to_owned(),
        resource: resource.transpose()?,
    };
    let tokens = TokenPair::generate();
    let (hashes, now) = (tokens.hashes(), server.clock.now_ms());
    let result = server
        .store
        .write(move |connection| grants::exchange_code(connection, &exchange, hashes, now))
        .await?;
    let IssuedGrant { grant, scope } = result.map_err(|refusal| token_error(refusal, "code"))?;
    tracing::info!(grant, "issued tokens for a code");
    Ok(tokens.response(&scope))
}

async fn refresh(
    server: &ServerState,
    form: &Form,
    client: String,
) -> Result<Response, OauthError> {
    let requested_scope = form.get("scope").map(ToOwned::to_owned);
    scope::validate(requested_scope.as_deref())?;
    let resource = form
        .get("resource")
        .map(|resource| audience::parse_resource(&server.public_url, Some(resource)));
    let request = RefreshRequest {
        token: TokenHash::of(form.require("refresh_token")?),
        client,
        scope: requested_scope,
        resource: resource.transpose()?,
    };
    let tokens = TokenPair::generate();
    let (hashes, now) = (tokens.hashes(), server.clock.now_ms());
    let result = server
        .store
        .write(move |connection| grants::rotate_refresh_token(connection, &request, hashes, now))
        .await?;
    let IssuedGrant { grant, scope } =
        result.map_err(|refusal| token_error(refusal, "refresh token"))?;
    tracing::info!(grant, "refreshed tokens");
    Ok(tokens.response(&scope))
}

/// The id of a client that may request tokens. The error for a client that is not registered, or not any
/// more, makes clients register again.
async fn require_known_client(server: &ServerState, id: &str) -> Result<String, OauthError> {
    let client = id.to_owned();
    if is_document_id(id) && server.documents.is_some() {
        return Ok(client);
    }
    let client_id = client.clone();
    let exists = server
        .store
        .read(move |connection| clients::exists(connection, &client_id))
        .await?;
    if exists {
        Ok(client)
    } else {
        Err(OauthError {
            status: StatusCode::UNAUTHORIZED,
            ..OauthError::new(
                "invalid_client",
                "this client is not registered; register it again",
            )
        })
    }
}

/// The error response for a refused code or refresh token.
fn token_error(refusal: GrantRefusal, token_kind: &str) -> OauthError {
    match refusal {
        GrantRefusal::Reused => {
            tracing::warn!("a {token_kind} was used twice; its grant has ended");
        }
        other => tracing::info!(reason = ?other, "refused a {token_kind}"),
    }
    match refusal {
        GrantRefusal::OtherResource => OauthError::new(
            "invalid_target",
            format!("the {token_kind} is for another MCP address of this server"),
        ),
        GrantRefusal::WiderScope => OauthError::new(
            "invalid_scope",
            "the user did not allow llmobs:write; sign in again and allow changes",
        ),
        _ => OauthError::new(
            "invalid_grant",
            format!("invalid or expired {token_kind}; sign in again"),
        ),
    }
}

/// Revokes the grant of a token.
pub(super) async fn revoke(
    State(server): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, OauthError> {
    let peer = PeerAddress::from_extensions(request.extensions());
    server.check_rate_limit(Action::RequestToken, peer)?;
    let form = Form::from_request(request).await?;
    let token = TokenHash::of(form.require("token")?);
    let client = form.get("client_id").map(ToOwned::to_owned);
    let revoked = server
        .store
        .write(move |connection| grants::revoke(connection, &token, client.as_deref()))
        .await?;
    if let Some(grant) = revoked {
        tracing::info!(grant, "a client revoked a grant");
        server.revoke_ended();
    }
    // The same response for unknown tokens, so that it does not reveal which tokens exist.
    Ok(json_response(StatusCode::OK, &json!({})))
}
