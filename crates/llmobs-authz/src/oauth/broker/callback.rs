//! Handles the response of Datadog: exchanges its code for tokens and stores a grant.
//!
//! The query is untrusted until its `state` belongs to an unfinished sign-in of the same browser. Then the
//! sign-in is consumed, whatever the result. Later errors are shown on the consent page, where the user can
//! enter a credential instead, or deny.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;
use secrecy::ExposeSecret as _;

use crate::oauth::browser::{CookieScope, read_cookie};
use crate::oauth::consent::{self, expired_page};
use crate::oauth::datadog_sign_in::DatadogSignIn;
use crate::oauth::page;
use crate::oauth::primitives::{MAX_FORM_BYTES, OauthError, OpaqueToken, TokenHash};
use crate::oauth::rate_limits::Action;
use crate::oauth::seal::{SignInSecrets, StoredCredential};
use crate::oauth::state::ServerState;
use crate::oauth::store::consents;
use crate::oauth::store::sign_ins::{self, PendingSignIn};
use crate::oauth::wire::CALLBACK;
use crate::peer::PeerAddress;
use datadog_llmobs::login::{AuthorizationResponse, CompletedSignIn, Login, LoginError};
use datadog_llmobs::{ClientError, Credential};

/// Handles `GET /oauth/callback`.
pub(in crate::oauth) async fn callback(
    State(server): State<Arc<ServerState>>,
    request: Request,
) -> Response {
    let peer = PeerAddress::from_extensions(request.extensions());
    if let Err(error) = server.check_rate_limit(Action::Authorize, peer) {
        return page::error(&error);
    }
    let (parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let returned = match ReturnedSignIn::read(&server, query, &parts.headers).await {
        Ok(returned) => returned,
        Err(error) => return page::error(&error),
    };
    // A separate task: if the browser disconnects, the tokens must still be stored or revoked.
    let task = tokio::spawn(async move { finish(&server, returned).await });
    match task.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => page::error(&error),
        Err(_) => page::error(&OauthError::server_error()),
    }
}

/// A sign-in with the response of Datadog, from the browser that started it.
struct ReturnedSignIn {
    response: AuthorizationResponse,
    sign_in: PendingSignIn,
    secrets: SignInSecrets,
}

