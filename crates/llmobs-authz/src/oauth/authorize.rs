//! The authorization request: checked, then turned into a consent page.
//!
//! The order matters. Until client and redirect address are known to belong together, whatever is
//! wrong is said on a page of ours; only then may the browser be sent to that address with an error.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use url::Url;

use super::answer::OauthError;
use super::browser::{PATIENCE_SECONDS, Tied, set_cookie};
use super::documents::is_document_id;
use super::form::Form;
use super::limits::{Act, Peer};
use super::opaque::{Opaque, PLAIN, is_challenge};
use super::store::clients;
use super::store::consents::{self, Consent, NewConsent};
use super::{Inner, audience, page, redirect as address, scope};

/// The longest `state` in bytes.
const LONGEST_STATE: usize = 2_048;

/// Who asks.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) redirects: Vec<String>,
    /// The host of its metadata document; `None` for one that registered itself.
    pub(super) host: Option<String>,
}

/// What a good request asks.
struct Asked {
    challenge: String,
    resource: String,
}

pub(super) async fn ask(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let peer = Peer::of(request.extensions());
    if let Err(error) = inner.count(Act::Authorize, peer) {
        return page::wrong(&error);
    }
    let query = request.uri().query().unwrap_or_default();
    match prepare(&inner, peer, query).await {
        Ok(shown) => shown,
        Err(error) => page::wrong(&error),
    }
}

/// The page, or the redirect with an error. The error of this function is said on a page.
async fn prepare(inner: &Inner, peer: Peer, query: &str) -> Result<Response, OauthError> {
    let form = Form::read(query.as_bytes())?;
    let client = find_client(inner, peer, form.need("client_id")?).await?;
    let address = form.need("redirect_uri")?;
    let registered = |known: &String| address::matches(known, address);
    let target = Url::parse(address)
        .ok()
        .filter(|_| client.redirects.iter().any(registered))
        .ok_or_else(|| {
            OauthError::invalid_request(
                "the program asks for an answer to an address that it did not register",
            )
        })?;
    let state = form.get("state");
    if state.is_some_and(|state| state.len() > LONGEST_STATE) {
        return Err(OauthError::invalid_request("state is too long"));
    }
    let asked = match read(inner, &form) {
        Ok(asked) => asked,
        Err(error) => return Ok(redirect_error(inner, target, &error, state)),
    };
    let (id, browser, csrf) = (Opaque::new(PLAIN), Opaque::new(PLAIN), Opaque::new(PLAIN));
    let new = NewConsent {
        id: id.hashed(),
        consent: Consent {
            browser: browser.hashed(),
            csrf: csrf.hashed(),
            client: client.id,
            client_name: client.name,
            client_host: client.host,
            redirect: address.to_owned(),
            state: state.map(ToOwned::to_owned),
            challenge: asked.challenge,
            resource: asked.resource,
            attempts: 0,
            until_ms: inner
                .clock
                .now_ms()
                .saturating_add(PATIENCE_SECONDS * 1_000),
        },
    };
    let consent = new.consent.clone();
    if !inner
        .store
        .write(move |connection| consents::add(connection, &new))
        .await?
    {
        return Err(OauthError::full());
    }
    let mut response = page::consent(inner, &consent, &target, id.expose(), &csrf, None);
    if let Some(cookie) = set_cookie(&inner.public, Tied::Page, id.expose(), &browser) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn find_client(inner: &Inner, peer: Peer, id: &str) -> Result<Client, OauthError> {
    if is_document_id(id) {
        let Some(documents) = &inner.documents else {
            return Err(OauthError::new(
                "invalid_client",
                "this server does not read client metadata documents; the program must register itself",
            ));
        };
        let described = match documents.known(id) {
            Some(described) => described,
            None => {
                inner.count(Act::Document, peer)?;
                documents.fetch(id).await.map_err(|error| {
                    tracing::info!(%error, "a client's metadata document was not used");
                    OauthError::new("invalid_client", error.to_string())
                })?
            }
        };
        return Ok(Client {
            id: id.to_owned(),
            name: described.metadata.name,
            redirects: described.metadata.redirects,
            host: Some(described.host),
        });
    }
    let wanted = id.to_owned();
    let found = inner
        .store
        .read(move |connection| clients::get(connection, &wanted))
        .await?;
    let found = found.ok_or_else(|| {
        OauthError::new(
            "invalid_client",
            "this program is not registered here (registrations without a sign-in end after a day); \
             remove its stored sign-in and start again",
        )
    })?;
    Ok(Client {
        id: found.id,
        name: found.name,
        redirects: found.redirects,
        host: None,
    })
}

fn read(inner: &Inner, form: &Form) -> Result<Asked, OauthError> {
    if form.get("response_type") != Some("code") {
        return Err(OauthError::new(
            "unsupported_response_type",
            "response_type must be code",
        ));
    }
    if form
        .get("response_mode")
        .is_some_and(|mode| mode != "query")
    {
        return Err(OauthError::invalid_request("response_mode must be query"));
    }
    for name in ["request", "request_uri"] {
        if form.get(name).is_some() {
            return Err(OauthError::new(
                "request_not_supported",
                "parameters must stand in the query itself",
            ));
        }
    }
    // Without a method it would be `plain`, which protects nothing.
    if form.get("code_challenge_method") != Some("S256") {
        return Err(OauthError::invalid_request(
            "code_challenge_method must be S256",
        ));
    }
    let challenge = form.need("code_challenge")?;
    if !is_challenge(challenge) {
        return Err(OauthError::invalid_request(
            "code_challenge must be a SHA-256 hash in base64url",
        ));
    }
    scope::check(form.get("scope"))?;
    Ok(Asked {
        challenge: challenge.to_owned(),
        resource: audience::of_request(&inner.public, form.get("resource"))?,
    })
}

/// Sends the browser back to the client with an error.
pub(super) fn redirect_error(
    inner: &Inner,
    target: Url,
    error: &OauthError,
    state: Option<&str>,
) -> Response {
    let values = [("error", error.code), ("error_description", &error.words)];
    redirect(&with_answer(inner, target, &values, state))
}

/// Where the browser takes an answer to the client. The values are percent-encoded, so that none of
/// them can become another parameter, another header or another host.
pub(super) fn with_answer(
    inner: &Inner,
    mut target: Url,
    values: &[(&str, &str)],
    state: Option<&str>,
) -> Url {
    {
        let mut query = target.query_pairs_mut();
        query.extend_pairs(values);
        if let Some(state) = state {
            query.append_pair("state", state);
        }
        // RFC 9207: the client compares it with the issuer that it asked.
        query.append_pair("iss", inner.public.origin());
    }
    target
}

/// Sends the browser there.
pub(super) fn redirect(target: &Url) -> Response {
    let Ok(mut location) = HeaderValue::from_str(target.as_str()) else {
        return page::wrong(&OauthError::server());
    };
    location.set_sensitive(true);
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
