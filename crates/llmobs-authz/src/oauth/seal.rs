//! Datadog credentials at rest: XChaCha20-Poly1305 under a key that never lies beside them.
//!
//! The nonce is random, which 192 bits allow for any number of credentials. The associated data
//! names the grant, its client and its audience, or the sign-in at Datadog that something belongs
//! to, so that what is sealed does not open when it is moved into another row.

mod content;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::opaque::Hashed;
use super::store::grants::Grant;

pub(super) use content::{Held, OfSignIn};

/// The form of what is sealed; first byte of the blob.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// The key that credentials are sealed with: 256 bits.
pub struct SecretKey(SecretBox<[u8; 32]>);

/// Why there is no usable key. Never holds any of it.
#[derive(Debug, Error)]
pub enum SecretKeyError {
    /// Not 64 hexadecimal digits.
    #[error(
        "the secret key must be 64 hexadecimal digits (256 bits), for example what `openssl rand -hex 32` prints; this one {0}"
    )]
    NotHex(&'static str),
    /// All digits are the same: a placeholder, not a key.
    #[error(
        "the secret key is one digit repeated, which is a placeholder and no key; make one: `openssl rand -hex 32`"
    )]
    Placeholder,
}

impl SecretKey {
    /// Reads a key of 64 hexadecimal digits; space around it is ignored.
    ///
    /// # Errors
    /// Anything else, and a key of one digit repeated.
    pub fn parse(text: &SecretString) -> Result<Self, SecretKeyError> {
        let digits = text.expose_secret().trim().as_bytes();
        if digits.len() != 64 {
            return Err(SecretKeyError::NotHex("has another length"));
        }
        if digits.iter().all(|digit| Some(digit) == digits.first()) {
            return Err(SecretKeyError::Placeholder);
        }
        let mut key = SecretBox::new(Box::new([0; 32]));
        let bytes: &mut [u8; 32] = secrecy::ExposeSecretMut::expose_secret_mut(&mut key);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { continue };
            let (Some(high), Some(low)) = (
                char::from(*high).to_digit(16),
                char::from(*low).to_digit(16),
            ) else {
                return Err(SecretKeyError::NotHex("holds another character"));
            };
            *byte = u8::try_from(high * 16 + low).unwrap_or_default();
        }
        Ok(Self(key))
    }

    /// What tells keys apart without telling anything about them.
    pub(super) fn id(&self) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(b"llmobs-mcp authz key id\0");
        hash.update(self.0.expose_secret());
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        for (byte, from) in id.iter_mut().zip(hash) {
            *byte = from;
        }
        id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose_secret().into())
    }

    /// Seals what a grant holds.
    ///
    /// # Errors
    /// It holds no credential, or the cipher's own, which contents of ordinary size do not meet.
    pub(super) fn seal(&self, held: &Held, place: &Place<'_>) -> Result<Vec<u8>, Unsealable> {
        self.encrypt(&held.encode()?, &place.associated_data())
    }

    /// Opens what a grant holds.
    ///
    /// # Errors
    /// It was sealed with another key or for another place, or it was changed.
    pub(super) fn open(&self, blob: &[u8], place: &Place<'_>) -> Result<Held, Unsealable> {
        Held::decode(&self.decrypt(blob, &place.associated_data())?)
    }

    /// Seals the secrets of a sign-in at Datadog, which the hash of its `state` names.
    ///
    /// # Errors
    /// The cipher's own.
    pub(super) fn seal_sign_in(
        &self,
        secrets: &OfSignIn,
        state: &Hashed,
    ) -> Result<Vec<u8>, Unsealable> {
        self.encrypt(&secrets.encode()?, &of_sign_in(state))
    }

    /// Opens the secrets of a sign-in at Datadog.
    ///
    /// # Errors
    /// As [`SecretKey::open`].
    pub(super) fn open_sign_in(&self, blob: &[u8], state: &Hashed) -> Result<OfSignIn, Unsealable> {
        OfSignIn::decode(&self.decrypt(blob, &of_sign_in(state))?)
    }

    fn encrypt(&self, plain: &SecretSlice<u8>, aad: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: plain.expose_secret(),
            aad,
        };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| Unsealable)?;
        let mut blob = vec![VERSION];
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&sealed);
        Ok(blob)
    }

    fn decrypt(&self, blob: &[u8], aad: &[u8]) -> Result<SecretSlice<u8>, Unsealable> {
        let (version, rest) = blob.split_first().ok_or(Unsealable)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Unsealable)?;
        if *version != VERSION {
            return Err(Unsealable);
        }
        let payload = Payload { msg: sealed, aad };
        let plain = self
            .cipher()
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| Unsealable)?;
        Ok(SecretSlice::from(plain))
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// Where a sealed credential belongs.
pub(super) struct Place<'a> {
    /// The grant.
    pub(super) grant: &'a str,
    /// The client that it was granted to.
    pub(super) client: &'a str,
    /// The audience of its tokens.
    pub(super) resource: &'a str,
}

