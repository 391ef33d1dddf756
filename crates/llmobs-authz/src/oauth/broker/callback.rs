//! Back from Datadog: an answer, tokens for its code, and a grant.
//!
//! What the browser brings is hostile until its `state` is one that waits, and this is the browser
//! that was sent away. Then the sign-in is spent, whatever comes of it. Whatever goes wrong after that
//! is said on the consent page, which is shown again, so that the user can give a credential instead,
//! or deny.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;
use secrecy::ExposeSecret as _;

use crate::oauth::answer::OauthError;
use crate::oauth::browser::{Tied, cookie};
use crate::oauth::consent::{self, over};
use crate::oauth::form::MOST_BYTES;
use crate::oauth::limits::{Act, Peer};
use crate::oauth::opaque::{Hashed, Opaque, PLAIN};
use crate::oauth::seal::{Held, OfSignIn};
use crate::oauth::store::consents;
use crate::oauth::store::sign_ins::{self, SignIn};
use crate::oauth::{CALLBACK, Inner, page};
use datadog_llmobs::login::{AuthorizationResponse, Login, LoginError};
use datadog_llmobs::{ClientError, Credential};

use super::DatadogSignIn;

/// Answers `GET /oauth/callback`.
pub(in crate::oauth) async fn back(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let peer = Peer::of(request.extensions());
    if let Err(error) = inner.count(Act::Authorize, peer) {
        return page::wrong(&error);
    }
    let (parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let returned = match recognise(&inner, query, &parts.headers).await {
        Ok(returned) => returned,
        Err(error) => return page::wrong(&error),
    };
    // A task of its own: a browser that goes away must not leave tokens that nobody keeps or revokes.
    let work = tokio::spawn(async move { finish(&inner, returned).await });
    match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => page::wrong(&error),
        Err(_) => page::wrong(&OauthError::server()),
    }
}

/// An answer to a sign-in that waited, from the browser that was sent away.
struct Returned {
    answer: AuthorizationResponse,
    sign_in: SignIn,
    secrets: OfSignIn,
}

/// Finds the sign-in that an answer belongs to, and spends it.
async fn recognise(
    inner: &Inner,
    query: &str,
    headers: &HeaderMap,
) -> Result<Returned, OauthError> {
    if query.len() > MOST_BYTES {
        return Err(OauthError::invalid_request("the parameters are too long"));
    }
    let answer = AuthorizationResponse::parse(query)
        .ok_or_else(|| OauthError::invalid_request("a parameter was given twice"))?;
    let text = answer.state().ok_or_else(over)?;
    let browser = cookie(&inner.public, headers, Tied::SignIn, text)
        .map(|value| Hashed::of(&value))
        .ok_or_else(over)?;
    let (state, now) = (Hashed::of(text), inner.clock.now_ms());
    let sign_in = inner
        .store
        .write(move |connection| {
            // Another browser does not even spend it.
            let waits = sign_ins::get(connection, &state, now)?;
            match waits.filter(|waits| browser.is(&waits.browser)) {
                Some(_) => sign_ins::take(connection, &state),
                None => Ok(None),
            }
        })
        .await?
        .ok_or_else(over)?;
    let secrets = inner
        .key
        .open_sign_in(&sign_in.secrets, &state)
        .map_err(|error| {
            tracing::error!(%error, "sign-in failed");
            OauthError::server()
        })?;
    Ok(Returned {
        answer,
        sign_in,
        secrets,
    })
}

/// Sends the browser on to the client, or shows the consent page again.
async fn finish(inner: &Arc<Inner>, returned: Returned) -> Result<Response, OauthError> {
    let profile = match login(inner, &returned).await? {
        Ok(profile) => profile,
        Err(words) => return again(inner, &returned, &words).await,
    };
    let ticked = returned.sign_in.writes;
    let writes = ticked && DatadogSignIn::may_write(&profile.scope);
    if ticked && !writes {
        tracing::info!("Datadog did not grant changes, so they are not granted here");
    }
    let unused = profile.clone();
    let held = Held::Login(Box::new(profile));
    let id = returned.secrets.page.expose_secret();
    match consent::grant(inner, id, &held, writes).await {
        Ok(target) => Ok(page::onward(&target)),
        Err(error) => {
            inner.revoke(&unused).await;
            Err(error)
        }
    }
}

