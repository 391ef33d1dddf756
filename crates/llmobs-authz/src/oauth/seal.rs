//! Encryption of Datadog credentials at rest: XChaCha20-Poly1305 with a key that is stored elsewhere.
//!
//! Nonces are random; with 192 bits they do not repeat. The associated data contains the grant, its
//! client and its audience, or the `state` of the sign-in at Datadog. A blob that is moved to another row
//! therefore cannot be opened.

mod content;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::primitives::TokenHash;
use super::store::grants::Grant;

pub(super) use content::{SealError, SignInSecrets, StoredCredential};

/// The version of the format; the first byte of a blob.
const FORMAT_VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// The 256-bit key that seals credentials.
pub struct SecretKey(SecretBox<[u8; 32]>);

/// Why a key is refused. Never contains the key.
#[derive(Debug, Error)]
pub enum SecretKeyError {
    /// Not 64 hexadecimal digits.
    #[error(
        "the secret key must be 64 hexadecimal digits (256 bits); this one {0}; generate one with `openssl rand -hex 32`"
    )]
    NotHex(&'static str),
    /// All digits are the same: a placeholder.
    #[error(
        "the secret key repeats one digit, as a placeholder does; generate one with `openssl rand -hex 32`"
    )]
    Placeholder,
}

impl SecretKey {
    /// Parses a key of 64 hexadecimal digits. Surrounding white space is ignored.
    ///
    /// # Errors
    /// The text is not 64 hexadecimal digits, or repeats one digit.
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
        hex::decode_to_slice(digits, bytes)
            .map_err(|_| SecretKeyError::NotHex("contains another character"))?;
        Ok(Self(key))
    }

    /// An identifier of the key that reveals nothing about it.
    pub(super) fn id(&self) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(b"llmobs-mcp authz key id\0");
        hash.update(self.0.expose_secret());
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        for (target, byte) in id.iter_mut().zip(hash) {
            *target = byte;
        }
        id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose_secret().into())
    }

    /// Seals the credential of a grant.
    ///
    /// # Errors
    /// The credential is empty, or the cipher fails, which it does for huge texts only.
    pub(super) fn seal(
        &self,
        credential: &StoredCredential,
        context: &SealContext<'_>,
    ) -> Result<Vec<u8>, SealError> {
        self.encrypt(&credential.encode()?, &context.associated_data())
    }

    /// Opens the credential of a grant.
    ///
    /// # Errors
    /// The blob was sealed with another key or in another context, or it was changed.
    pub(super) fn open(
        &self,
        blob: &[u8],
        context: &SealContext<'_>,
    ) -> Result<StoredCredential, SealError> {
        StoredCredential::decode(&self.decrypt(blob, &context.associated_data())?)
    }

    /// Seals the secrets of the sign-in at Datadog with this `state`.
    ///
    /// # Errors
    /// The cipher fails.
    pub(super) fn seal_sign_in(
        &self,
        secrets: &SignInSecrets,
        state: &TokenHash,
    ) -> Result<Vec<u8>, SealError> {
        self.encrypt(&secrets.encode()?, &sign_in_associated_data(state))
    }

    /// Opens the secrets of a sign-in at Datadog.
    ///
    /// # Errors
    /// The blob was sealed with another key or for another `state`, or it was changed.
    pub(super) fn open_sign_in(
        &self,
        blob: &[u8],
        state: &TokenHash,
    ) -> Result<SignInSecrets, SealError> {
        SignInSecrets::decode(&self.decrypt(blob, &sign_in_associated_data(state))?)
    }

    fn encrypt(&self, plain: &SecretSlice<u8>, aad: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: plain.expose_secret(),
            aad,
        };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| SealError)?;
        let mut blob = vec![FORMAT_VERSION];
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&sealed);
        Ok(blob)
    }

    fn decrypt(&self, blob: &[u8], aad: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let (version, rest) = blob.split_first().ok_or(SealError)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(SealError)?;
        if *version != FORMAT_VERSION {
            return Err(SealError);
        }
        let payload = Payload { msg: sealed, aad };
        let plain = self
            .cipher()
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| SealError)?;
        Ok(SecretSlice::from(plain))
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// The grant that a sealed credential belongs to; part of the associated data.
pub(super) struct SealContext<'a> {
    /// The grant.
    pub(super) grant: &'a str,
    /// The client that it was granted to.
    pub(super) client: &'a str,
    /// The audience of its tokens.
    pub(super) resource: &'a str,
}

impl<'a> SealContext<'a> {
    /// The context of a grant.
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

fn sign_in_associated_data(state: &TokenHash) -> Vec<u8> {
    let mut data = b"llmobs-mcp authz sign-in\0".to_vec();
    data.extend_from_slice(state.bytes());
    data
}

#[cfg(test)]
pub(crate) mod testing {
    use super::SecretKey;

