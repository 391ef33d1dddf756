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
use super::place::Place;
use super::register::register;
use super::renewal::clock_note;
use super::response::Accepted;
use super::store::Profile;
use super::token::{self, Failure};

/// A client of a place: whom it knows, and where it sends browsers back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Who knows the client.
    pub place: Place,
    /// The client's id there.
    pub client_id: String,
    /// Where answers come back.
    pub redirect: String,
}

/// An authorization request, before anybody has seen it.
pub struct Authorization {
    /// What the browser has to open.
    pub url: Url,
    /// What comes back with the answer.
    pub state: SecretString,
    /// What proves, at the exchange of the code, who asked.
    pub verifier: SecretString,
}

/// A sign-in that succeeded.
pub struct Outcome {
    /// What to keep.
    pub profile: Profile,
    /// Remarks for the person: fewer scopes than asked for, a clock that is off.
    pub notes: Vec<String>,
}

impl Authorization {
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
    /// A scope that is none, and a place or a redirect address that is no URL.
    pub fn request(
        registration: &Registration,
        scopes: &[String],
        org: Option<&str>,
    ) -> Result<Self, LoginError> {
        Self::check(scopes)?;
        let broken = |_| LoginError::NoSuchPlace;
        let client = BasicClient::new(ClientId::new(registration.client_id.clone()))
            .set_auth_uri(AuthUrl::new(registration.place.authorize_url()).map_err(broken)?)
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

impl Registration {
    /// Registers a client at a place.
    ///
    /// # Errors
    /// It was refused, or there was no answer.
    pub async fn new(
        transport: &dyn Transport,
        place: &Place,
        client_name: &str,
        redirect: &str,
    ) -> Result<Self, LoginError> {
        Ok(Self {
            place: place.clone(),
            client_id: register(transport, place, client_name, redirect).await?,
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
        accepted: Accepted,
        verifier: &SecretString,
        scopes: &[String],
    ) -> Result<Outcome, LoginError> {
        let Accepted {
            place,
            code,
            org_id,
            org_name,
        } = accepted;
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        let tokens = token::exchange(
            transport,
            &place,
            &self.client_id,
            &self.redirect,
            &code,
            verifier,
        )
        .await
        .map_err(|failure| match failure {
            Failure::Grant(words) => LoginError::CodeRefused {
                place: place.name(),
                words,
            },
            Failure::Client(words) => LoginError::ClientUnknown {
                place: place.name(),
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
        notes.extend(tokens.clock_ahead_ms.map(|ahead| clock_note(ahead, &place)));
        Ok(Outcome {
            profile: Profile {
                place,
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
