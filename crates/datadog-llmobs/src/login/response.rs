//! The authorization response: the query that the browser returns from Datadog.
//!
//! The checks run in a fixed order: `state`, then errors, then the named hosts, then the
//! organisation. Only after all of them passed may the code be sent.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::super::text;
use super::error::LoginError;
use super::target::LoginTarget;

/// The query of the URL that the browser was redirected to.
pub struct AuthorizationResponse(BTreeMap<String, String>);

/// A response that passed every check, with its code.
pub struct VerifiedResponse {
    /// Where the account is, and where the code is exchanged.
    pub target: LoginTarget,
    pub(super) code: SecretString,
    pub(super) org_id: Option<String>,
    pub(super) org_name: Option<String>,
}

impl AuthorizationResponse {
    /// Parses a query. Returns `None` if a parameter occurs twice, because it is then ambiguous.
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

    /// The `state` parameter.
    pub fn state(&self) -> Option<&str> {
        self.get("state")
    }

    /// Whether this is the response to the request with this `state`.
    pub(super) fn has_state(&self, state: &SecretString) -> bool {
        // Comparing hashes takes the same time for every position at which two texts differ.
        let hash = |text: &str| Sha256::digest(text.as_bytes());
        self.state()
            .is_some_and(|found| hash(found) == hash(state.expose_secret()))
    }

    /// Checks the response to a request that was made at `target`, for `org` if one is required.
    /// The caller has compared its `state` before.
    ///
    /// # Errors
    /// An OAuth error, a foreign host, another organisation, or a missing code.
    pub fn verify(
        &self,
        target: &LoginTarget,
        org: Option<&str>,
    ) -> Result<VerifiedResponse, LoginError> {
        if let Some(code) = self.get("error") {
            return Err(self.oauth_error(code));
        }
        target.check_site(self.get("site"))?;
        let target = target.with_domain(self.get("domain"))?;
        let org_id = self
            .get("dd_oid")
            .filter(|id| uuid::Uuid::parse_str(id).is_ok())
            .map(str::to_ascii_lowercase);
        if let Some(required) = org
            && !org_id
                .as_ref()
                .is_some_and(|id| id.eq_ignore_ascii_case(required))
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

    fn oauth_error(&self, code: &str) -> LoginError {
        let message = text::excerpt(self.get("error_description").unwrap_or_default(), 300);
        match code {
            "access_denied" => LoginError::Denied(message),
            "invalid_scope" => LoginError::ScopeRejected(message),
            code => LoginError::Failed {
                code: text::excerpt(code, 60),
                message,
            },
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
