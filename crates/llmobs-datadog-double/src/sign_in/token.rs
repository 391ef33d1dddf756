//! The token endpoint and revocation.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use llmobs_authz::oauth::primitives::{Form, OauthError, json_response};
use serde_json::json;

use super::grants::ACCESS_LIFETIME;
use super::{DatadogOauthError, SignIn};

pub(super) async fn token(
    State(sign_in): State<Arc<SignIn>>,
    request: Request,
) -> Result<Response, DatadogOauthError> {
    let form = Form::from_request(request).await?;
    let grant_type = form.require("grant_type")?;
    let client_id = form.require("client_id")?;
    if !sign_in.clients.contains_key(client_id) {
        return Err(OauthError::invalid_request("Invalid client_id parameter value.").into());
    }
    let tokens = match grant_type {
        "authorization_code" => sign_in
            .grants()
            .exchange(
                form.require("code")?,
                client_id,
                form.require("redirect_uri")?,
                form.require("code_verifier")?,
            )
            .ok_or_else(|| {
                OauthError::new(
                    "invalid_grant",
                    "Invalid authorization code or code verifier.",
                )
            })?,
        "refresh_token" => sign_in
            .grants()
            .renew(form.require("refresh_token")?, client_id)
            .ok_or_else(|| OauthError::new("invalid_grant", "Invalid refresh token."))?,
        _ => {
            return Err(OauthError::new(
                "unsupported_grant_type",
                "grant_type can be authorization_code or refresh_token",
            )
            .into());
        }
    };
    let response = json!({
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": ACCESS_LIFETIME.as_secs(),
        "refresh_token": tokens.refresh,
        "scope": tokens.scope,
    });
    Ok(json_response(StatusCode::OK, &response))
}

pub(super) async fn revoke(
    State(sign_in): State<Arc<SignIn>>,
    request: Request,
) -> Result<Response, DatadogOauthError> {
    let form = Form::from_request(request).await?;
    let (client_id, token) = (form.require("client_id")?, form.require("token")?);
    sign_in.grants().revoke(token, client_id);
    // The response is the same for an unknown token, so that it does not reveal which exist.
    Ok(json_response(StatusCode::OK, &json!({})))
}
