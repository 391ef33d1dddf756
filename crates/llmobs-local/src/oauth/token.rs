//! Tokens for codes and refresh tokens, and their end.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::grants::ACCESS_LIFE;
use super::{Form, OauthError, body_of, unstored};
use crate::Backend;
use crate::http::json_plain;

pub(super) async fn token(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Result<Response, OauthError> {
    let form = Form::read(&body_of(request).await?)?;
    let grant_type = form.need("grant_type")?;
    let client_id = form.need("client_id")?;
    let mut known = backend.authority.known();
    if known.clients.get(&client_id.to_owned()).is_none() {
        return Err(OauthError::new(
            "invalid_request",
            "Invalid client_id parameter value.",
        ));
    }
    let given = match grant_type {
        "authorization_code" => known
            .grants
            .exchange(
                form.need("code")?,
                client_id,
                form.need("redirect_uri")?,
                form.need("code_verifier")?,
            )
            .ok_or_else(|| {
                OauthError::new(
                    "invalid_grant",
                    "Invalid authorization code or code verifier.",
                )
            })?,
        "refresh_token" => known
            .grants
            .renew(form.need("refresh_token")?, client_id)
            .ok_or_else(|| OauthError::new("invalid_grant", "Invalid refresh token."))?,
        _ => {
            return Err(OauthError::new(
                "unsupported_grant_type",
                "grant_type can be authorization_code or refresh_token",
            ));
        }
    };
    let answer = json!({
        "access_token": given.access,
        "token_type": "Bearer",
        "expires_in": ACCESS_LIFE.as_secs(),
        "refresh_token": given.refresh,
        "scope": given.scope,
    });
    Ok(unstored(json_plain(StatusCode::OK, &answer)))
}

pub(super) async fn revoke(
    State(backend): State<Arc<Backend>>,
    request: Request,
) -> Result<Response, OauthError> {
    let form = Form::read(&body_of(request).await?)?;
    let (client_id, token) = (form.need("client_id")?, form.need("token")?);
    backend.authority.known().grants.revoke(token, client_id);
    // The same answer for an unknown token: nobody learns which ones there are.
    Ok(unstored(json_plain(StatusCode::OK, &json!({}))))
}
