//! One sign-in from a terminal, from the URL for the browser to the tokens.

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::super::transport::Transport;
use super::authorization::{AuthorizationRequest, ClientRegistration, CompletedSignIn};
use super::error::LoginError;
use super::response::AuthorizationResponse;
use super::target::LoginTarget;

/// The arguments of a sign-in.
#[derive(Debug, Clone)]
pub struct SignInRequest {
    /// Where to sign in.
    pub target: LoginTarget,
    /// The scopes to request; if empty, the server decides.
    pub scopes: Vec<String>,
    /// The client name to register.
    pub client_name: String,
    /// The id of the required organisation.
    pub org: Option<String>,
}

/// A sign-in that waits for the response of the browser.
pub struct PendingSignIn {
    transport: Arc<dyn Transport>,
    request: SignInRequest,
    registration: ClientRegistration,
    state: SecretString,
    verifier: SecretString,
    url: Url,
}

impl PendingSignIn {
    /// Registers this program and builds the URL for the browser. `redirect_uri` receives the
    /// response, for example `http://127.0.0.1:8000/oauth/callback`.
    ///
    /// # Errors
    /// An invalid scope, a rejected registration, or no response.
    pub async fn start(
        transport: Arc<dyn Transport>,
        request: SignInRequest,
        redirect_uri: &str,
    ) -> Result<Self, LoginError> {
        AuthorizationRequest::check_scopes(&request.scopes)?;
        let registration = ClientRegistration::new(
            &*transport,
            &request.target,
            &request.client_name,
            redirect_uri,
        )
        .await?;
        let AuthorizationRequest {
            url,
            state,
            verifier,
        } = AuthorizationRequest::new(&registration, &request.scopes, request.org.as_deref())?;
        Ok(Self {
            transport,
            request,
            registration,
            state,
            verifier,
            url,
        })
    }

    /// The URL that the browser has to open.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether a response with this query belongs to this sign-in.
    pub(super) fn matches_state(&self, query: &str) -> bool {
        AuthorizationResponse::parse(query).is_some_and(|response| response.has_state(&self.state))
    }

    /// Completes the sign-in. `response` is the URL that the browser was redirected to, or its
    /// query.
    ///
    /// # Errors
    /// Every [`LoginError`] that a response can cause. The code is sent only after all other checks
    /// have passed.
    pub async fn finish(&self, response: &str) -> Result<CompletedSignIn, LoginError> {
        let query = response
            .split_once('?')
            .map_or(response, |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default().trim();
        let response = AuthorizationResponse::parse(query).ok_or(LoginError::NoCode)?;
        if !response.has_state(&self.state) {
            return Err(LoginError::WrongState);
        }
        let verified = response.verify(&self.registration.target, self.request.org.as_deref())?;
        self.registration
            .redeem(
                &*self.transport,
                verified,
                &self.verifier,
                &self.request.scopes,
            )
            .await
    }
}
