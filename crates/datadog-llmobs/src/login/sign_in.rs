//! One sign-in of a person at a terminal, from the address for the browser to the tokens.

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::super::transport::Transport;
use super::authorization::{AuthorizationRequest, ClientRegistration, CompletedSignIn};
use super::error::LoginError;
use super::response::AuthorizationResponse;
use super::target::LoginTarget;

/// What somebody wants to sign in to.
#[derive(Debug, Clone)]
pub struct SignInRequest {
    /// Where.
    pub target: LoginTarget,
    /// The scopes to ask for; none lets the other side decide.
    pub scopes: Vec<String>,
    /// The name to register under.
    pub client_name: String,
    /// The id of the organisation that must be signed in to.
    pub org: Option<String>,
}

/// A sign-in that waits for its answer.
pub struct PendingSignIn {
    transport: Arc<dyn Transport>,
    request: SignInRequest,
    registration: ClientRegistration,
    state: SecretString,
    verifier: SecretString,
    url: Url,
}

impl PendingSignIn {
    /// Registers this program and makes the address that the browser has to open. `redirect` is
    /// where its answer comes back, such as `http://127.0.0.1:8000/oauth/callback`.
    ///
    /// # Errors
    /// A refused registration, a scope that is none, no answer.
    pub async fn start(
        transport: Arc<dyn Transport>,
        request: SignInRequest,
        redirect: &str,
    ) -> Result<Self, LoginError> {
        AuthorizationRequest::check(&request.scopes)?;
        let registration =
            ClientRegistration::new(&*transport, &request.target, &request.client_name, redirect)
                .await?;
        let asked =
            AuthorizationRequest::request(&registration, &request.scopes, request.org.as_deref())?;
        let AuthorizationRequest {
            url,
            state,
            verifier,
        } = asked;
        Ok(Self {
            transport,
            request,
            registration,
            state,
            verifier,
            url,
        })
    }

    /// What the browser has to open.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the query of an answer belongs to this sign-in.
    pub(super) fn recognises(&self, query: &str) -> bool {
        AuthorizationResponse::parse(query).is_some_and(|answer| answer.has_state(&self.state))
    }

    /// Takes the answer, as the query of the address that the browser came back to (or that whole
    /// address), to its end: tokens.
    ///
    /// # Errors
    /// Anything in [`LoginError`] that an answer can cause. The code is sent nowhere unless all
    /// else is right.
    pub async fn finish(&self, answer: &str) -> Result<CompletedSignIn, LoginError> {
        let query = answer.split_once('?').map_or(answer, |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default().trim();
        let answer = AuthorizationResponse::parse(query).ok_or(LoginError::NoCode)?;
        if !answer.has_state(&self.state) {
            return Err(LoginError::WrongState);
        }
        let accepted = answer.accept(&self.registration.target, self.request.org.as_deref())?;
        self.registration
            .redeem(
                &*self.transport,
                accepted,
                &self.verifier,
                &self.request.scopes,
            )
            .await
    }
}
