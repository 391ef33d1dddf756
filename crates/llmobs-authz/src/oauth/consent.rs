//! The answer to a consent page.
//!
//! It counts only from the browser that was shown the page (its cookie), from the page itself (the
//! token in its form, good for one sending), and once. What was asked stands in the store, not in
//! the form: the form can say yes or no, bring a credential, and nothing else. A credential is tried
//! at Datadog before anything is granted, a few times per page and rarely per minute, so that nobody
//! tries keys here in numbers. Where the server offers it, the form may also send the browser to
//! Datadog (`broker`), under the same conditions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use url::Url;

use datadog_llmobs::{ClientError, Credential};

use super::answer::OauthError;
use super::authorize::{redirect, redirect_error, with_answer};
use super::browser::Tied;
use super::form::Form;
use super::limits::{Act, Peer};
use super::opaque::{CODE, Hashed, Opaque, PLAIN};
use super::seal::{Held, Place};
use super::store::consents::{self, Consent};
use super::store::grants::{self, Grant, NewGrant};
use super::{Inner, broker, browser, page, scope};

/// Credentials that may be tried on one page.
const MOST_ATTEMPTS: i64 = 5;

/// An answer that counts.
pub(super) struct Decision {
    /// The page's id as the browser has it.
    pub(super) page: String,
    consent: Consent,
    /// Hash of the token that its form brought.
    csrf: Hashed,
    target: Url,
    form: Form,
}

impl Decision {
    /// Whether the user ticked that changes may be made.
    pub(super) fn writes(&self) -> bool {
        self.form.get("write") == Some("yes")
    }
}

/// An answer whose token is spent: it counts as one attempt on its page.
pub(super) struct Spent {
    pub(super) decision: Decision,
    /// The token of the page's form if it is shown again.
    next: Opaque,
}

impl Spent {
    /// The page again, with what was wrong.
    pub(super) fn page(&self, inner: &Inner, words: &str) -> Response {
        page::consent(
            inner,
            &self.decision.consent,
            &self.decision.target,
            &self.decision.page,
            &self.next,
            Some(words),
        )
    }
}

pub(super) async fn decide(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let peer = Peer::of(request.extensions());
    if let Err(error) = inner.count(Act::Authorize, peer) {
        return page::wrong(&error);
    }
    match answer(&inner, peer, request).await {
        Ok(response) => response,
        Err(error) => page::wrong(&error),
    }
}

async fn answer(inner: &Inner, peer: Peer, request: Request) -> Result<Response, OauthError> {
    let headers = request.headers().clone();
    let decision = read(inner, &headers, request).await?;
    match decision.form.get("decision") {
        Some("deny") => deny(inner, &decision).await,
        Some("allow") => allow(inner, spend(inner, peer, decision).await?).await,
        Some("datadog") => broker::leave(inner, spend(inner, peer, decision).await?).await,
        _ => Err(OauthError::invalid_request(
            "decision must be allow, datadog or deny",
        )),
    }
}

/// Reads an answer and finds its page.
async fn read(
    inner: &Inner,
    headers: &HeaderMap,
    request: Request,
) -> Result<Decision, OauthError> {
    if !browser::is_same_origin(&inner.public, headers) {
        return Err(forbidden("this answer does not come from the consent page"));
    }
    let form = Form::of(request).await?;
    let page = form.need("page")?.to_owned();
    let csrf = Hashed::of(form.need("csrf")?);
    let cookie =
        browser::cookie(&inner.public, headers, Tied::Page, &page).map(|value| Hashed::of(&value));
    let (id, now) = (Hashed::of(&page), inner.clock.now_ms());
    let consent = inner
        .store
        .read(move |connection| consents::get(connection, &id, now))
        .await?
        .filter(|consent| cookie.is_some_and(|cookie| cookie.is(&consent.browser)))
        .filter(|consent| csrf.is(&consent.csrf))
        .ok_or_else(over)?;
    let target = Url::parse(&consent.redirect).map_err(|_| OauthError::server())?;
    Ok(Decision {
        page,
        consent,
        csrf,
        target,
        form,
    })
}

async fn deny(inner: &Inner, decision: &Decision) -> Result<Response, OauthError> {
    let consent = take(inner, &decision.page).await?;
    let denied = OauthError::new("access_denied", "the user denied the access");
    Ok(redirect_error(
        inner,
        decision.target.clone(),
        &denied,
        consent.state.as_deref(),
    ))
}

/// Spends the token of an answer before anything is done with it: a form sent twice does it once.
async fn spend(inner: &Inner, peer: Peer, decision: Decision) -> Result<Spent, OauthError> {
    inner.count(Act::Key, peer)?;
    let next = Opaque::new(PLAIN);
    let (id, sent, hashed) = (Hashed::of(&decision.page), decision.csrf, next.hashed());
    let counted = inner
        .store
        .write(move |c| consents::tried(c, &id, &sent, &hashed, MOST_ATTEMPTS))
        .await?;
    if counted {
        Ok(Spent { decision, next })
    } else {
        Err(over())
    }
}