impl<'a> Place<'a> {
    /// The place of what a grant holds.
    pub(super) fn of(grant: &'a Grant) -> Self {
        Self {
            grant: &grant.id,
            client: &grant.client,
            resource: &grant.resource,
        }
    }

    fn associated_data(&self) -> Vec<u8> {
        let mut data = b"llmobs-mcp authz credential\0".to_vec();
        for part in [self.grant, self.client, self.resource] {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

fn of_sign_in(state: &Hashed) -> Vec<u8> {
    let mut data = b"llmobs-mcp authz sign-in\0".to_vec();
    data.extend_from_slice(state.bytes());
    data
}

/// A credential that could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a stored credential does not open with this server's secret key")]
pub(super) struct Unsealable;

#[cfg(test)]
pub(crate) mod testing {
    use super::SecretKey;

    /// A key of a test.
    pub(crate) fn key(seed: char) -> SecretKey {
        let text = format!("{seed}0").repeat(32);
        SecretKey::parse(&text.into()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::key;
    use super::*;
    use datadog_llmobs::Credential;
    use rstest::rstest;

    const PLACE: Place<'_> = Place {
        grant: "g",
        client: "c",
        resource: "r",
    };

    fn given(text: &str) -> Held {
        Held::Given(Credential::Bearer(text.into()))
    }

    #[test]
    fn two_seals_of_one_credential_differ() {
        let seal = || key('a').seal(&given("token-a"), &PLACE).unwrap();
        assert_ne!(seal(), seal());
    }

    #[rstest]
    #[case::another_grant(Place { grant: "h", ..PLACE })]
    #[case::another_client(Place { client: "d", ..PLACE })]
    #[case::another_audience(Place { resource: "s", ..PLACE })]
    #[case::shifted_borders(Place { grant: "gc", client: "", resource: "r" })]
    fn it_does_not_open_elsewhere(#[case] place: Place<'_>) {
        let blob = key('a').seal(&given("token-a"), &PLACE).unwrap();
        assert_eq!(key('a').open(&blob, &place).err(), Some(Unsealable));
    }

    #[test]
    fn it_does_not_open_with_another_key_or_when_changed() {
        let blob = key('a').seal(&given("token-a"), &PLACE).unwrap();
        assert!(key('b').open(&blob, &PLACE).is_err());
        assert_ne!(key('a').id(), key('b').id());
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert!(key('a').open(&changed, &PLACE).is_err(), "byte {at}");
        }
        assert!(key('a').open(&[], &PLACE).is_err());
        assert!(key('a').open(&blob[..20], &PLACE).is_err());
    }

    #[test]
    fn the_secrets_of_a_sign_in_open_for_it_alone() {
        let secrets = OfSignIn {
            verifier: "a-verifier".into(),
            page: "a-page".into(),
        };
        let (state, other) = (Hashed::of("state-a"), Hashed::of("state-b"));
        let blob = key('a').seal_sign_in(&secrets, &state).unwrap();
        for secret in ["a-verifier", "a-page"] {
            let shown = blob.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!shown, "the blob holds a secret");
        }
        let opened = key('a').open_sign_in(&blob, &state).unwrap();
        assert_eq!(opened.verifier.expose_secret(), "a-verifier");
        assert_eq!(opened.page.expose_secret(), "a-page");
        assert!(key('a').open_sign_in(&blob, &other).is_err());
        assert!(key('b').open_sign_in(&blob, &state).is_err());
        assert!(key('a').open(&blob, &PLACE).is_err(), "it is no credential");
    }

    #[rstest]
    #[case("", "another length")]
    #[case("a0", "another length")]
    #[case(&"g0".repeat(32), "another character")]
    #[case(&"é".repeat(32), "another character")]
    #[case(&"00".repeat(32), "placeholder")]
    fn what_is_no_key_is_refused_without_showing_it(#[case] text: &str, #[case] why: &str) {
        let error = SecretKey::parse(&text.into()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("openssl rand -hex 32"), "{error}");
        assert!(text.is_empty() || text == "a0" || !error.contains(text));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", key('a')), "SecretKey");
    }
}
