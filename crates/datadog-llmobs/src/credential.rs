//! Datadog credentials, which can be sent but not printed.
//!
//! `Debug` and `Display` show the kind only. Header values are marked sensitive, so that HTTP libraries
//! do not log them. Caches are keyed by a [`Fingerprint`]: a hash of the credential with a key that
//! exists only in this process.

use std::fmt;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use thiserror::Error;

const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");
const APPLICATION_KEY: HeaderName = HeaderName::from_static("dd-application-key");

/// The credential of a request.
#[derive(Clone, Default)]
pub enum Credential {
    /// An API key and an application key.
    KeyPair {
        /// The `DD-API-KEY` header.
        api_key: SecretString,
        /// The `DD-APPLICATION-KEY` header.
        app_key: SecretString,
    },
    /// An OAuth access token, or a personal or service access token, sent as a bearer token.
    Bearer(SecretString),
    /// A personal (`ddpat_`) or service (`ddsat_`) access token, sent as application key without an
    /// API key.
    AppToken(SecretString),
    /// No credential; the local backend needs none.
    #[default]
    None,
}

/// Why a credential is invalid. Messages never contain a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// An API key without an application key.
    #[error(
        "there is an API key but no application key; reading needs both: set DD_APPLICATION_KEY (or DD_APP_KEY), or use an access token (ddpat_… or ddsat_…) as DD_APPLICATION_KEY alone"
    )]
    MissingApplicationKey,
    /// An application key without an API key.
    #[error(
        "there is an application key but no API key; set DD_API_KEY too, or use an access token (ddpat_… or ddsat_…) as DD_APPLICATION_KEY alone"
    )]
    MissingApiKey,
    /// Characters that an HTTP header cannot contain.
    #[error(
        "the {0} contains invalid characters (a line break, a space, a control character or a non-ASCII letter); copy it again"
    )]
    BadCharacters(&'static str),
}

impl Credential {
    /// Builds a credential from its parts. A blank part counts as absent.
    ///
    /// In order of precedence: an access token as application key (an API key is then neither needed
    /// nor sent), a key pair, and a bearer token (a single key is then ignored).
    ///
    /// # Errors
    /// A single key without a bearer token, and values that a header cannot contain.
    pub fn from_parts(
        api_key: Option<&str>,
        app_key: Option<&str>,
        bearer: Option<&str>,
    ) -> Result<Self, CredentialError> {
        let api_key = checked_part(api_key, "API key")?;
        let app_key = checked_part(app_key, "application key")?;
        let bearer = checked_part(bearer.map(strip_scheme), "access token")?;
        match (api_key, app_key, bearer) {
            (_, Some(token), _) if is_access_token(token) => Ok(Self::AppToken(token.into())),
            (Some(api_key), Some(app_key), _) => Ok(Self::KeyPair {
                api_key: api_key.into(),
                app_key: app_key.into(),
            }),
            (_, _, Some(token)) => Ok(Self::Bearer(token.into())),
            (Some(_), None, None) => Err(CredentialError::MissingApplicationKey),
            (None, Some(_), None) => Err(CredentialError::MissingApiKey),
            (None, None, None) => Ok(Self::None),
        }
    }

    /// The kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KeyPair { .. } => "API key and application key",
            Self::Bearer(_) => "bearer token",
            Self::AppToken(_) => "access token as application key",
            Self::None => "no credential",
        }
    }

    /// Whether there is no credential.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Adds the headers. Skips values that a header cannot contain; [`Credential::from_parts`]
    /// rejects them.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        let mut add = |name: HeaderName, text: &str| {
            if let Ok(mut value) = HeaderValue::from_str(text) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        };
        match self {
            Self::KeyPair { api_key, app_key } => {
                add(API_KEY, api_key.expose_secret());
                add(APPLICATION_KEY, app_key.expose_secret());
            }
            Self::Bearer(token) => {
                add(
                    header::AUTHORIZATION,
                    &format!("Bearer {}", token.expose_secret()),
                );
            }
            Self::AppToken(token) => add(APPLICATION_KEY, token.expose_secret()),
            Self::None => {}
        }
    }

    /// Replaces every secret of this credential, and everything that looks like a Datadog token, in
    /// untrusted text.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut redacted = text.to_owned();
        // Shorter values are not keys and would occur in any text.
        for secret in self.secrets().filter(|secret| secret.len() >= 4) {
            redacted = redacted.replace(secret, "[redacted]");
        }
        for prefix in ["ddpat_", "ddsat_", "ddapp_"] {
            redacted = redact_tokens(&redacted, prefix);
        }
        redacted
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::KeyPair { api_key, app_key } => (Some(api_key), Some(app_key)),
            Self::Bearer(token) | Self::AppToken(token) => (Some(token), None),
            Self::None => (None, None),
        };
        first
            .into_iter()
            .chain(second)
            .map(ExposeSecret::expose_secret)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.kind())
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

