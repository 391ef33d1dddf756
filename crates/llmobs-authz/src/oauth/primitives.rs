//! Parts that every OAuth authorization server needs: forms, opaque tokens, PKCE, JSON responses and
//! errors. They do not depend on this crate's server or its store, so that a test double of another
//! authorization server can use them.

mod error;
mod form;
mod opaque;
mod pkce;

pub use error::{OauthError, json_response};
pub use form::{Form, MAX_FORM_BYTES, read_body};
pub use opaque::{OpaqueToken, TokenHash};
pub use pkce::{is_s256_challenge, verify_pkce};
