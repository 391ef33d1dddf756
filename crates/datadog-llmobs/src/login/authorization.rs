//! The two ends of the authorization code grant: the address for the browser, and the exchange of
//! the code that it brings back. PKCE S256 and `state` always.

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
use super::renewal::clock_note;
use super::response::VerifiedResponse;
use super::store::Login;
use super::target::LoginTarget;
use super::token::{self, Failure};

/// A client of a target: whom it knows, and where it sends browsers back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRegistration {
    /// Who knows the client.
    pub target: LoginTarget,
    /// The client's id there.
    pub client_id: String,
    /// Where answers come back.
    pub redirect: String,
}

/// An authorization request, before anybody has seen it.
pub struct AuthorizationRequest {
    /// What the browser has to open.
    pub url: Url,
    /// What comes back with the answer.
    pub state: SecretString,
    /// What proves, at the exchange of the code, who asked.
    pub verifier: SecretString,
}

/// A sign-in that succeeded.
pub struct CompletedSignIn {
    /// What to keep.
    pub profile: Login,
    /// Remarks for the person: fewer scopes than asked for, a clock that is off.
    pub notes: Vec<String>,
}

impl AuthorizationRequest {
    /// Whether these can be scopes.
    ///
    /// # Errors
    /// One of them cannot.
    pub(super) fn check(scopes: &[String]) -> Result<(), LoginError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b':';
        match scopes
            .iter()
            .find(|scope| scope.is_empty() || !scope.bytes().all(good))
        {
            Some(scope) => Err(LoginError::BadScope(text::excerpt(scope, 60))),
            None => Ok(()),
        }
    }

    /// Makes a request for these scopes (none lets the other side decide) and, if one is named, for
    /// an organisation by its id.
    ///
    /// # Errors
    /// A scope that is none, and a target or a redirect address that is no URL.
    pub fn request(
        registration: &ClientRegistration,
        scopes: &[String],
        org: Option<&str>,
    ) -> Result<Self, LoginError> {
        Self::check(scopes)?;
        let broken = |_| LoginError::UnsupportedTarget;
        let client = BasicClient::new(ClientId::new(registration.client_id.clone()))
            .set_auth_uri(AuthUrl::new(registration.target.authorize_url()).map_err(broken)?)
            .set_redirect_uri(RedirectUrl::new(registration.redirect.clone()).map_err(broken)?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(64);
        let mut scopes = scopes.to_vec();
        scopes.sort();
        let mut ask = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .add_scopes(scopes.into_iter().map(Scope::new))
            .set_pkce_challenge(challenge);
        if let Some(org) = org {
            ask = ask.add_extra_param("dd_oid", org.to_owned());
        }
        let (url, state) = ask.url();
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
    /// It was refused, or there was no answer.
    pub async fn new(
        transport: &dyn Transport,
        target: &LoginTarget,
        client_name: &str,
        redirect: &str,
    ) -> Result<Self, LoginError> {
        Ok(Self {
            target: target.clone(),
            client_id: register(transport, target, client_name, redirect).await?,
            redirect: redirect.to_owned(),
        })
    }

    /// Exchanges the code of an answer, where that answer says. `scopes` are those asked for.
    ///
    /// # Errors
    /// The code, the client or the scopes are refused, or there was no answer.
    pub async fn redeem(
        &self,
        transport: &dyn Transport,
        accepted: VerifiedResponse,
        verifier: &SecretString,
        scopes: &[String],
    ) -> Result<CompletedSignIn, LoginError> {
        let VerifiedResponse {
            target,
            code,
            org_id,
            org_name,
        } = accepted;
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        let tokens = token::exchange(
            transport,
            &target,
            &self.client_id,
            &self.redirect,
            &code,
            verifier,
        )
        .await
        .map_err(|failure| match failure {
            Failure::Grant(words) => LoginError::CodeRefused {
                target: target.name(),
                words,
            },
            Failure::Client(words) => LoginError::ClientUnknown {
                target: target.name(),
                words,
            },
            Failure::Scope(words) => LoginError::ScopeRefused(words),
            Failure::Other(error) => error,
        })?;
        let mut notes = Vec::new();
        if let Some(granted) = &tokens.scope {
            let granted: Vec<&str> = granted.split(' ').collect();
            let missing: Vec<&str> = scopes
                .iter()
                .map(String::as_str)
                .filter(|scope| !granted.contains(scope))
                .collect();
            if !missing.is_empty() {
                notes.push(format!("not granted: {}", missing.join(", ")));
            }
        }
        notes.extend(
            tokens
                .clock_ahead_ms
                .map(|ahead| clock_note(ahead, &target)),
        );
        Ok(CompletedSignIn {
            profile: Login {
                target,
                client_id: self.client_id.clone(),
                access: tokens.access,
                refresh: tokens.refresh,
                issued_at_ms: tokens.issued_at_ms,
                expires_at_ms: tokens.expires_at_ms,
                scope: tokens.scope.unwrap_or_else(|| scopes.join(" ")),
                org_id,
                org_name,
            },
            notes,
        })
    }
}
