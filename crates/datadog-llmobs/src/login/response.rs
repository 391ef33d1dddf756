//! What the browser brings back from Datadog.
//!
//! It is looked at in one order: is it ours (`state`), did it fail, does it name places that may be
//! named, is it the organisation asked for; only then there is a code that may be sent anywhere.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::super::text;
use super::error::LoginError;
use super::target::LoginTarget;

/// The query of the address that the browser came back to.
pub struct AuthorizationResponse(BTreeMap<String, String>);

/// An answer in which everything is right, with the code that it brought.
pub struct VerifiedResponse {
    /// Where the account is.
    pub target: LoginTarget,
    /// To be exchanged there.
    pub(super) code: SecretString,
    pub(super) org_id: Option<String>,
    pub(super) org_name: Option<String>,
}

impl AuthorizationResponse {
    /// Reads a query. A name that comes twice makes it none: whose values would count?
    pub fn parse(query: &str) -> Option<Self> {
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

    /// What should be the `state` of the request.
    pub fn state(&self) -> Option<&str> {
        self.get("state")
    }

    /// Whether it is the answer to the request with this `state`.
    pub(super) fn has_state(&self, state: &SecretString) -> bool {
        // Comparing hashes takes the same time wherever two texts differ.
        let hash = |text: &str| Sha256::digest(text.as_bytes());
        self.state()
            .is_some_and(|given| hash(given) == hash(state.expose_secret()))
    }

    /// What it says, to a request that was made at `place`, for `org` if one must be signed in to.
    /// Its `state` was compared before.
    ///
    /// # Errors
    /// An error instead of a code, a foreign target, another organisation, no code.
    pub fn accept(
        &self,
        target: &LoginTarget,
        org: Option<&str>,
    ) -> Result<VerifiedResponse, LoginError> {
        if let Some(code) = self.get("error") {
            let words = text::excerpt(self.get("error_description").unwrap_or_default(), 300);
            return Err(match code {
                "access_denied" => LoginError::Denied(words),
                "invalid_scope" => LoginError::ScopeRefused(words),
                code => LoginError::Refused {
                    code: text::excerpt(code, 60),
                    words,
                },
            });
        }
        target.check_site(self.get("site"))?;
        let target = target.adopt(self.get("domain"))?;
        let org_id = self
            .get("dd_oid")
            .filter(|id| uuid::Uuid::parse_str(id).is_ok())
            .map(str::to_ascii_lowercase);
        if let Some(wanted) = org
            && !org_id
                .as_ref()
                .is_some_and(|id| id.eq_ignore_ascii_case(wanted))
        {
            return Err(LoginError::OtherOrganisation);
        }
        let code = match self.get("code") {
            Some(code) if !code.is_empty() => code.into(),
            _ => return Err(LoginError::NoCode),
        };
        Ok(VerifiedResponse {
            target,
            code,
            org_id,
            org_name: self
                .get("dd_org_name")
                .map(|name| text::excerpt(name, 100))
                .filter(|name| !name.is_empty()),
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