    /// A key for tests.
    pub(crate) fn key(seed: char) -> SecretKey {
        let text = format!("{seed}0").repeat(32);
        SecretKey::parse(&text.into()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::key;
    use super::*;
    use datadog_llmobs::login::{Login, LoginTarget};
    use datadog_llmobs::{Credential, Upstream};
    use rstest::rstest;

    const CONTEXT: SealContext<'_> = SealContext {
        grant: "g",
        client: "c",
        resource: "r",
    };

    fn bearer(text: &str) -> StoredCredential {
        StoredCredential::Entered(Credential::Bearer(text.into()))
    }

    #[test]
    fn blobs_of_one_credential_differ() {
        let seal = || key('a').seal(&bearer("token-a"), &CONTEXT).unwrap();
        assert_ne!(seal(), seal());
    }

    #[rstest]
    #[case::another_grant(SealContext { grant: "h", ..CONTEXT })]
    #[case::another_client(SealContext { client: "d", ..CONTEXT })]
    #[case::another_audience(SealContext { resource: "s", ..CONTEXT })]
    #[case::shifted_fields(SealContext { grant: "gc", client: "", resource: "r" })]
    fn opens_in_its_context_only(#[case] context: SealContext<'_>) {
        let blob = key('a').seal(&bearer("token-a"), &CONTEXT).unwrap();
        assert_eq!(key('a').open(&blob, &context).err(), Some(SealError));
    }

    #[test]
    fn refuses_other_keys_and_changed_blobs() {
        let blob = key('a').seal(&bearer("token-a"), &CONTEXT).unwrap();
        assert!(key('b').open(&blob, &CONTEXT).is_err());
        assert_ne!(key('a').id(), key('b').id());
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert!(key('a').open(&changed, &CONTEXT).is_err(), "byte {at}");
        }
        assert!(key('a').open(&[], &CONTEXT).is_err());
        assert!(key('a').open(&blob[..20], &CONTEXT).is_err());
    }

    #[test]
    fn sign_in_secrets_open_for_their_state_only() {
        let secrets = SignInSecrets {
            verifier: "a-verifier".into(),
            page: "a-page".into(),
        };
        let (state, other) = (TokenHash::of("state-a"), TokenHash::of("state-b"));
        let blob = key('a').seal_sign_in(&secrets, &state).unwrap();
        for secret in ["a-verifier", "a-page"] {
            let is_contained = blob.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!is_contained, "the blob contains a secret");
        }
        let opened = key('a').open_sign_in(&blob, &state).unwrap();
        assert_eq!(opened.verifier.expose_secret(), "a-verifier");
        assert_eq!(opened.page.expose_secret(), "a-page");
        assert!(key('a').open_sign_in(&blob, &other).is_err());
        assert!(key('b').open_sign_in(&blob, &state).is_err());
        assert!(
            key('a').open(&blob, &CONTEXT).is_err(),
            "sign-in secrets are not a credential"
        );
    }

    #[rstest]
    #[case("", "another length")]
    #[case("a0", "another length")]
    #[case(&"g0".repeat(32), "another character")]
    #[case(&"é".repeat(32), "another character")]
    #[case(&"00".repeat(32), "placeholder")]
    fn refuses_invalid_key_without_repeating_it(#[case] text: &str, #[case] reason: &str) {
        let error = SecretKey::parse(&text.into()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(error.contains("openssl rand -hex 32"), "{error}");
        assert!(text.is_empty() || text == "a0" || !error.contains(text));
    }

    #[test]
    fn debug_output_hides_key() {
        assert_eq!(format!("{:?}", key('a')), "SecretKey");
    }

    fn key_pair() -> Credential {
        // With characters that JSON escapes.
        Credential::from_parts(Some("key-a"), Some(r#"key-b~!{}"\"#), None).unwrap()
    }

    fn login() -> StoredCredential {
        let upstream = Upstream::from_api_url("http://127.0.0.1:9").unwrap();
        StoredCredential::Login(Box::new(Login {
            target: LoginTarget::from_upstream(&upstream).unwrap(),
            client_id: "client-a".into(),
            access_token: "access-a".into(),
            refresh_token: Some("refresh-a".into()),
            issued_at_ms: 1,
            expires_at_ms: 2,
            scope: "llm_observability_read".into(),
            org_id: None,
            org_name: None,
        }))
    }

    fn exposed_values(credential: &StoredCredential) -> Vec<String> {
        let expose = |secret: &SecretString| secret.expose_secret().to_owned();
        match credential {
            StoredCredential::Entered(Credential::KeyPair { api_key, app_key }) => {
                vec![expose(api_key), expose(app_key)]
            }
            StoredCredential::Entered(Credential::Bearer(token) | Credential::AppToken(token)) => {
                vec![expose(token)]
            }
            StoredCredential::Entered(Credential::None) => panic!("an empty credential was sealed"),
            StoredCredential::Login(login) => {
                let mut all = vec![expose(&login.access_token)];
                all.extend(login.refresh_token.as_ref().map(expose));
                all.extend([login.target.key(), login.client_id.clone()]);
                all.push(format!("{}-{}", login.issued_at_ms, login.expires_at_ms));
                all.push(login.scope.clone());
                all
            }
        }
    }

    #[rstest]
    #[case(StoredCredential::Entered(key_pair()))]
    #[case(StoredCredential::Entered(Credential::Bearer("token-a".into())))]
    #[case(StoredCredential::Entered(Credential::AppToken("token-b".into())))]
    #[case(login())]
    fn opens_what_it_sealed(#[case] credential: StoredCredential) {
        let blob = key('a').seal(&credential, &CONTEXT).unwrap();
        let opened = key('a').open(&blob, &CONTEXT).unwrap();
        assert_eq!(opened.kind(), credential.kind());
        assert_eq!(exposed_values(&opened), exposed_values(&credential));
        for secret in exposed_values(&credential) {
            let is_contained = blob.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!is_contained, "the blob contains {secret}");
        }
    }

    #[test]
    fn refuses_to_seal_empty_credential() {
        let empty = StoredCredential::Entered(Credential::None);
        assert!(key('a').seal(&empty, &CONTEXT).is_err());
    }
}