fn checked_part<'a>(
    text: Option<&'a str>,
    what: &'static str,
) -> Result<Option<&'a str>, CredentialError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Some(text))
    } else {
        Err(CredentialError::BadCharacters(what))
    }
}

fn strip_scheme(text: &str) -> &str {
    let text = text.trim();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ => text,
    }
}

fn is_access_token(text: &str) -> bool {
    text.starts_with("ddpat_") || text.starts_with("ddsat_")
}

fn redact_tokens(text: &str, prefix: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(prefix) {
        redacted.push_str(before);
        redacted.push_str("[redacted]");
        rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    }
    redacted.push_str(rest);
    redacted
}

/// A keyed hash of a credential and an upstream. Equal credentials have equal fingerprints within this
/// process; outside of it, a fingerprint is useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

/// The key of the fingerprints of this process.
pub(crate) struct FingerprintKey(secrecy::SecretBox<[u8; 64]>);

impl FingerprintKey {
    /// A random key.
    pub(crate) fn random() -> Self {
        Self(secrecy::SecretBox::new(Box::new(rand::random())))
    }

    /// The fingerprint of a credential at an upstream.
    pub(crate) fn fingerprint(&self, credential: &Credential, upstream: &str) -> Fingerprint {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(self.0.expose_secret().into());
        for part in [upstream, credential.kind()]
            .into_iter()
            .chain(credential.secrets())
        {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Credential {
        Credential::from_parts(Some("alpha-key"), Some("beta-key"), None).unwrap()
    }

    #[test]
    fn blank_parts_are_absent_and_single_key_names_missing_one() {
        assert!(
            Credential::from_parts(Some(" "), Some(""), Some("\n"))
                .unwrap()
                .is_none()
        );
        let error = Credential::from_parts(Some("a"), None, None).unwrap_err();
        assert_eq!(error, CredentialError::MissingApplicationKey);
        assert!(error.to_string().contains("DD_APPLICATION_KEY"));
        let error = Credential::from_parts(Some(""), Some("b"), None).unwrap_err();
        assert_eq!(error, CredentialError::MissingApiKey);
        assert!(error.to_string().contains("DD_API_KEY"));
    }

    #[test]
    fn selects_kind_by_precedence() {
        let kind = |api, app, bearer| Credential::from_parts(api, app, bearer).unwrap().kind();
        assert_eq!(
            kind(Some("a"), Some("b"), Some("c")),
            "API key and application key"
        );
        assert_eq!(
            kind(None, Some("ddpat_x"), None),
            "access token as application key"
        );
        assert_eq!(
            kind(Some("a"), Some("ddsat_x"), None),
            "access token as application key"
        );
        assert_eq!(kind(Some("a"), None, Some("Bearer c")), "bearer token");
        assert_eq!(kind(None, None, None), "no credential");
    }

    #[test]
    fn rejects_invalid_characters_without_echo() {
        for bad in ["a\nb", "a b", "a\u{7f}", "é", "a\0"] {
            let error = Credential::from_parts(Some(bad), Some("b"), None).unwrap_err();
            assert_eq!(error, CredentialError::BadCharacters("API key"));
            assert!(!error.to_string().contains(bad));
        }
    }

    #[test]
    fn headers_are_sensitive_and_debug_hides_secrets() {
        let mut headers = HeaderMap::new();
        pair().apply(&mut headers);
        assert_eq!(headers.get("DD-API-KEY").unwrap(), "alpha-key");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        let shown = format!("{:?} {:#?} {} {headers:?}", pair(), pair(), pair());
        assert!(
            !shown.contains("alpha") && !shown.contains("beta"),
            "{shown}"
        );
        let mut headers = HeaderMap::new();
        Credential::from_parts(None, None, Some("bearer tok"))
            .unwrap()
            .apply(&mut headers);
        assert_eq!(headers.get("authorization").unwrap(), "Bearer tok");
    }

    #[test]
    fn redacts_secrets_and_tokens() {
        let text = pair().redact("alpha-key was beta-key, not ddpat_AB_cd12, ddapp_zz!");
        assert_eq!(
            text,
            "[redacted] was [redacted], not [redacted], [redacted]!"
        );
    }

    #[test]
    fn fingerprint_differs_by_credential_upstream_and_process() {
        let key = FingerprintKey::random();
        assert_eq!(key.fingerprint(&pair(), "u"), key.fingerprint(&pair(), "u"));
        assert_ne!(key.fingerprint(&pair(), "u"), key.fingerprint(&pair(), "v"));
        assert_ne!(
            key.fingerprint(&pair(), "u"),
            key.fingerprint(&Credential::None, "u")
        );
        assert_ne!(
            key.fingerprint(&pair(), "u"),
            FingerprintKey::random().fingerprint(&pair(), "u")
        );
        let joined = Credential::from_parts(Some("alpha-keybeta"), Some("-key"), None).unwrap();
        assert_ne!(key.fingerprint(&pair(), "u"), key.fingerprint(&joined, "u"));
    }
}
