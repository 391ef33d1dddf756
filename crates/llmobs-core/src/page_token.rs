//! Page tokens: the position at which a list continues, as opaque text.
//!
//! A token carries a format version, a hash of the request it belongs to, and the position. A
//! token of another request or of another version is refused instead of returning wrong rows; the
//! caller then starts again without a token. Tokens are not signed: a forged one can only name
//! another position in data that its sender may read anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest token in bytes, written or read.
pub const MAX_TOKEN_BYTES: usize = 512;

/// The format version. Increase it when the meaning of a position changes.
const VERSION: u8 = 1;

/// Why a page token cannot be written or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// The token is longer than [`MAX_TOKEN_BYTES`].
    #[error("the page token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// The text is not a page token.
    #[error("the text is not a page token")]
    Malformed,
    /// The token was written by another version of this program.
    #[error("the page token was written by another version")]
    OtherVersion,
    /// The token belongs to a request with other arguments.
    #[error("the page token belongs to a request with other arguments")]
    OtherRequest,
}

/// The wire form, with short keys because models pay for each character.
#[derive(Debug, Serialize, Deserialize)]
struct PageToken<T> {
    /// The format version.
    v: u8,
    /// The hash of the request.
    q: u64,
    /// The position.
    p: T,
}

/// Only the version, to tell an old token from malformed text.
#[derive(Debug, Deserialize)]
struct TokenVersion {
    v: u8,
}

/// Writes the token for a position in the list that `request` describes.
///
/// `request` holds everything that decides which rows the list has and in which order.
///
/// # Errors
///
/// [`PageTokenError::TooLong`] when the position does not fit.
pub fn encode<T: Serialize>(position: &T, request: &[&str]) -> Result<String, PageTokenError> {
    let token = PageToken {
        v: VERSION,
        q: request_hash(request),
        p: position,
    };
    let json = serde_json::to_vec(&token).map_err(|_| PageTokenError::Malformed)?;
    let text = URL_SAFE_NO_PAD.encode(json);
    if text.len() > MAX_TOKEN_BYTES {
        return Err(PageTokenError::TooLong);
    }
    Ok(text)
}

/// Reads a token that [`encode`] wrote for the same request.
///
/// # Errors
///
/// Every [`PageTokenError`]; in each case the caller has to start again without a token.
pub fn decode<T: DeserializeOwned>(text: &str, request: &[&str]) -> Result<T, PageTokenError> {
    let text = text.trim();
    if text.len() > MAX_TOKEN_BYTES {
        return Err(PageTokenError::TooLong);
    }
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| PageTokenError::Malformed)?;
    let version: TokenVersion =
        serde_json::from_slice(&json).map_err(|_| PageTokenError::Malformed)?;
    if version.v != VERSION {
        return Err(PageTokenError::OtherVersion);
    }
    let token: PageToken<T> =
        serde_json::from_slice(&json).map_err(|_| PageTokenError::Malformed)?;
    if token.q != request_hash(request) {
        return Err(PageTokenError::OtherRequest);
    }
    Ok(token.p)
}

/// FNV-1a over the parts, each followed by a zero byte. Unlike the standard library's hasher it
/// does not change between releases. Reduced to 53 bits, so that readers with floating-point
/// numbers keep it exact.
fn request_hash(request: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in request {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_returns_its_position_for_the_same_request_only() {
        let token = encode(&(7_u32, "t1"), &["search", "@status:error"]).unwrap();
        let read = decode::<(u32, String)>(&token, &["search", "@status:error"]);
        assert_eq!(read, Ok((7, "t1".to_owned())));
        let other = decode::<(u32, String)>(&token, &["search", "@status:ok"]);
        assert_eq!(other, Err(PageTokenError::OtherRequest));
        // Parts are separated: moving text from one to the next changes the request.
        let moved = decode::<(u32, String)>(&token, &["search@", "status:error"]);
        assert_eq!(moved, Err(PageTokenError::OtherRequest));
    }

    #[test]
    fn other_text_is_malformed() {
        for text in ["page2", "", "e30", "bnVsbA", "eyJvIjo0MH0"] {
            assert_eq!(
                decode::<u32>(text, &[]),
                Err(PageTokenError::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_of_another_version_is_named_as_such() {
        let old = URL_SAFE_NO_PAD.encode(br#"{"v":0,"o":40}"#);
        assert_eq!(decode::<u32>(&old, &[]), Err(PageTokenError::OtherVersion));
    }

    #[test]
    fn a_token_has_at_most_512_bytes() {
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(encode(&long, &[]), Err(PageTokenError::TooLong));
        assert_eq!(decode::<String>(&long, &[]), Err(PageTokenError::TooLong));
        let fits = encode(&"x".repeat(340), &[]).unwrap();
        assert!(fits.len() <= MAX_TOKEN_BYTES);
    }
}
