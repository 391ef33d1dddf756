//! Tokens for codes and refresh tokens, and their end (RFC 6749, RFC 7009).
//!
//! All clients are public: what proves that a code is in the right hands is its verifier. A refusal
//! says no more than its code does: whether a token was unknown, over, used before or somebody
//! else's is for the log.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::answer::{OauthError, answer};
use super::documents::is_document_id;
use super::form::Form;
use super::limits::{Act, Peer};
use super::opaque::{ACCESS, Hashed, Opaque, REFRESH};
use super::store::clients;
use super::store::grants::{
    self, ACCESS_LIFE_SECONDS, Exchange, Issued, Refreshed, Refused, Renewal,
};
use super::{Inner, audience, scope};

pub(super) async fn token(
    State(inner): State<Arc<Inner>>,
    request: Request,
) -> Result<Response, OauthError> {
    inner.count(Act::Token, Peer::of(request.extensions()))?;
    let form = Form::of(request).await?;
    let client = known_client(&inner, form.need("client_id")?).await?;
    let given = match form.need("grant_type")? {
        "authorization_code" => exchange(&inner, &form, client).await,
        "refresh_token" => refresh(&inner, &form, client).await,
        _ => Err(OauthError::new(
            "unsupported_grant_type",
            "grant_type must be authorization_code or refresh_token",
        )),
    };
    if given.is_err() {
        // What is wrong can end a grant.
        inner.revoke_ended();
    }
    given
}

/// The two tokens of an answer, before they are given out.
struct Fresh {
    access: Opaque,
    refresh: Opaque,
}

impl Fresh {
    fn new() -> Self {
        Self {
            access: Opaque::new(ACCESS),
            refresh: Opaque::new(REFRESH),
        }
    }

    fn issued(&self) -> Issued {
        Issued {
            access: self.access.hashed(),
            refresh: self.refresh.hashed(),
        }
    }

    fn answer(&self, scope: &str) -> Response {
        let body = json!({
            "access_token": self.access.expose(),
            "token_type": "Bearer",
            "expires_in": ACCESS_LIFE_SECONDS,
            "refresh_token": self.refresh.expose(),
            "scope": scope,
        });
        answer(StatusCode::OK, &body)
    }
}

async fn exchange(inner: &Inner, form: &Form, client: String) -> Result<Response, OauthError> {
    let resource = form
        .get("resource")
        .map(|asked| audience::of_request(&inner.public, Some(asked)));
    let asked = Exchange {
        code: Hashed::of(form.need("code")?),
        client,
        redirect: form.need("redirect_uri")?.to_owned(),
        verifier: form.need("code_verifier")?.to_owned(),
        resource: resource.transpose()?,
    };
    let fresh = Fresh::new();
    let (issued, now) = (fresh.issued(), inner.clock.now_ms());
    let granted = inner
        .store
        .write(move |connection| grants::exchange(connection, &asked, issued, now))
        .await?;
    let Refreshed { grant, scope } = granted.map_err(|refused| refusal(refused, "code"))?;
    tracing::info!(grant, "tokens were given for a code");
    Ok(fresh.answer(&scope))
}

async fn refresh(inner: &Inner, form: &Form, client: String) -> Result<Response, OauthError> {
    let asked_scope = form.get("scope").map(ToOwned::to_owned);
    scope::check(asked_scope.as_deref())?;
    let resource = form
        .get("resource")
        .map(|asked| audience::of_request(&inner.public, Some(asked)));
    let asked = Renewal {
        token: Hashed::of(form.need("refresh_token")?),
        client,
        scope: asked_scope,
        resource: resource.transpose()?,
    };
    let fresh = Fresh::new();
    let (issued, now) = (fresh.issued(), inner.clock.now_ms());
    let granted = inner
        .store
        .write(move |connection| grants::refresh(connection, &asked, issued, now))
        .await?;
    let Refreshed { grant, scope } =
        granted.map_err(|refused| refusal(refused, "refresh token"))?;
    tracing::info!(grant, "tokens were renewed");
    Ok(fresh.answer(&scope))
}

/// The client that a request names. One that is not registered (any more) is told so in the way that
/// makes clients register anew.
async fn known_client(inner: &Inner, id: &str) -> Result<String, OauthError> {
    let client = id.to_owned();
    if is_document_id(id) && inner.documents.is_some() {
        return Ok(client);
    }
    let wanted = client.clone();
    let known = inner
        .store
        .read(move |connection| clients::exists(connection, &wanted))
        .await?;
    if known {
        Ok(client)
    } else {
        Err(OauthError {
            status: StatusCode::UNAUTHORIZED,
            ..OauthError::new("invalid_client", "this client is not registered here")
        })
    }
}

fn refusal(refused: Refused, what: &str) -> OauthError {
    match refused {
        Refused::Reused => tracing::warn!("a {what} came a second time; its grant was ended"),
        other => tracing::info!(reason = ?other, "a {what} was refused"),
    }
    match refused {
        Refused::OtherResource => OauthError::new(
            "invalid_target",
            format!("the {what} is for another MCP address of this server"),
        ),
        Refused::WiderScope => OauthError::new(
            "invalid_scope",
            "the user did not allow llmobs:write; it takes a new sign-in",
        ),
        _ => OauthError::new(
            "invalid_grant",
            format!("the {what} is not good (any more); sign in again"),
        ),
    }
}

pub(super) async fn revoke(
    State(inner): State<Arc<Inner>>,
    request: Request,
) -> Result<Response, OauthError> {
    inner.count(Act::Token, Peer::of(request.extensions()))?;
    let form = Form::of(request).await?;
    let token = Hashed::of(form.need("token")?);
    let client = form.get("client_id").map(ToOwned::to_owned);
    let ended = inner
        .store
        .write(move |connection| grants::revoke(connection, &token, client.as_deref()))
        .await?;
    if let Some(grant) = ended {
        tracing::info!(grant, "a grant was revoked");
        inner.revoke_ended();
    }
    // The same answer for an unknown token: nobody learns which ones there are.
    Ok(answer(StatusCode::OK, &json!({})))
}
