//! Opaque tokens: codes, access tokens, refresh tokens and cookies.
//!
//! A token has 256 random bits. Servers store only its hash. Plain SHA-256 is sufficient, because random
//! tokens cannot be guessed from a list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A new token, before it is sent to its recipient.
pub struct OpaqueToken(SecretString);

impl OpaqueToken {
    /// A new token.
    pub fn generate() -> Self {
        Self::with_prefix("")
    }

    /// A new token with a prefix, by which people and secret scanners recognise the kind of token.
    pub fn with_prefix(prefix: &str) -> Self {
        let bits = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self(format!("{prefix}{bits}").into())
    }

    /// The text of the token, for its recipient only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The hash to store.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.expose())
    }
}

/// The SHA-256 hash of a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token that a client sent.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// A hash from storage.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares two hashes in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_have_their_prefix() {
        let (one, two) = (
            OpaqueToken::with_prefix("test_"),
            OpaqueToken::with_prefix("test_"),
        );
        assert!(one.expose().starts_with("test_"));
        assert_eq!(one.expose().len(), "test_".len() + 43);
        assert_ne!(one.expose(), two.expose());
        assert!(one.hash().matches(&TokenHash::of(one.expose())));
        assert!(!one.hash().matches(&two.hash()));
    }
}
