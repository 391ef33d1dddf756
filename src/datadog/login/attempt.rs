//! One sign-in, from the address for the browser to the tokens.
//!
//! PKCE S256 and `state` always. The answer is looked at in one order: is it ours (`state`), did
//! it fail, does it name a place that may be named, is it the organisation asked for; only then the
//! code is sent anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use super::super::text;
use super::super::transport::Transport;
use super::error::LoginError;
use super::place::Place;
use super::register::register;
use super::store::Profile;
use super::token::{self, Failure};

/// What somebody wants to sign in to.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// Where.
    pub place: Place,
    /// The scopes to ask for; none lets the other side decide.
    pub scopes: Vec<String>,
    /// The name to register under.
    pub client_name: String,
    /// The id of the organisation that must be signed in to.
    pub org: Option<String>,
}

/// A sign-in that waits for its answer.
pub struct Attempt {
    transport: Arc<dyn Transport>,
    request: LoginRequest,
    client_id: String,
    redirect: String,
    state: SecretString,
    verifier: PkceCodeVerifier,
    url: Url,
}

/// A sign-in that succeeded.
pub struct Outcome {
    /// What to keep.
    pub profile: Profile,
    /// Remarks for the person: fewer scopes than asked for, a clock that is off.
    pub notes: Vec<String>,
}

impl Attempt {
    /// Registers this program and makes the address that the browser has to open. `redirect` is
    /// where its answer comes back, such as `http://127.0.0.1:8000/oauth/callback`.
    ///
    /// # Errors
    /// A refused registration, a scope that is none, no answer.
    pub async fn start(
        transport: Arc<dyn Transport>,
        request: LoginRequest,
        redirect: &str,
    ) -> Result<Self, LoginError> {
        for scope in &request.scopes {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b':';
            if scope.is_empty() || !scope.bytes().all(good) {
                return Err(LoginError::BadScope(text::excerpt(scope, 60)));
            }
        }
        let client_id =
            register(&*transport, &request.place, &request.client_name, redirect).await?;
        let broken = |_| LoginError::NoSuchPlace;
        let client = BasicClient::new(ClientId::new(client_id.clone()))
            .set_auth_uri(AuthUrl::new(request.place.authorize_url()).map_err(broken)?)
            .set_redirect_uri(RedirectUrl::new(redirect.to_owned()).map_err(broken)?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(64);
        let mut scopes = request.scopes.clone();
        scopes.sort();
        let mut ask = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .add_scopes(scopes.into_iter().map(Scope::new))
            .set_pkce_challenge(challenge);
        if let Some(org) = &request.org {
            ask = ask.add_extra_param("dd_oid", org.clone());
        }
        let (url, state) = ask.url();
        Ok(Self {
            transport,
            client_id,
            redirect: redirect.to_owned(),
            state: state.secret().as_str().into(),
            verifier,
            url,
            request,
        })
    }

    /// What the browser has to open.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the query of an answer belongs to this sign-in.
    pub(super) fn recognises(&self, query: &str) -> bool {
        Answer::of(query).is_some_and(|answer| self.is_ours(&answer))
    }

    fn is_ours(&self, answer: &Answer) -> bool {
        // Comparing hashes takes the same time wherever two texts differ.
        let hash = |text: &str| Sha256::digest(text.as_bytes());
        answer
            .get("state")
            .is_some_and(|state| hash(state) == hash(self.state.expose_secret()))
    }

    /// Takes the answer, as the query of the address that the browser came back to (or that whole
    /// address), to its end: tokens.
    ///
    /// # Errors
    /// Anything in [`LoginError`] that an answer can cause. The code is sent nowhere unless all
    /// else is right.
    pub async fn finish(&self, answer: &str) -> Result<Outcome, LoginError> {
        let query = answer.split_once('?').map_or(answer, |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default().trim();
        let answer = Answer::of(query).ok_or(LoginError::NoCode)?;
        if !self.is_ours(&answer) {
            return Err(LoginError::WrongState);
        }
        if let Some(code) = answer.get("error") {
            let words = text::excerpt(answer.get("error_description").unwrap_or_default(), 300);
            return Err(match code {
                "access_denied" => LoginError::Denied(words),
                "invalid_scope" => LoginError::ScopeRefused(words),
                code => LoginError::Refused {
                    code: text::excerpt(code, 60),
                    words,
                },
            });
        }
        let place = self.request.place.adopt(answer.get("domain"))?;
        let org_id = answer
            .get("dd_oid")
            .filter(|id| uuid::Uuid::parse_str(id).is_ok())
            .map(str::to_ascii_lowercase);
        if let Some(wanted) = &self.request.org
            && !org_id
                .as_ref()
                .is_some_and(|id| id.eq_ignore_ascii_case(wanted))
        {
            return Err(LoginError::OtherOrganisation);
        }
        let code: SecretString = match answer.get("code") {
            Some(code) if !code.is_empty() => code.into(),
            _ => return Err(LoginError::NoCode),
        };
        let tokens = token::exchange(
            &*self.transport,
            &place,
            &self.client_id,
            &self.redirect,
            &code,
            PkceCodeVerifier::new(self.verifier.secret().to_owned()),
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
            let missing: Vec<&str> = self
                .request
                .scopes
                .iter()
                .map(String::as_str)
                .filter(|scope| !granted.contains(scope))
                .collect();
            if !missing.is_empty() {
                notes.push(format!("not granted: {}", missing.join(", ")));
            }
        }
        notes.extend(tokens.clock_ahead_ms.map(|ahead| clock_note(ahead, &place)));
        let scope = tokens
            .scope
            .unwrap_or_else(|| self.request.scopes.join(" "));
        Ok(Outcome {
            profile: Profile {
                place,
                client_id: self.client_id.clone(),
                access: tokens.access,
                refresh: tokens.refresh,
                issued_at_ms: tokens.issued_at_ms,
                expires_at_ms: tokens.expires_at_ms,
                scope,
                org_id,
                org_name: answer
                    .get("dd_org_name")
                    .map(|name| text::excerpt(name, 100))
                    .filter(|name| !name.is_empty()),
            },
            notes,
        })
    }
}

/// What to say of a clock that is off.
pub(super) fn clock_note(ahead_ms: i64, place: &Place) -> String {
    let minutes = ahead_ms.saturating_abs() / 60_000;
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "this machine's clock is {minutes} minutes {direction} the one of {}; set it right, or logins end early or late",
        place.name()
    )
}

/// The query of an answer. A name that comes twice makes it none: whose values would count?
struct Answer(BTreeMap<String, String>);

impl Answer {
    fn of(query: &str) -> Option<Self> {
        let mut values = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if values
                .insert(name.into_owned(), value.into_owned())
                .is_some()
            {
                return None;
            }
        }
        Some(Self(values))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
