//! Codes, tokens and cookies: 256 random bits each, of which only the hash is kept.
//!
//! A plain SHA-256 is enough where the input is random: there is nothing to guess from a list. The
//! prefixes let secret scanners and people tell what they found.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How our access tokens begin.
pub(super) const ACCESS: &str = "llmobs_at_";
/// How our refresh tokens begin.
pub(super) const REFRESH: &str = "llmobs_rt_";
/// How our authorization codes begin.
pub(super) const CODE: &str = "llmobs_ac_";
/// What is not shown to programs needs no prefix.
pub(super) const PLAIN: &str = "";

/// A secret that was just made, on its way to its one reader.
pub(super) struct Opaque(SecretString);

impl Opaque {
    /// A new one.
    pub(super) fn new(prefix: &str) -> Self {
        let bits = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self(format!("{prefix}{bits}").into())
    }

    /// The text, for its reader alone.
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is kept of it.
    pub(super) fn hashed(&self) -> Hashed {
        Hashed::of(self.expose())
    }
}

/// What is kept of a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashed([u8; 32]);

impl Hashed {
    /// The hash of a text that somebody sent.
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The hash itself.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether two are the same, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl ToSql for Hashed {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
    }
}

impl FromSql for Hashed {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| FromSqlError::InvalidBlobSize {
                expected_size: 32,
                blob_size: bytes.len(),
            })
    }
}

/// Whether a verifier belongs to a challenge (PKCE, S256). The verifier's form is RFC 7636's: 43 to
/// 128 letters, digits and `-._~`.
pub(super) fn verifies(verifier: &str, challenge: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let hashed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(unreserved)
        && bool::from(hashed.as_bytes().ct_eq(challenge.as_bytes()))
}

/// Whether a text can be an S256 challenge: a SHA-256 hash in base64url.
pub(super) fn is_challenge(text: &str) -> bool {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == 43 && text.bytes().all(base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix B of RFC 7636.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn a_verifier_fits_its_challenge_and_no_other() {
        assert!(verifies(VERIFIER, CHALLENGE));
        assert!(!verifies(&VERIFIER.replace('d', "e"), CHALLENGE));
        // Were `plain` allowed, the challenge would be its own verifier.
        assert!(!verifies(CHALLENGE, CHALLENGE));
        let short = "short";
        let of_short = URL_SAFE_NO_PAD.encode(Sha256::digest(short));
        assert!(!verifies(short, &of_short));
        let odd = format!("{VERIFIER} ");
        let of_odd = URL_SAFE_NO_PAD.encode(Sha256::digest(&odd));
        assert!(!verifies(&odd, &of_odd));
    }

    #[test]
    fn a_challenge_is_a_hash() {
        assert!(is_challenge(CHALLENGE));
        assert!(!is_challenge(VERIFIER.get(..42).unwrap()));
        assert!(!is_challenge(&format!("{}=", CHALLENGE.get(..42).unwrap())));
    }

    #[test]
    fn secrets_differ_and_do_not_show() {
        let (one, two) = (Opaque::new(ACCESS), Opaque::new(ACCESS));
        assert!(one.expose().starts_with(ACCESS));
        assert_eq!(one.expose().len(), ACCESS.len() + 43);
        assert_ne!(one.expose(), two.expose());
        assert!(one.hashed().is(&Hashed::of(one.expose())));
        assert!(!one.hashed().is(&two.hashed()));
    }
}
