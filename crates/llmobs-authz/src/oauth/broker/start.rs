//! Starts a sign-in at Datadog from the consent page.

use axum::response::Response;
use http::header;
use secrecy::{ExposeSecret as _, SecretString};

use datadog_llmobs::login::{AuthorizationRequest, LoginError};

use crate::oauth::browser::{CookieScope, set_cookie};
use crate::oauth::consent::ConsumedConsent;
use crate::oauth::datadog_sign_in::DatadogSignIn;
use crate::oauth::page;
use crate::oauth::primitives::{OauthError, OpaqueToken, TokenHash};
use crate::oauth::redirection::redirect;
use crate::oauth::seal::SignInSecrets;
use crate::oauth::state::ServerState;
use crate::oauth::store::sign_ins::{self, PendingSignIn};
use crate::oauth::wire::CALLBACK;

/// Redirects the browser of a consent page to Datadog.
pub(in crate::oauth) async fn redirect_to_datadog(
    server: &ServerState,
    consumed: ConsumedConsent,
) -> Result<Response, OauthError> {
    let Some(sign_in) = &server.datadog_sign_in else {
        return Err(OauthError::invalid_request(
            "this server does not offer the sign-in at Datadog",
        ));
    };
    let may_write = consumed.submission.may_write();
    let request = match server.registration(sign_in).await? {
        Ok(registration) => {
            let scopes = DatadogSignIn::scopes(may_write);
            AuthorizationRequest::new(&registration, &scopes, None)
                .map(|authorization| (authorization, registration.client_id))
        }
        Err(error) => Err(error),
    };
    let (authorization, client_id) = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(
                %error,
                redirect = server.public_url.at(CALLBACK),
                "the sign-in at Datadog could not start; if Datadog does not register this redirect URI, \
                 configure a client id that allows it (--datadog-client-id)"
            );
            return Ok(consumed.show_again(server, describe_error(&error)));
        }
    };
    let browser = OpaqueToken::generate();
    let state_hash = TokenHash::of(authorization.state.expose_secret());
    let secrets = SignInSecrets {
        verifier: authorization.verifier,
        page: consumed.submission.page.clone().into(),
    };
    let new = PendingSignIn {
        consent: TokenHash::of(&consumed.submission.page),
        browser: browser.hash(),
        client_id,
        secrets: seal(server, &secrets, &state_hash)?,
        may_write,
    };
    server
        .store
        .write(move |connection| sign_ins::insert(connection, &state_hash, &new))
        .await?;
    let mut response = redirect(&authorization.url);
    add_cookie(server, &mut response, &authorization.state, &browser)?;
    Ok(response)
}

fn seal(
    server: &ServerState,
    secrets: &SignInSecrets,
    state: &TokenHash,
) -> Result<Vec<u8>, OauthError> {
    server
        .secret_key
        .seal_sign_in(secrets, state)
        .map_err(|error| {
            tracing::error!(%error, "the secrets of a sign-in could not be sealed");
            OauthError::server_error()
        })
}

/// Adds the cookie that binds the response of Datadog to this browser.
fn add_cookie(
    server: &ServerState,
    response: &mut Response,
    state: &SecretString,
    browser: &OpaqueToken,
) -> Result<(), OauthError> {
    let scope = CookieScope::SignIn;
    let cookie = set_cookie(&server.public_url, scope, state.expose_secret(), browser)
        .ok_or_else(OauthError::server_error)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(())
}

/// The message for a user when the sign-in at Datadog could not start.
fn describe_error(error: &LoginError) -> &'static str {
    match error {
        LoginError::RegistrationRejected { .. } => {
            "Datadog does not accept sign-ins from this server (see the server's log). Enter an access \
             token or a pair of keys instead."
        }
        _ => page::UPSTREAM_UNAVAILABLE,
    }
}
