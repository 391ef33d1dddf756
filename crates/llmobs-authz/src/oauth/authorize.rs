//! The authorization endpoint: validates a request and shows the consent page.
//!
//! Until the redirect URI is known to belong to the client, errors are shown on a page of this server.
//! Later errors are sent to the redirect URI.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header;
use url::Url;

use crate::peer::PeerAddress;

use super::browser::{CONSENT_LIFETIME_SECONDS, CookieScope, set_cookie};
use super::documents::is_document_id;
use super::primitives::{Form, OauthError, OpaqueToken, is_s256_challenge};
use super::rate_limits::Action;
use super::redirection::redirect_with_error;
use super::state::ServerState;
use super::store::clients;
use super::store::consents::{self, Consent, NewConsent};
use super::{audience, page, redirect_uri, scope};

/// The maximum length of `state` in bytes.
const MAX_STATE_BYTES: usize = 2_048;

/// The client that sent the request.
struct RequestingClient {
    id: String,
    name: String,
    redirect_uris: Vec<String>,
    /// The host of its metadata document; `None` for a registered client.
    host: Option<String>,
}

/// The validated parameters of a request.
struct ValidatedParameters {
    challenge: String,
    resource: String,
}

/// Handles an authorization request.
pub(super) async fn authorize(
    State(server): State<Arc<ServerState>>,
    request: Request,
) -> Response {
    let peer = PeerAddress::from_extensions(request.extensions());
    if let Err(error) = server.check_rate_limit(Action::Authorize, peer) {
        return page::error(&error);
    }
    let query = request.uri().query().unwrap_or_default();
    match open_consent_page(&server, peer, query).await {
        Ok(response) => response,
        Err(error) => page::error(&error),
    }
}

/// The consent page, or a redirect with an error. The caller shows the error of this function on a page.
async fn open_consent_page(
    server: &ServerState,
    peer: PeerAddress,
    query: &str,
) -> Result<Response, OauthError> {
    let form = Form::parse(query.as_bytes())?;
    let client = find_client(server, peer, form.require("client_id")?).await?;
    let requested = form.require("redirect_uri")?;
    let redirect_uri = Url::parse(requested)
        .ok()
        .filter(|_| {
            let mut registered = client.redirect_uris.iter();
            registered.any(|registered| redirect_uri::matches(registered, requested))
        })
        .ok_or_else(|| {
            OauthError::invalid_request(
                "the program requested a redirect_uri that it did not register",
            )
        })?;
    let state = form.get("state");
    if state.is_some_and(|state| state.len() > MAX_STATE_BYTES) {
        return Err(OauthError::invalid_request(format!(
            "state is longer than {MAX_STATE_BYTES} bytes"
        )));
    }
    let parameters = match validate_parameters(server, &form) {
        Ok(parameters) => parameters,
        Err(error) => return Ok(redirect_with_error(server, redirect_uri, &error, state)),
    };
    let (id, browser, csrf) = (
        OpaqueToken::generate(),
        OpaqueToken::generate(),
        OpaqueToken::generate(),
    );
    let lifetime_ms = CONSENT_LIFETIME_SECONDS * 1_000;
    let new = NewConsent {
        id: id.hash(),
        consent: Consent {
            browser: browser.hash(),
            csrf: csrf.hash(),
            client: client.id,
            client_name: client.name,
            client_host: client.host,
            redirect: requested.to_owned(),
            state: state.map(ToOwned::to_owned),
            challenge: parameters.challenge,
            resource: parameters.resource,
            attempts: 0,
            until_ms: server.clock.now_ms().saturating_add(lifetime_ms),
        },
    };
    let consent = new.consent.clone();
    let is_stored = server
        .store
        .write(move |connection| consents::insert(connection, &new))
        .await?;
    if !is_stored {
        return Err(OauthError::capacity_reached());
    }
    let mut response = page::consent(server, &consent, &redirect_uri, id.expose(), &csrf, None);
    let scope = CookieScope::ConsentPage;
    if let Some(cookie) = set_cookie(&server.public_url, scope, id.expose(), &browser) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Finds a client by its id: a registration, or a metadata document.
async fn find_client(
    server: &ServerState,
    peer: PeerAddress,
    id: &str,
) -> Result<RequestingClient, OauthError> {
    if is_document_id(id) {
        return fetch_client(server, peer, id).await;
    }
    let client_id = id.to_owned();
    let client = server
        .store
        .read(move |connection| clients::get(connection, &client_id))
        .await?
        .ok_or_else(|| {
            OauthError::new(
                "invalid_client",
                "this program is not registered here (registrations without a sign-in expire after a \
                 day); remove the sign-in that the program has stored, and start again",
            )
        })?;
    Ok(RequestingClient {
        id: client.id,
        name: client.name,
        redirect_uris: client.redirects,
        host: None,
    })
}

/// The client that a metadata document describes.
async fn fetch_client(
    server: &ServerState,
    peer: PeerAddress,
    id: &str,
) -> Result<RequestingClient, OauthError> {
    let Some(documents) = &server.documents else {
        return Err(OauthError::new(
            "invalid_client",
            "this server does not support client metadata documents; the program must register itself",
        ));
    };
    let client = match documents.cached(id) {
        Some(client) => client,
        None => {
            server.check_rate_limit(Action::FetchDocument, peer)?;
            documents.fetch(id).await.map_err(|error| {
                tracing::info!(%error, "a client metadata document was refused");
                OauthError::new("invalid_client", error.to_string())
            })?
        }
    };
    Ok(RequestingClient {
        id: id.to_owned(),
        name: client.metadata.name,
        redirect_uris: client.metadata.redirects,
        host: Some(client.host),
    })
}

fn validate_parameters(
    server: &ServerState,
    form: &Form,
) -> Result<ValidatedParameters, OauthError> {
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
                "request objects are not supported; send the parameters in the query",
            ));
        }
    }
    // The default method is `plain`, which protects nothing.
    if form.get("code_challenge_method") != Some("S256") {
        return Err(OauthError::invalid_request(
            "code_challenge_method must be S256",
        ));
    }
    let challenge = form.require("code_challenge")?;
    if !is_s256_challenge(challenge) {
        return Err(OauthError::invalid_request(
            "code_challenge must be a SHA-256 hash in base64url",
        ));
    }
    scope::validate(form.get("scope"))?;
    Ok(ValidatedParameters {
        challenge: challenge.to_owned(),
        resource: audience::parse_resource(&server.public_url, form.get("resource"))?,
    })
}
