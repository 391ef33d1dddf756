//! Submissions of a consent page, and the grants that follow from them.
//!
//! A submission counts only from the browser that was shown the page (its cookie), from the page itself
//! (the CSRF token in its form, valid once), and once. The parameters of the authorization request are in
//! the store, not in the form. The form can only allow or deny, enter a credential, and start a sign-in at
//! Datadog.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use url::Url;

use datadog_llmobs::ClientError;

use crate::peer::PeerAddress;

use super::browser::{self, CookieScope};
use super::primitives::{Form, OauthError, OpaqueToken, TokenHash};
use super::rate_limits::Action;
use super::redirection::response_url;
use super::seal::{SealContext, StoredCredential};
use super::state::ServerState;
use super::store::consents::{self, Consent};
use super::store::grants::{self, Grant, NewGrant};
use super::wire;
use super::{page, scope};

/// The maximum number of credentials that a user may enter on one page.
const MAX_ATTEMPTS: i64 = 5;

/// A valid submission of a consent page.
pub(super) struct Submission {
    /// The id of the page, as the browser has it.
    pub(super) page: String,
    /// The authorization request that the page belongs to.
    pub(super) consent: Consent,
    /// Hash of the CSRF token in the form.
    csrf: TokenHash,
    /// The redirect URI of the client.
    pub(super) redirect_uri: Url,
    /// The submitted form.
    pub(super) form: Form,
}

impl Submission {
    /// Reads a submission and finds its page.
    pub(super) async fn read(
        server: &ServerState,
        headers: &HeaderMap,
        request: Request,
    ) -> Result<Self, OauthError> {
        if !browser::is_same_origin(&server.public_url, headers) {
            return Err(forbidden("This form was not sent from the consent page."));
        }
        let form = Form::from_request(request).await?;
        let page = form.require("page")?.to_owned();
        let csrf = TokenHash::of(form.require("csrf")?);
        let cookie =
            browser::read_cookie(&server.public_url, headers, CookieScope::ConsentPage, &page)
                .map(|value| TokenHash::of(&value));
        let (id, now) = (TokenHash::of(&page), server.clock.now_ms());
        let consent = server
            .store
            .read(move |connection| consents::get(connection, &id, now))
            .await?
            .filter(|consent| cookie.is_some_and(|cookie| cookie.matches(&consent.browser)))
            .filter(|consent| csrf.matches(&consent.csrf))
            .ok_or_else(expired_page)?;
        let redirect_uri = Url::parse(&consent.redirect).map_err(|_| OauthError::server_error())?;
        Ok(Self {
            page,
            consent,
            csrf,
            redirect_uri,
            form,
        })
    }

    /// Consumes the CSRF token and counts an attempt, before the server acts on the submission: a form
    /// that is sent twice has an effect once.
    pub(super) async fn consume(
        self,
        server: &ServerState,
        peer: PeerAddress,
    ) -> Result<ConsumedConsent, OauthError> {
        server.check_rate_limit(Action::VerifyCredential, peer)?;
        let next_csrf = OpaqueToken::generate();
        let (id, sent, next) = (TokenHash::of(&self.page), self.csrf, next_csrf.hash());
        let is_counted = server
            .store
            .write(move |c| consents::count_attempt(c, &id, &sent, &next, MAX_ATTEMPTS))
            .await?;
        if is_counted {
            Ok(ConsumedConsent {
                submission: self,
                next_csrf,
            })
        } else {
            Err(expired_page())
        }
    }

    /// Whether the user allowed changes.
    pub(super) fn may_write(&self) -> bool {
        self.form.get("write") == Some("yes")
    }
}

/// A submission whose CSRF token is consumed. It counts as one attempt on its page.
pub(super) struct ConsumedConsent {
    pub(super) submission: Submission,
    /// The CSRF token of the page if it is shown again.
    next_csrf: OpaqueToken,
}

impl ConsumedConsent {
    /// Shows the page again, with an error.
    pub(super) fn show_again(&self, server: &ServerState, error: &str) -> Response {
        page::consent(
            server,
            &self.submission.consent,
            &self.submission.redirect_uri,
            &self.submission.page,
            &self.next_csrf,
            Some(error),
        )
    }
}

/// Removes a page from the store: it cannot be submitted again.
pub(super) async fn close_page(server: &ServerState, page: &str) -> Result<Consent, OauthError> {
    let (id, now) = (TokenHash::of(page), server.clock.now_ms());
    server
        .store
        .write(move |connection| consents::remove(connection, &id, now))
        .await?
        .ok_or_else(expired_page)
}

/// Closes a page and stores a grant. Returns the URL that takes the code to the client.
pub(super) async fn grant(
    server: &ServerState,
    page: &str,
    credential: &StoredCredential,
    may_write: bool,
) -> Result<Url, OauthError> {
    let consent = close_page(server, page).await?;
    let redirect_uri = Url::parse(&consent.redirect).map_err(|_| OauthError::server_error())?;
    let code = store_grant(server, &consent, credential, may_write).await?;
    Ok(response_url(
        server,
        redirect_uri,
        &[("code", code.expose())],
        consent.state.as_deref(),
    ))
}

/// Stores a grant with its sealed credential, and returns its code.
async fn store_grant(
    server: &ServerState,
    consent: &Consent,
    credential: &StoredCredential,
    may_write: bool,
) -> Result<OpaqueToken, OauthError> {
    let id = uuid::Uuid::new_v4().to_string();
    let context = SealContext {
        grant: &id,
        client: &consent.client,
        resource: &consent.resource,
    };
    let sealed = server
        .secret_key
        .seal(credential, &context)
        .map_err(|error| {
            tracing::error!(%error, "a credential could not be sealed");
            OauthError::server_error()
        })?;
    let code = OpaqueToken::with_prefix(wire::CODE_PREFIX);
    let new = NewGrant {
        grant: Grant {
            id: id.clone(),
            client: consent.client.clone(),
            resource: consent.resource.clone(),
            scope: scope::granted_scope(may_write),
            credential: sealed,
        },
        is_login: matches!(credential, StoredCredential::Login(_)),
        code: code.hash(),
        redirect: consent.redirect.clone(),
        challenge: consent.challenge.clone(),
    };
    let now = server.clock.now_ms();
    let is_stored = server
        .store
        .write(move |connection| grants::insert(connection, &new, now))
        .await?;
    if !is_stored {
        return Err(OauthError::capacity_reached());
    }
    tracing::info!(
        grant = id,
        client = consent.client,
        credential = credential.kind(),
        may_write,
        "a user granted access"
    );
    Ok(code)
}

/// The message for a user whose credential the upstream refused. It contains no text of the upstream.
pub(super) fn describe_refused_credential(error: &ClientError) -> &'static str {
    match error.status() {
        Some(401 | 403) => {
            "Datadog did not accept this credential for LLM Observability. Check that it is complete, is \
             not revoked, belongs to this site, and may read LLM Observability."
        }
        Some(404) => "LLM Observability does not seem to be enabled for this organisation or site.",
        Some(429) => "Datadog accepts no more requests at the moment. Wait a minute and try again.",
        _ => page::UPSTREAM_UNAVAILABLE,
    }
}

/// The error for a page that this browser cannot submit, or not any more.
pub(super) fn expired_page() -> OauthError {
    forbidden(
        "This page has expired, was already submitted, or was opened in another browser. Start the \
         sign-in again.",
    )
}

fn forbidden(description: &str) -> OauthError {
    OauthError {
        status: StatusCode::FORBIDDEN,
        ..OauthError::invalid_request(description)
    }
}
