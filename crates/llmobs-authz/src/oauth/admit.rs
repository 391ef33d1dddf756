//! The gate of mode `oauth`: a bearer of ours, for this address, and nothing else.
//!
//! A token of Datadog's is no bearer here, whoever sends it: it was not made for this server. A good
//! token always passes; those that are not good are counted, so that trying them out ends soon.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{Admitted, Gate, HeaderCredentials, PublicUrl, SignedIn, refusal};
use datadog_llmobs::{Credential, RenewCredential};

use super::broker::Renewing;
use super::limits::{Act, Peer};
use super::opaque::{ACCESS, Hashed};
use super::seal::{Held, Place};
use super::store::grants;
use super::{AuthorizationServer, Inner, metadata, scope};

/// What a request showed.
enum Shown {
    /// Nothing.
    Nothing,
    /// A bearer that could be ours.
    Token(Hashed),
    /// Something that is no token of ours.
    Foreign,
    /// Credentials of two kinds.
    Both,
}

impl Gate for AuthorizationServer {
    fn admit<'a>(
        &'a self,
        path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<Admitted, Box<Response>>> {
        // Taken out before anything can wait, fail or log.
        let shown = take(headers);
        async move {
            let admitted = self.inner.admit(path, Peer::at(peer), shown).await;
            admitted.map(Admitted::As).map_err(Box::new)
        }
        .boxed()
    }

    fn routes(&self) -> Router {
        self.router()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        Some(&self.inner.public)
    }
}

impl Inner {
    async fn admit(
        self: &Arc<Self>,
        path: &str,
        peer: Peer,
        shown: Shown,
    ) -> Result<SignedIn, Response> {
        let token = match shown {
            Shown::Nothing => return Err(self.unauthorized(path, None)),
            Shown::Both => {
                return Err(refusal(
                    StatusCode::BAD_REQUEST,
                    "the request brings a bearer token and Datadog keys; whose call is it?",
                    "remove the headers DD_API_KEY and DD_APPLICATION_KEY from the client's settings: \
                     this server has users sign in",
                ));
            }
            Shown::Foreign => return Err(self.bad_token(path, peer)),
            Shown::Token(token) => token,
        };
        let now = self.clock.now_ms();
        let found = self
            .store
            .read(move |connection| grants::of_access_token(connection, &token, now))
            .await
            .map_err(|error| {
                tracing::error!(%error, "a caller could not be checked");
                refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "sign-ins cannot be checked at the moment",
                    "try again in a minute; the server's log says why",
                )
            })?;
        let Some(grant) = found.filter(|grant| grant.resource == self.public.at(path)) else {
            return Err(self.bad_token(path, peer));
        };
        let held = self.key.open(&grant.credential, &Place::of(&grant));
        let held = held.map_err(|error| {
            tracing::error!(grant = grant.id, %error, "a caller was refused");
            self.bad_token(path, peer)
        })?;
        let (credential, renewal): (Credential, Arc<dyn RenewCredential>) = match held {
            Held::Given(credential) => (credential, Arc::new(Given)),
            Held::Login(profile) if self.is_upstream(&profile.target) => {
                let renewing = Renewing::new(self, &grant);
                (renewing.ready(&profile).await, Arc::new(renewing))
            }
            Held::Login(_) => {
                // The server was started for another site: this login is not for its eyes.
                tracing::warn!(grant = grant.id, "a login of another upstream was refused");
                return Err(self.bad_token(path, peer));
            }
        };
        Ok(SignedIn {
            credential,
            renewal: Some(renewal),
            subject: format!("sign-in {}", grant.id),
            may_write: scope::writes(&grant.scope),
        })
    }

    /// 401 for a token that is not good, or 429 when there were too many of these.
    fn bad_token(&self, path: &str, peer: Peer) -> Response {
        if let Err(seconds) = self.limits.count(Act::BadBearer, peer) {
            tracing::warn!("too many bad bearer tokens");
            let mut response = refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests with tokens that are not good",
                "wait, then sign in again in the client",
            );
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
            return response;
        }
        let words = "the token is unknown, over, or for another address";
        self.unauthorized(path, Some(("invalid_token", words)))
    }

    fn unauthorized(&self, path: &str, error: Option<(&str, &str)>) -> Response {
        let mut response = refusal(
            StatusCode::UNAUTHORIZED,
            "unauthorized: sign in to this server first",
            "let the client sign in, for example `codex mcp login NAME`, or /mcp in Claude Code",
        );
        let challenge = metadata::challenge(self, path, error);
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A credential that a user gave. There is no other one, but a mend: the user gives one again. The
/// grant stays, because Datadog also answers 401 where an endpoint does not take a kind of token.
struct Given;

impl RenewCredential for Given {
    fn renew<'a>(
        &'a self,
        _refused: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        let words = "this is the credential that was given at sign-in: if it was revoked or is over, \
                     sign in to this server again";
        std::future::ready(Err(words.to_owned())).boxed()
    }
}

/// Takes every credential out of the headers.
fn take(headers: &mut HeaderMap) -> Shown {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = match (sent.next(), sent.next()) {
        (None, _) => Shown::Nothing,
        (Some(value), None) => bearer(value),
        (Some(_), Some(_)) => Shown::Foreign,
    };
    headers.remove(header::AUTHORIZATION);
    let keys = !matches!(HeaderCredentials::take(headers), HeaderCredentials::Absent);
    match bearer {
        Shown::Token(_) | Shown::Foreign if keys => Shown::Both,
        bearer => bearer,
    }
}

fn bearer(value: &HeaderValue) -> Shown {
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| token.starts_with(ACCESS));
    token.map_or(Shown::Foreign, |token| Shown::Token(Hashed::of(token)))
}