/// The login that an answer gives, tried. The inner error says on the page what was wrong.
async fn login(
    inner: &Arc<Inner>,
    returned: &Returned,
) -> Result<Result<Login, String>, OauthError> {
    let Some(at) = &inner.sign_in else {
        return Err(OauthError::server());
    };
    let client_id = &returned.sign_in.client_id;
    let registration = at.registered_as(client_id.clone(), inner.public.at(CALLBACK));
    let scopes = DatadogSignIn::scopes(returned.sign_in.writes);
    let accepted = match returned.answer.accept(&at.place, None) {
        // The upstream is one site, and tokens of another are not good there.
        Ok(accepted) if accepted.target != at.place => {
            return Ok(Err(format!(
                "your account is at {}, and this server reads {}; sign in to the server of your site",
                accepted.target.name(),
                at.place.name()
            )));
        }
        accepted => accepted,
    };
    let transport = inner.hub.transport();
    let redeemed = match accepted {
        Ok(accepted) => {
            let verifier = &returned.secrets.verifier;
            registration
                .redeem(&*transport, accepted, verifier, &scopes)
                .await
        }
        Err(error) => Err(error),
    };
    let outcome = match redeemed {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%error, "a sign-in at Datadog failed");
            if let LoginError::ClientUnknown { .. } = error {
                inner.forget_registration(client_id).await?;
            }
            return Ok(Err(refusal(&error).to_owned()));
        }
    };
    for note in &outcome.notes {
        tracing::info!("a sign-in at Datadog: {note}");
    }
    let profile = inner.dated(outcome.profile);
    let credential = Credential::Bearer(profile.access.clone());
    let client = inner.hub.client(credential, "oauth consent");
    match client.check_access().await {
        Ok(()) => Ok(Ok(profile)),
        Err(error) => {
            tracing::warn!(
                status = error.status(),
                "a login at Datadog was not accepted"
            );
            inner.revoke(&profile).await;
            Ok(Err(not_accepted(&error)))
        }
    }
}

/// Shows the consent page again, if it still waits.
async fn again(inner: &Inner, returned: &Returned, words: &str) -> Result<Response, OauthError> {
    let page = returned.secrets.page.expose_secret();
    let csrf = Opaque::new(PLAIN);
    let (id, next, now) = (Hashed::of(page), csrf.hashed(), inner.clock.now_ms());
    let consent = inner
        .store
        .write(move |connection| {
            Ok(if consents::shown_again(connection, &id, &next, now)? {
                consents::get(connection, &id, now)?
            } else {
                None
            })
        })
        .await?
        .ok_or_else(over)?;
    page::asked_again(inner, &consent, page, &csrf, words)
}

/// What the page says of an answer that was not right.
fn refusal(error: &LoginError) -> &'static str {
    match error {
        LoginError::Denied(_) => {
            "the access was denied at Datadog: allow it there, give an access token or a pair of keys, or \
             deny here"
        }
        LoginError::ScopeRefused(_) => {
            "Datadog does not allow what this server asks for: the organisation may not have LLM \
             Observability, or not let this program ask for it; give an access token or a pair of keys"
        }
        LoginError::ForeignDomain(_) | LoginError::WrongAuthority { .. } => {
            "the answer names a place that is not Datadog's, so it was not used; deny, and report it if \
             it happens again"
        }
        LoginError::CodeRefused { .. } | LoginError::ClientUnknown { .. } => {
            "Datadog did not accept its own answer, perhaps because it took too long; sign in there again"
        }
        LoginError::Refused { .. } | LoginError::NoCode => {
            "the sign-in at Datadog ended with an error (this server's log says which); try again, or \
             give an access token or a pair of keys"
        }
        _ => page::NO_ANSWER,
    }
}

/// What the page says of a login that does not open LLM Observability.
fn not_accepted(error: &ClientError) -> String {
    match error.status() {
        Some(401 | 403) => {
            "you are signed in at Datadog, but may not read LLM Observability there with this sign-in; \
             give an access token or a pair of keys that may"
                .to_owned()
        }
        _ => consent::refusal(error),
    }
}
