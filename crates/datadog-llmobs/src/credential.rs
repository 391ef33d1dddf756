//! Datadog credentials: values that can be sent and cannot be seen.
//!
//! `Debug` and `Display` show the kind only, header values are marked sensitive so that no HTTP
//! library logs them, and what must be keyed by a credential is keyed by a [`Fingerprint`]: a hash
//! under a key that lives and dies with this process.

use std::fmt;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use thiserror::Error;

const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");
const APPLICATION_KEY: HeaderName = HeaderName::from_static("dd-application-key");

/// What a request is sent with.
#[derive(Clone, Default)]
pub enum Credential {
    /// An API key and an application key.
    KeyPair {
        /// Sent as `DD-API-KEY`.
        api_key: SecretString,
        /// Sent as `DD-APPLICATION-KEY`.
        app_key: SecretString,
    },
    /// An OAuth access token, or a personal or service access token, sent as a bearer.
    Bearer(SecretString),
    /// A personal (`ddpat_`) or service (`ddsat_`) access token, sent alone as application key.
    AppToken(SecretString),
    /// Nothing: the local backend needs none.
    #[default]
    None,
}

/// Why credentials were refused. Names what is wrong, never a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// Half a pair.
    #[error(
        "there is an API key but no application key; reading needs both: set DD_APPLICATION_KEY (or DD_APP_KEY), or use an access token (ddpat_… or ddsat_…) as DD_APPLICATION_KEY alone"
    )]
    MissingApplicationKey,
    /// The other half.
    #[error(
        "there is an application key but no API key; set DD_API_KEY too, or use an access token (ddpat_… or ddsat_…) as DD_APPLICATION_KEY alone"
    )]
    MissingApiKey,
    /// What no HTTP header may hold.
    #[error(
        "the {0} holds characters that no key has (a line break, a space, a control character or a letter beyond ASCII); copy it again"
    )]
    BadCharacters(&'static str),
}

impl Credential {
    /// Makes a credential of the parts that a caller has; an empty or blank part is absent.
    ///
    /// The order: a key pair; an access token in the place of the application key (an API key
    /// beside it is not needed and not sent); a bearer (half a pair beside it is not used).
    ///
    /// # Errors
    /// Half a pair with nothing else, and values that cannot stand in a header.
    pub fn from_parts(
        api_key: Option<&str>,
        app_key: Option<&str>,
        bearer: Option<&str>,
    ) -> Result<Self, CredentialError> {
        let api_key = part(api_key, "API key")?;
        let app_key = part(app_key, "application key")?;
        let bearer = part(bearer.map(strip_scheme), "access token")?;
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

    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KeyPair { .. } => "API key and application key",
            Self::Bearer(_) => "bearer token",
            Self::AppToken(_) => "access token as application key",
            Self::None => "no credential",
        }
    }

    /// Whether there is nothing to send.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Adds the headers. A value that no header can hold is left out; [`Credential::from_parts`]
    /// does not let one in.
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

    /// Replaces every secret of this credential, and everything that looks like a Datadog token,
    /// in a text that somebody else wrote.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut redacted = text.to_owned();
        // What is shorter is no key, and its letters stand everywhere.
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

fn part<'a>(text: Option<&'a str>, what: &'static str) -> Result<Option<&'a str>, CredentialError> {
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

/// What stands for a credential at an upstream wherever something is kept: equal for equal
/// credentials within this process, worthless outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

/// The key of this process's fingerprints.
pub(crate) struct FingerprintKey(secrecy::SecretBox<[u8; 64]>);

impl FingerprintKey {
    /// A random key.
    pub(crate) fn random() -> Self {
        Self(secrecy::SecretBox::new(Box::new(rand::random())))
    }

    /// The fingerprint of a credential at an upstream.
    pub(crate) fn of(&self, credential: &Credential, upstream: &str) -> Fingerprint {
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
    fn what_is_blank_is_absent_and_half_a_pair_names_the_other_half() {
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
    fn the_four_kinds() {
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
    fn a_value_that_no_header_holds_is_refused_by_name() {
        for bad in ["a\nb", "a b", "a\u{7f}", "é", "a\0"] {
            let error = Credential::from_parts(Some(bad), Some("b"), None).unwrap_err();
            assert_eq!(error, CredentialError::BadCharacters("API key"));
            assert!(!error.to_string().contains(bad));
        }
    }

    #[test]
    fn headers_are_sensitive_and_nothing_shows_a_secret() {
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
    fn secrets_and_token_shapes_leave_a_text() {
        let text = pair().redact("alpha-key was beta-key, not ddpat_AB_cd12, ddapp_zz!");
        assert_eq!(
            text,
            "[redacted] was [redacted], not [redacted], [redacted]!"
        );
    }

    #[test]
    fn a_fingerprint_tells_credentials_upstreams_and_processes_apart() {
        let key = FingerprintKey::random();
        assert_eq!(key.of(&pair(), "u"), key.of(&pair(), "u"));
        assert_ne!(key.of(&pair(), "u"), key.of(&pair(), "v"));
        assert_ne!(key.of(&pair(), "u"), key.of(&Credential::None, "u"));
        assert_ne!(
            key.of(&pair(), "u"),
            FingerprintKey::random().of(&pair(), "u")
        );
        let joined = Credential::from_parts(Some("alpha-keybeta"), Some("-key"), None).unwrap();
        assert_ne!(key.of(&pair(), "u"), key.of(&joined, "u"));
    }
}