async fn allow(inner: &Inner, spent: Spent) -> Result<Response, OauthError> {
    let credential = match credential(inner, &spent.decision.form).await {
        Ok(credential) => credential,
        Err(words) => {
            tracing::info!(
                client = spent.decision.consent.client,
                "a credential was not accepted"
            );
            return Ok(spent.page(inner, &words));
        }
    };
    let held = Held::Given(credential);
    let target = grant(inner, &spent.decision.page, &held, spent.decision.writes()).await?;
    Ok(redirect(&target))
}

/// The credential of a form, tried at the upstream. The error says on the page what was wrong.
async fn credential(inner: &Inner, form: &Form) -> Result<Credential, String> {
    let [token, api_key, app_key] =
        ["token", "api_key", "application_key"].map(|name| form.get(name));
    if token.is_some() && (api_key.is_some() || app_key.is_some()) {
        return Err("give either an access token or a pair of keys, not both".to_owned());
    }
    let credential =
        Credential::from_parts(api_key, app_key, token).map_err(|error| match error {
            datadog_llmobs::CredentialError::MissingApplicationKey => {
                "the application key is missing: reading takes an API key and an application key"
                    .to_owned()
            }
            datadog_llmobs::CredentialError::MissingApiKey => {
                "the API key is missing: reading takes an API key and an application key".to_owned()
            }
            datadog_llmobs::CredentialError::BadCharacters(_) => error.to_string(),
        })?;
    if credential.is_none() {
        return Err("give an access token, or an API key and an application key".to_owned());
    }
    let client = inner.hub.client(credential.clone(), "oauth consent");
    match client.check_access().await {
        Ok(()) => Ok(credential),
        Err(error) => Err(refusal(&error)),
    }
}

/// Why a credential was not accepted. The upstream's own words stay out of the page.
pub(super) fn refusal(error: &ClientError) -> String {
    match error.status() {
        Some(401 | 403) => {
            "Datadog did not accept this credential for LLM Observability: check that it is complete, \
             not revoked, of this site, and may read LLM Observability"
                .to_owned()
        }
        Some(404) => {
            "LLM Observability does not seem to be enabled for this organisation or site".to_owned()
        }
        Some(429) => "Datadog allows no more requests for now; wait a minute".to_owned(),
        _ => page::NO_ANSWER.to_owned(),
    }
}

/// Takes the page out: it is answered.
async fn take(inner: &Inner, page: &str) -> Result<Consent, OauthError> {
    let (id, now) = (Hashed::of(page), inner.clock.now_ms());
    inner
        .store
        .write(move |connection| consents::take(connection, &id, now))
        .await?
        .ok_or_else(over)
}

/// Ends a page with a grant. Where the browser takes the code for it to the client.
pub(super) async fn grant(
    inner: &Inner,
    page: &str,
    held: &Held,
    writes: bool,
) -> Result<Url, OauthError> {
    let consent = take(inner, page).await?;
    let target = Url::parse(&consent.redirect).map_err(|_| OauthError::server())?;
    let code = keep(inner, &consent, held, writes).await?;
    Ok(with_answer(
        inner,
        target,
        &[("code", code.expose())],
        consent.state.as_deref(),
    ))
}

/// Keeps a grant with what it holds, sealed, and gives the code for it.
async fn keep(
    inner: &Inner,
    consent: &Consent,
    held: &Held,
    writes: bool,
) -> Result<Opaque, OauthError> {
    let id = uuid::Uuid::new_v4().to_string();
    let place = Place {
        grant: &id,
        client: &consent.client,
        resource: &consent.resource,
    };
    let sealed = inner.key.seal(held, &place).map_err(|error| {
        tracing::error!(%error, "sign-in failed");
        OauthError::server()
    })?;
    let code = Opaque::new(CODE);
    let new = NewGrant {
        grant: Grant {
            id: id.clone(),
            client: consent.client.clone(),
            resource: consent.resource.clone(),
            scope: scope::granted(writes),
            credential: sealed,
        },
        is_login: matches!(held, Held::Login(_)),
        code: code.hashed(),
        redirect: consent.redirect.clone(),
        challenge: consent.challenge.clone(),
    };
    let now = inner.clock.now_ms();
    let kept = inner
        .store
        .write(move |connection| grants::add(connection, &new, now))
        .await?;
    if !kept {
        return Err(OauthError::full());
    }
    tracing::info!(
        grant = id,
        client = consent.client,
        credential = held.kind(),
        writes,
        "a user agreed"
    );
    Ok(code)
}

/// The page is not (any more) one that this browser may answer.
pub(super) fn over() -> OauthError {
    forbidden(
        "this page is over, was answered before, or was opened in another browser; start the sign-in again",
    )
}

fn forbidden(words: &str) -> OauthError {
    OauthError {
        status: StatusCode::FORBIDDEN,
        ..OauthError::invalid_request(words)
    }
}
