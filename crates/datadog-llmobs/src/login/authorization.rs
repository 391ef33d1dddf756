//! Both ends of the authorization code grant: the URL for the browser, and the exchange of the code
//! that it returns. PKCE S256 and `state` are always used.

use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::super::text;
use super::super::transport::Transport;
use super::error::LoginError;
use super::register::register;
use super::response::VerifiedResponse;
use super::store::Login;
use super::target::LoginTarget;
use super::token::{self, TokenError, Tokens};

/// An OAuth client that is registered at a login target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRegistration {
    /// Where the client is registered.
    pub target: LoginTarget,
    /// The client id.
    pub client_id: String,
    /// The redirect URI.
    pub redirect_uri: String,
}

/// An authorization request.
pub struct AuthorizationRequest {
    /// The URL that the browser has to open.
    pub url: Url,
    /// The `state` that the response must repeat.
    pub state: SecretString,
    /// The PKCE verifier for the exchange of the code.
    pub verifier: SecretString,
}

/// A sign-in that succeeded.
pub struct CompletedSignIn {
    /// The login to store.
    pub login: Login,
    /// Notes for the user: scopes that were not granted, a wrong clock.
    pub notes: Vec<String>,
}

impl AuthorizationRequest {
    /// Checks that these can be scopes.
    ///
    /// # Errors
    /// [`LoginError::BadScope`] for the first that cannot.
    pub(super) fn check_scopes(scopes: &[String]) -> Result<(), LoginError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b':';
        match scopes
            .iter()
            .find(|scope| scope.is_empty() || !scope.bytes().all(is_allowed))
        {
            Some(scope) => Err(LoginError::BadScope(text::excerpt(scope, 60))),
            None => Ok(()),
        }
    }

    /// Builds a request for these scopes (if empty, the server decides) and, optionally, for an
    /// organisation by its id.
    ///
    /// # Errors
    /// An invalid scope, or a target or redirect URI that is not a URL.
    pub fn new(
        registration: &ClientRegistration,
        scopes: &[String],
        org: Option<&str>,
    ) -> Result<Self, LoginError> {
        Self::check_scopes(scopes)?;
        let not_a_url = |_| LoginError::UnsupportedTarget;
        let authorize_url = AuthUrl::new(registration.target.authorize_url()).map_err(not_a_url)?;
        let redirect_uri =
            RedirectUrl::new(registration.redirect_uri.clone()).map_err(not_a_url)?;
        let client = BasicClient::new(ClientId::new(registration.client_id.clone()))
            .set_auth_uri(authorize_url)
            .set_redirect_uri(redirect_uri);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(64);
        let mut scopes = scopes.to_vec();
        scopes.sort();
        let mut request = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .add_scopes(scopes.into_iter().map(Scope::new))
            .set_pkce_challenge(challenge);
        if let Some(org) = org {
            request = request.add_extra_param("dd_oid", org.to_owned());
        }
        let (url, state) = request.url();
        Ok(Self {
            url,
            state: state.secret().as_str().into(),
            verifier: verifier.secret().as_str().into(),
        })
    }
}

impl ClientRegistration {
    /// Registers a client at a target.
    ///
    /// # Errors
    /// The registration was rejected, or there was no response.
    pub async fn new(
        transport: &dyn Transport,
        target: &LoginTarget,
        client_name: &str,
        redirect_uri: &str,
    ) -> Result<Self, LoginError> {
        Ok(Self {
            target: target.clone(),
            client_id: register(transport, target, client_name, redirect_uri).await?,
            redirect_uri: redirect_uri.to_owned(),
        })
    }

    /// Exchanges the code of a response at the target that it names. `scopes` are the requested
    /// ones.
    ///
    /// # Errors
    /// The code, the client or the scopes were rejected, or there was no response.
    pub async fn redeem(
        &self,
        transport: &dyn Transport,
        response: VerifiedResponse,
        verifier: &SecretString,
        scopes: &[String],
    ) -> Result<CompletedSignIn, LoginError> {
        let target = &response.target;
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        let tokens = token::exchange(
            transport,
            target,
            &self.client_id,
            &self.redirect_uri,
            &response.code,
            verifier,
        )
        .await
        .map_err(|error| exchange_error(error, target))?;
        let mut notes = Vec::new();
        notes.extend(missing_scopes_note(&tokens, scopes));
        notes.extend(tokens.clock_note(target));
        Ok(CompletedSignIn {
            login: Login {
                target: response.target,
                client_id: self.client_id.clone(),
                access_token: tokens.access_token,
                refresh_token: tokens.refresh_token,
                issued_at_ms: tokens.issued_at_ms,
                expires_at_ms: tokens.expires_at_ms,
                scope: tokens.scope.unwrap_or_else(|| scopes.join(" ")),
                org_id: response.org_id,
                org_name: response.org_name,
            },
            notes,
        })
    }
}

fn exchange_error(error: TokenError, target: &LoginTarget) -> LoginError {
    match error {
        TokenError::Grant(message) => LoginError::CodeRejected {
            target: target.name(),
            message,
        },
        TokenError::Client(message) => LoginError::UnknownClient {
            target: target.name(),
            message,
        },
        TokenError::Scope(message) => LoginError::ScopeRejected(message),
        TokenError::Other(error) => error,
    }
}

fn missing_scopes_note(tokens: &Tokens, requested: &[String]) -> Option<String> {
    let granted: Vec<&str> = tokens.scope.as_deref()?.split(' ').collect();
    let missing: Vec<&str> = requested
        .iter()
        .map(String::as_str)
        .filter(|scope| !granted.contains(scope))
        .collect();
    (!missing.is_empty()).then(|| format!("not granted: {}", missing.join(", ")))
}