impl ReturnedSignIn {
    /// Finds the sign-in of a response, and consumes it.
    async fn read(
        server: &ServerState,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Self, OauthError> {
        if query.len() > MAX_FORM_BYTES {
            return Err(OauthError::invalid_request(
                "the parameters are longer than 8 KiB",
            ));
        }
        let response = AuthorizationResponse::parse(query)
            .ok_or_else(|| OauthError::invalid_request("a parameter is repeated"))?;
        let text = response.state().ok_or_else(expired_page)?;
        let browser = read_cookie(&server.public_url, headers, CookieScope::SignIn, text)
            .map(|value| TokenHash::of(&value))
            .ok_or_else(expired_page)?;
        let (state, now) = (TokenHash::of(text), server.clock.now_ms());
        let sign_in = server
            .store
            .write(move |connection| {
                // A response in another browser does not consume the sign-in.
                let pending = sign_ins::get(connection, &state, now)?;
                match pending.filter(|pending| browser.matches(&pending.browser)) {
                    Some(_) => sign_ins::remove(connection, &state),
                    None => Ok(None),
                }
            })
            .await?
            .ok_or_else(expired_page)?;
        let secrets = server
            .secret_key
            .open_sign_in(&sign_in.secrets, &state)
            .map_err(|error| {
                tracing::error!(%error, "the secrets of a sign-in could not be opened");
                OauthError::server_error()
            })?;
        Ok(Self {
            response,
            sign_in,
            secrets,
        })
    }
}

/// Sends the browser on to the client, or shows the consent page again.
async fn finish(
    server: &Arc<ServerState>,
    returned: ReturnedSignIn,
) -> Result<Response, OauthError> {
    let login = match log_in(server, &returned).await? {
        Ok(login) => login,
        Err(error) => return show_consent_again(server, &returned, &error).await,
    };
    let user_allowed_writing = returned.sign_in.may_write;
    let may_write = user_allowed_writing && DatadogSignIn::may_write(&login.scope);
    if user_allowed_writing && !may_write {
        tracing::info!("Datadog did not grant the write scope, so the grant is read-only");
    }
    let unused = login.clone();
    let login = StoredCredential::Login(Box::new(login));
    let page = returned.secrets.page.expose_secret();
    match consent::grant(server, page, &login, may_write).await {
        Ok(url) => Ok(page::continue_to_client(&url)),
        Err(error) => {
            server.revoke(&unused).await;
            Err(error)
        }
    }
}

/// The login that a response gives, verified. The inner error is a message for the user.
async fn log_in(
    server: &Arc<ServerState>,
    returned: &ReturnedSignIn,
) -> Result<Result<Login, String>, OauthError> {
    let Some(at_datadog) = &server.datadog_sign_in else {
        return Err(OauthError::server_error());
    };
    let outcome = match redeem(server, at_datadog, returned).await {
        Ok(outcome) => outcome,
        Err(RedeemError::OtherSite(message)) => return Ok(Err(message)),
        Err(RedeemError::Login(error)) => {
            tracing::warn!(%error, "a sign-in at Datadog failed");
            if let LoginError::UnknownClient { .. } = error {
                server
                    .forget_registration(&returned.sign_in.client_id)
                    .await?;
            }
            return Ok(Err(describe_login_error(&error).to_owned()));
        }
    };
    for note in &outcome.notes {
        tracing::info!("sign-in at Datadog: {note}");
    }
    let login = server.dated(outcome.login);
    let credential = Credential::Bearer(login.access_token.clone());
    let client = server.hub.client(credential, "oauth consent");
    match client.check_access().await {
        Ok(()) => Ok(Ok(login)),
        Err(error) => {
            tracing::warn!(status = error.status(), "refused a login at Datadog");
            server.revoke(&login).await;
            Ok(Err(describe_refused_login(&error).to_owned()))
        }
    }
}

/// Why a response gives no tokens.
enum RedeemError {
    /// The user signed in at another site, whose tokens the upstream does not accept.
    OtherSite(String),
    Login(LoginError),
}

/// Exchanges the code of a response for tokens.
async fn redeem(
    server: &ServerState,
    at_datadog: &DatadogSignIn,
    returned: &ReturnedSignIn,
) -> Result<CompletedSignIn, RedeemError> {
    let accepted = returned
        .response
        .verify(&at_datadog.target, None)
        .map_err(RedeemError::Login)?;
    if accepted.target != at_datadog.target {
        return Err(RedeemError::OtherSite(format!(
            "Your account is at {}, but this server reads {}. Sign in to a server for your site.",
            accepted.target.name(),
            at_datadog.target.name()
        )));
    }
    let client_id = returned.sign_in.client_id.clone();
    let registration = at_datadog.registration(client_id, server.public_url.at(CALLBACK));
    let scopes = DatadogSignIn::scopes(returned.sign_in.may_write);
    let transport = server.hub.transport();
    registration
        .redeem(&*transport, accepted, &returned.secrets.verifier, &scopes)
        .await
        .map_err(RedeemError::Login)
}

/// Shows the consent page again with an error, if it has not expired.
async fn show_consent_again(
    server: &ServerState,
    returned: &ReturnedSignIn,
    error: &str,
) -> Result<Response, OauthError> {
    let page = returned.secrets.page.expose_secret();
    let csrf = OpaqueToken::generate();
    let (id, next, now) = (TokenHash::of(page), csrf.hash(), server.clock.now_ms());
    let consent = server
        .store
        .write(move |connection| {
            Ok(
                if consents::replace_csrf_token(connection, &id, &next, now)? {
                    consents::get(connection, &id, now)?
                } else {
                    None
                },
            )
        })
        .await?
        .ok_or_else(expired_page)?;
    page::consent_again(server, &consent, page, &csrf, error)
}

/// The message for a user whose sign-in at Datadog failed.
fn describe_login_error(error: &LoginError) -> &'static str {
    match error {
        LoginError::Denied(_) => {
            "Access was denied at Datadog. Allow it there, enter an access token or a pair of keys, or deny \
             here."
        }
        LoginError::ScopeRejected(_) => {
            "Datadog does not allow the access that this server requests: the organisation may not have LLM \
             Observability, or may not allow this program to request it. Enter an access token or a pair of \
             keys."
        }
        LoginError::ForeignDomain(_) | LoginError::WrongAuthority { .. } => {
            "The response names a host that does not belong to Datadog, so it was not used. Deny, and report \
             it if it happens again."
        }
        LoginError::CodeRejected { .. } | LoginError::UnknownClient { .. } => {
            "Datadog did not accept its own code, perhaps because it had expired. Sign in there again."
        }
        LoginError::Failed { .. } | LoginError::NoCode => {
            "The sign-in at Datadog ended with an error (see this server's log). Try again, or enter an \
             access token or a pair of keys."
        }
        _ => page::UPSTREAM_UNAVAILABLE,
    }
}

/// The message for a user whose login has no access to LLM Observability.
fn describe_refused_login(error: &ClientError) -> &'static str {
    match error.status() {
        Some(401 | 403) => {
            "You are signed in at Datadog, but this sign-in may not read LLM Observability. Enter an access \
             token or a pair of keys that may."
        }
        _ => consent::describe_refused_credential(error),
    }
}
