//! The endpoint of the consent form: deny, allow with a credential, or sign in at Datadog.
//!
//! The server verifies a credential at Datadog before it grants anything. The number of attempts per page
//! and per minute is limited, so that the form cannot be used to test many keys.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use datadog_llmobs::{Credential, CredentialError};

use crate::peer::PeerAddress;

use super::consent::{self, ConsumedConsent, Submission};
use super::primitives::{Form, OauthError};
use super::rate_limits::Action;
use super::redirection::{redirect, redirect_with_error};
use super::seal::StoredCredential;
use super::state::ServerState;
use super::{broker, page};

/// Handles a submitted consent form.
pub(super) async fn decide(State(server): State<Arc<ServerState>>, request: Request) -> Response {
    let peer = PeerAddress::from_extensions(request.extensions());
    if let Err(error) = server.check_rate_limit(Action::Authorize, peer) {
        return page::error(&error);
    }
    match handle_submission(&server, peer, request).await {
        Ok(response) => response,
        Err(error) => page::error(&error),
    }
}

async fn handle_submission(
    server: &ServerState,
    peer: PeerAddress,
    request: Request,
) -> Result<Response, OauthError> {
    let headers = request.headers().clone();
    let submission = Submission::read(server, &headers, request).await?;
    match submission.form.get("decision") {
        Some("deny") => deny(server, &submission).await,
        Some("allow") => allow(server, submission.consume(server, peer).await?).await,
        Some("datadog") => {
            broker::redirect_to_datadog(server, submission.consume(server, peer).await?).await
        }
        _ => Err(OauthError::invalid_request(
            "decision must be allow, datadog or deny",
        )),
    }
}

async fn deny(server: &ServerState, submission: &Submission) -> Result<Response, OauthError> {
    let consent = consent::close_page(server, &submission.page).await?;
    Ok(redirect_with_error(
        server,
        submission.redirect_uri.clone(),
        &OauthError::new("access_denied", "the user denied access"),
        consent.state.as_deref(),
    ))
}

async fn allow(server: &ServerState, consumed: ConsumedConsent) -> Result<Response, OauthError> {
    let submission = &consumed.submission;
    let credential = match verify_credential(server, &submission.form).await {
        Ok(credential) => StoredCredential::Entered(credential),
        Err(error) => {
            tracing::info!(
                client = submission.consent.client,
                "an entered credential was refused"
            );
            return Ok(consumed.show_again(server, &error));
        }
    };
    let may_write = submission.may_write();
    let url = consent::grant(server, &submission.page, &credential, may_write).await?;
    Ok(redirect(&url))
}

/// The credential in a form, verified at the upstream. The error is a message for the user.
async fn verify_credential(server: &ServerState, form: &Form) -> Result<Credential, String> {
    let [token, api_key, app_key] =
        ["token", "api_key", "application_key"].map(|name| form.get(name));
    if token.is_some() && (api_key.is_some() || app_key.is_some()) {
        return Err("Enter either an access token or a pair of keys, not both.".to_owned());
    }
    let credential =
        Credential::from_parts(api_key, app_key, token).map_err(|error| match error {
            CredentialError::MissingApplicationKey => {
                "Enter the application key too: reading requires an API key and an application key."
                    .to_owned()
            }
            CredentialError::MissingApiKey => {
                "Enter the API key too: reading requires an API key and an application key."
                    .to_owned()
            }
            CredentialError::BadCharacters(_) => error.to_string(),
        })?;
    if credential.is_none() {
        return Err("Enter an access token, or an API key and an application key.".to_owned());
    }
    let client = server.hub.client(credential.clone(), "oauth consent");
    match client.check_access().await {
        Ok(()) => Ok(credential),
        Err(error) => Err(consent::describe_refused_credential(&error).to_owned()),
    }
}
