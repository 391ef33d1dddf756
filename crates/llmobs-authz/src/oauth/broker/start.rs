//! From the consent page to Datadog.

use http::header;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};

use crate::oauth::answer::OauthError;
use crate::oauth::browser::{Tied, set_cookie};
use crate::oauth::consent::Spent;
use crate::oauth::opaque::{Hashed, Opaque, PLAIN};
use crate::oauth::seal::OfSignIn;
use crate::oauth::store::sign_ins::{self, SignIn};
use crate::oauth::{Inner, page};
use datadog_llmobs::login::{AuthorizationRequest, LoginError};

use super::DatadogSignIn;

/// Sends the browser of a consent page to Datadog. The page's form was sent by that browser, and its
/// token is spent.
pub(in crate::oauth) async fn leave(inner: &Inner, spent: Spent) -> Result<Response, OauthError> {
    let Some(sign_in) = &inner.sign_in else {
        return Err(OauthError::invalid_request(
            "this server does not let users sign in at Datadog",
        ));
    };
    let writes = spent.decision.writes();
    let asked = match inner.registration(sign_in).await? {
        Ok(registration) => {
            let scopes = DatadogSignIn::scopes(writes);
            AuthorizationRequest::request(&registration, &scopes, None)
                .map(|asked| (asked, registration.client_id))
        }
        Err(refused) => Err(refused),
    };
    let (asked, client_id) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(
                %error,
                redirect = inner.public.at(super::super::CALLBACK),
                "no sign-in at Datadog: if it does not register this redirect address, bring a client \
                 id that it knows with it (--datadog-client-id)"
            );
            return Ok(spent.page(inner, refusal(&error)));
        }
    };
    let AuthorizationRequest {
        url,
        state,
        verifier,
    } = asked;
    let browser = Opaque::new(PLAIN);
    keep(inner, &spent, &state, verifier, client_id, &browser, writes).await?;
    away(inner, &url, &state, &browser)
}

/// Keeps what is needed when the browser comes back.
async fn keep(
    inner: &Inner,
    spent: &Spent,
    state: &SecretString,
    verifier: SecretString,
    client_id: String,
    browser: &Opaque,
    writes: bool,
) -> Result<(), OauthError> {
    let state = Hashed::of(state.expose_secret());
    let secrets = OfSignIn {
        verifier,
        page: spent.decision.page.clone().into(),
    };
    let secrets = inner.key.seal_sign_in(&secrets, &state).map_err(|error| {
        tracing::error!(%error, "sign-in failed");
        OauthError::server()
    })?;
    let new = SignIn {
        consent: Hashed::of(&spent.decision.page),
        browser: browser.hashed(),
        client_id,
        secrets,
        writes,
    };
    inner
        .store
        .write(move |connection| sign_ins::add(connection, &state, &new))
        .await?;
    Ok(())
}

/// The redirect, with the cookie that ties the way back to this browser.
fn away(
    inner: &Inner,
    url: &Url,
    state: &SecretString,
    browser: &Opaque,
) -> Result<Response, OauthError> {
    let cookie = set_cookie(&inner.public, Tied::SignIn, state.expose_secret(), browser);
    let (Ok(mut location), Some(cookie)) = (HeaderValue::from_str(url.as_str()), cookie) else {
        return Err(OauthError::server());
    };
    location.set_sensitive(true);
    let headers = [
        (header::LOCATION, location),
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// What the page says when Datadog did not even let us ask.
fn refusal(error: &LoginError) -> &'static str {
    match error {
        LoginError::RegistrationRefused { .. } => {
            "Datadog does not let this server sign users in (its log says why); give an access token or \
             a pair of keys instead"
        }
        _ => page::NO_ANSWER,
    }
}
