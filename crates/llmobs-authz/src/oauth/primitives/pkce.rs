//! Proof Key for Code Exchange (RFC 7636), method S256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Whether a verifier belongs to an S256 challenge. A verifier has 43 to 128 letters, digits and
/// `-._~` (RFC 7636 section 4.1).
pub fn verify_pkce(verifier: &str, challenge: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(is_unreserved)
        && bool::from(hash.as_bytes().ct_eq(challenge.as_bytes()))
}

/// Whether a text has the form of an S256 challenge: a SHA-256 hash in base64url.
pub fn is_s256_challenge(text: &str) -> bool {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == 43 && text.bytes().all(is_base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn accepts_matching_verifier_only() {
        assert!(verify_pkce(VERIFIER, CHALLENGE));
        assert!(!verify_pkce(&VERIFIER.replace('d', "e"), CHALLENGE));
        // With method `plain` the challenge would be its own verifier.
        assert!(!verify_pkce(CHALLENGE, CHALLENGE));
        for malformed in ["short".to_owned(), format!("{VERIFIER} ")] {
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&malformed));
            assert!(!verify_pkce(&malformed, &challenge), "{malformed}");
        }
    }

    #[test]
    fn recognises_s256_challenge() {
        assert!(is_s256_challenge(CHALLENGE));
        assert!(!is_s256_challenge(VERIFIER.get(..42).unwrap()));
        assert!(!is_s256_challenge(&format!(
            "{}=",
            CHALLENGE.get(..42).unwrap()
        )));
    }
}
